"""Drives the simulator with Stripe's own client library, as a shop would."""

import os
import time

import stripe

from shop import Mailbox, control, refused

SECRET = os.environ["STRIPE_WEBHOOK_SECRET"]
client = stripe.StripeClient(
    os.environ["STRIPE_KEY"],
    base_addresses={"api": os.environ["STRIPE_URL"]},
    max_network_retries=0,
)
intents, refunds = client.v1.payment_intents, client.v1.refunds
mailbox = Mailbox("stripe")


def create(amount=4999, key=None, **more):
    params = {"amount": amount, "currency": "usd", "metadata": {"payment_id": "p-1"}, **more}
    return intents.create(params, {"idempotency_key": key} if key else {})


def succeed(intent):
    return control({"act": {"reference": intent.id, "act": "succeed"}})


def an_intent_is_created_and_found_in_every_way():
    begun = int(time.time())
    intent = create(metadata={"payment_id": "p-42"})
    assert isinstance(intent, stripe.PaymentIntent)
    assert intent.status == "requires_payment_method", intent.status
    assert (intent.amount, intent.currency, intent.livemode) == (4999, "usd", False)
    assert intent.client_secret.startswith(intent.id + "_secret_")
    assert intent.metadata["payment_id"] == "p-42"
    assert intent.last_response.headers["request-id"].startswith("req_")

    assert intents.retrieve(intent.id).id == intent.id
    listed = intents.list({"created": {"gte": begun}, "limit": 1})
    assert [it.id for it in listed.data] == [intent.id]
    found = intents.search({"query": "metadata['payment_id']:'p-42'"})
    assert [it.id for it in found.data] == [intent.id] and not found.has_more
    assert not intents.search({"query": "metadata['payment_id']:'nobody'"}).data
    assert not intents.list({"created": {"gte": begun + 3600}}).data


def lists_are_walked_page_by_page():
    made = [create().id for _ in range(5)]
    walked = [it.id for it in intents.list({"limit": 2}).auto_paging_iter()]
    assert walked[:5] == made[::-1]
    assert len(walked) == len(set(walked))


def a_key_is_answered_once():
    first = create(key="key-1")
    again = create(key="key-1")
    assert first.id == again.id
    assert again.last_response.headers["idempotent-replayed"] == "true"
    error = refused(stripe.IdempotencyError, lambda: create(amount=1, key="key-1"))
    assert error.http_status == 400
    create(key="key-2")


def cards_do_what_their_names_say():
    paid = intents.confirm(create().id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.amount_received) == ("succeeded", 4999)
    charge = client.v1.charges.retrieve(paid.latest_charge)
    assert (charge.payment_intent, charge.paid, charge.captured) == (paid.id, True, True)

    intent = create()
    poor = {"payment_method": "pm_card_visa_chargeDeclinedInsufficientFunds"}
    error = refused(stripe.CardError, lambda: intents.confirm(intent.id, poor))
    assert (error.http_status, error.code) == (402, "card_declined")
    assert error.error.decline_code == "insufficient_funds"
    assert error.error.payment_intent.id == intent.id
    declined = intents.retrieve(intent.id)
    assert declined.status == "requires_payment_method"
    assert declined.last_payment_error.decline_code == "insufficient_funds"
    assert intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "succeeded"

    asked = create(confirm=True, payment_method="pm_card_threeDSecure2Required")
    assert (asked.status, asked.next_action.type) == ("requires_action", "redirect_to_url")
    assert succeed(asked)["status"] == "succeeded"


def an_intent_is_cancelled_unless_it_is_paid():
    intent = create()
    cancelled = intents.cancel(intent.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")

    paid = create()
    succeed(paid)
    error = refused(stripe.InvalidRequestError, lambda: intents.cancel(paid.id))
    assert (error.http_status, error.code) == (400, "payment_intent_unexpected_state")
    assert error.error.payment_intent.status == "succeeded"


def an_authorisation_is_captured_in_part():
    intent = create(capture_method="manual", confirm=True, payment_method="pm_card_visa")
    assert (intent.status, intent.amount_capturable) == ("requires_capture", 4999)
    too_much = {"amount_to_capture": 5000}
    refused(stripe.InvalidRequestError, lambda: intents.capture(intent.id, too_much))
    captured = intents.capture(intent.id, {"amount_to_capture": 4000})
    assert (captured.status, captured.amount_received) == ("succeeded", 4000)
    error = refused(stripe.InvalidRequestError, lambda: intents.capture(intent.id))
    assert error.code == "payment_intent_unexpected_state"


def money_goes_back_once():
    paid = create(confirm=True, payment_method="pm_card_visa")
    part = {"payment_intent": paid.id, "amount": 1000, "metadata": {"refund_id": "r-1"}}
    refund = refunds.create(part, {"idempotency_key": "refund-1"})
    assert isinstance(refund, stripe.Refund)
    assert (refund.status, refund.amount, refund.payment_intent) == ("succeeded", 1000, paid.id)
    assert refunds.create(part, {"idempotency_key": "refund-1"}).id == refund.id
    assert refunds.retrieve(refund.id).metadata["refund_id"] == "r-1"

    too_much = {"payment_intent": paid.id, "amount": 4000}
    error = refused(stripe.InvalidRequestError, lambda: refunds.create(too_much))
    assert "greater than unrefunded amount" in error.user_message
    rest = refunds.create({"payment_intent": paid.id})
    assert rest.amount == 3999
    error = refused(stripe.InvalidRequestError, lambda: refunds.create(too_much))
    assert error.code == "charge_already_refunded"
    listed = refunds.list({"payment_intent": paid.id})
    assert [it.id for it in listed.data] == [rest.id, refund.id]
    assert client.v1.charges.retrieve(paid.latest_charge).refunded


def nonsense_is_refused():
    error = refused(stripe.InvalidRequestError, lambda: intents.retrieve("pi_none"))
    assert (error.http_status, error.code) == (404, "resource_missing")
    error = refused(stripe.InvalidRequestError, lambda: create(amount=0))
    assert (error.http_status, error.param) == (400, "amount")
    error = refused(stripe.InvalidRequestError, lambda: create(colour="red"))
    assert error.code == "parameter_unknown"
    stranger = stripe.StripeClient(
        "sk_test_stranger",
        base_addresses={"api": os.environ["STRIPE_URL"]},
        max_network_retries=0,
    )
    call = stranger.v1.payment_intents.retrieve
    error = refused(stripe.AuthenticationError, lambda: call("pi_none"))
    assert "stranger" not in str(error)


def faults_look_like_stripes():
    def strike(fault):
        target = {"operation": "create-intent"}
        control({"fail-next": {"target": target, "fault": fault, "times": 1}})

    strike("error-after")
    error = refused(stripe.APIError, lambda: create(key="burnt"))
    assert error.http_status == 500
    assert refused(stripe.APIError, lambda: create(key="burnt")).http_status == 500
    strike("rate-limited")
    error = refused(stripe.RateLimitError, create)
    assert error.headers["retry-after"] == "1"
    strike("reset-before")
    refused(stripe.APIConnectionError, create)
    strike("malformed-answer")
    refused(stripe.APIError, create)
    strike("bad-gateway-after")
    refused(stripe.APIError, create)
    create()


def webhooks_are_really_signed():
    intent = create()
    succeed(intent)
    refunds.create({"payment_intent": intent.id})
    wanted = {
        "payment_intent.created",
        "payment_intent.succeeded",
        "charge.succeeded",
        "charge.refunded",
        "refund.created",
    }
    for headers, body in mailbox.until(wanted, lambda body: body["type"]):
        signature = headers["stripe-signature"]
        event = stripe.Webhook.construct_event(body, signature, SECRET)
        assert client.v1.events.retrieve(event.id).type == event.type
        assert intent.id in (event.data.object.id, getattr(event.data.object, "payment_intent", ""))
        refused(
            stripe.SignatureVerificationError,
            lambda: stripe.Webhook.construct_event(body + " ", signature, SECRET),
        )

    listed = client.v1.events.list({"type": "payment_intent.succeeded", "limit": 1})
    assert listed.data[0].data.object.id == intent.id


def disputes_are_found_by_their_intent():
    paid = create(confirm=True, payment_method="pm_card_createDispute")
    (dispute,) = client.v1.disputes.list({"payment_intent": paid.id}).data
    assert (dispute.status, dispute.amount) == ("needs_response", 4999)
    control({"close-dispute": {"dispute": dispute.id, "verdict": "lost"}})
    assert client.v1.disputes.retrieve(dispute.id).status == "lost"
    error = refused(
        stripe.InvalidRequestError, lambda: refunds.create({"payment_intent": paid.id})
    )
    assert error.code == "charge_disputed"


for journey in [
    webhooks_are_really_signed,
    an_intent_is_created_and_found_in_every_way,
    lists_are_walked_page_by_page,
    a_key_is_answered_once,
    cards_do_what_their_names_say,
    an_intent_is_cancelled_unless_it_is_paid,
    an_authorisation_is_captured_in_part,
    money_goes_back_once,
    nonsense_is_refused,
    faults_look_like_stripes,
    disputes_are_found_by_their_intent,
]:
    journey()
    print("ok", journey.__name__)
