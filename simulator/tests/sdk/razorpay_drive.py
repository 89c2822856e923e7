"""Drives the simulator with Razorpay's own client library, as a shop would."""

import json
import os

import razorpay
from razorpay.errors import BadRequestError, ServerError, SignatureVerificationError

from shop import Mailbox, control, refused

KEY = (os.environ["RAZORPAY_KEY_ID"], os.environ["RAZORPAY_KEY_SECRET"])
WEBHOOK_SECRET = os.environ["RAZORPAY_WEBHOOK_SECRET"]
client = razorpay.Client(auth=KEY, base_url=os.environ["RAZORPAY_URL"])
mailbox = Mailbox("razorpay")


def create(receipt=None, **more):
    order = {"amount": 50000, "currency": "INR", "notes": {"payment_id": "p-1"}, **more}
    if receipt:
        order["receipt"] = receipt
    return client.order.create(order)


def act(order, act):
    return control({"act": {"reference": order["id"], "act": act}})


def captured():
    payment = act(create(), "succeed")["payment_ref"]
    return client.payment.capture(payment, 50000, {"currency": "INR"})


def an_order_is_created_and_found_by_its_receipt():
    order = create("receipt-1")
    assert (order["entity"], order["status"], order["amount_due"]) == ("order", "created", 50000)
    assert client.order.fetch(order["id"]) == order
    found = client.order.all({"receipt": "receipt-1"})
    assert (found["entity"], found["count"]) == ("collection", 1)
    assert found["items"] == [order]
    assert client.order.all({"receipt": "receipt-2"})["items"] == []
    assert client.order.create({"amount": 100, "currency": "INR"})["notes"] == []

    refusal = refused(BadRequestError, lambda: create("receipt-1"))
    assert "receipt should be unique" in str(refusal)
    control({"set-repeated-receipt": "same-order"})
    assert create("receipt-1")["id"] == order["id"]
    control({"set-repeated-receipt": "refused"})


def a_payment_is_authorised_and_then_captured():
    order = create()
    checkout = act(order, "succeed")["checkout"]
    client.utility.verify_payment_signature(checkout)
    forged = {**checkout, "razorpay_order_id": create()["id"]}
    refused(
        SignatureVerificationError, lambda: client.utility.verify_payment_signature(forged)
    )
    payment = client.payment.fetch(checkout["razorpay_payment_id"])
    assert (payment["status"], payment["captured"]) == ("authorized", False)
    assert (payment["order_id"], payment["notes"]) == (order["id"], {"payment_id": "p-1"})
    assert client.order.fetch(order["id"])["status"] == "attempted"

    wrong = lambda: client.payment.capture(payment["id"], 49999, {"currency": "INR"})
    assert "equal to the amount" in str(refused(BadRequestError, wrong))
    paid = client.payment.capture(payment["id"], 50000, {"currency": "INR"})
    assert (paid["status"], paid["captured"]) == ("captured", True)
    again = lambda: client.payment.capture(payment["id"], 50000, {"currency": "INR"})
    assert "already been captured" in str(refused(BadRequestError, again))
    order = client.order.fetch(order["id"])
    assert (order["status"], order["amount_paid"], order["amount_due"]) == ("paid", 50000, 0)
    assert [it["id"] for it in client.order.payments(order["id"])["items"]] == [paid["id"]]
    assert paid["id"] in [it["id"] for it in client.payment.all({"count": 100})["items"]]


def a_failed_payment_may_be_authorised_late():
    order = create()
    failed = act(order, {"decline": "payment_failed"})
    payment = client.payment.fetch(failed["payment_ref"])
    assert (payment["status"], payment["error_reason"]) == ("failed", "payment_failed")
    late = act(order, "authorise-late")
    assert late["payment_ref"] == payment["id"]
    assert client.payment.fetch(payment["id"])["status"] == "authorized"


def money_goes_back_once():
    payment = captured()
    key = {"X-Refund-Idempotency": "refund-key-1"}
    part = {"amount": 20000, "receipt": "r-1", "notes": {"refund_id": "r-1"}}
    refund = client.payment.refund(payment["id"], part, headers=dict(key))
    assert (refund["status"], refund["amount"]) == ("processed", 20000)
    again = client.payment.refund(payment["id"], part, headers=dict(key))
    assert again["id"] == refund["id"]
    other = lambda: client.payment.refund(payment["id"], {"amount": 1000}, headers=dict(key))
    assert "Different request body" in str(refused(BadRequestError, other))
    short = {"X-Refund-Idempotency": "short"}
    refused(BadRequestError, lambda: client.payment.refund(payment["id"], part, headers=short))

    too_much = lambda: client.payment.refund(payment["id"], {"amount": 30001})
    assert "greater than the refund payment amount" in str(refused(BadRequestError, too_much))
    assert client.payment.fetch(payment["id"])["refund_status"] == "partial"
    rest = client.payment.refund(payment["id"], {})
    assert rest["amount"] == 30000
    done = lambda: client.payment.refund(payment["id"], {"amount": 100})
    assert "fully refunded" in str(refused(BadRequestError, done))
    listed = client.payment.fetch_multiple_refund(payment["id"])["items"]
    assert [it["id"] for it in listed] == [rest["id"], refund["id"]]
    assert client.refund.fetch(refund["id"])["notes"] == {"refund_id": "r-1"}
    everything = client.refund.all({"count": 2, "from": refund["created_at"]})["items"]
    assert [it["id"] for it in everything] == [rest["id"], refund["id"]]
    assert client.payment.fetch_refund_id(payment["id"], rest["id"])["id"] == rest["id"]
    assert client.payment.fetch(payment["id"])["status"] == "refunded"


def disputes_are_listed_and_block_refunds():
    payment = captured()
    opened = control({"dispute": {"payment": payment["id"]}})
    listed = client.dispute.all({"count": 1})
    assert (listed["entity"], listed["count"]) == ("collection", 1)
    (dispute,) = listed["items"]
    assert (dispute["id"], dispute["entity"]) == (opened["id"], "dispute")
    assert dispute["payment_id"] == payment["id"]
    assert (dispute["status"], dispute["amount"]) == ("open", 50000)
    assert client.dispute.all({"to": dispute["created_at"] - 3600})["items"] == []
    blocked = lambda: client.payment.refund(payment["id"], {"amount": 100})
    assert "dispute" in str(refused(BadRequestError, blocked))
    control({"close-dispute": {"dispute": dispute["id"], "verdict": "lost"}})
    lost = client.dispute.fetch(dispute["id"])
    assert (lost["status"], lost["amount_deducted"]) == ("lost", 50000)
    refused(BadRequestError, lambda: client.dispute.fetch("disp_none"))


def nonsense_is_refused():
    refused(BadRequestError, lambda: client.order.fetch("order_none"))
    refused(BadRequestError, lambda: client.order.create({"amount": 99, "currency": "INR"}))
    refused(BadRequestError, lambda: client.order.create({"amount": 100}))
    refused(BadRequestError, lambda: create("r" * 41))
    authorised = act(create(), "succeed")["payment_ref"]
    refused(BadRequestError, lambda: client.payment.refund(authorised, {"amount": 100}))
    stranger = razorpay.Client(auth=(KEY[0], "wrong"), base_url=os.environ["RAZORPAY_URL"])
    refusal = refused(BadRequestError, lambda: stranger.order.fetch("order_none"))
    assert "Authentication failed" in str(refusal)
    target = {"operation": "retrieve-order"}
    control({"fail-next": {"target": target, "fault": "error-before", "times": 1}})
    refused(ServerError, lambda: client.order.fetch("order_none"))


def webhooks_are_really_signed():
    payment = captured()
    client.payment.refund(payment["id"], {"amount": 20000})
    wanted = {
        "payment.authorized",
        "payment.captured",
        "order.paid",
        "refund.created",
        "refund.processed",
    }
    told = {}
    for headers, body in mailbox.until(wanted, lambda body: body["event"]):
        signature = headers["x-razorpay-signature"]
        client.utility.verify_webhook_signature(body, signature, WEBHOOK_SECRET)
        refused(
            SignatureVerificationError,
            lambda: client.utility.verify_webhook_signature(body + " ", signature, WEBHOOK_SECRET),
        )
        event = json.loads(body)
        assert sorted(event["contains"]) == sorted(event["payload"])
        assert "id" not in event and headers["x-razorpay-event-id"]
        told[event["event"]] = event["payload"]
    assert told["order.paid"]["order"]["entity"]["status"] == "paid"
    assert told["order.paid"]["payment"]["entity"]["id"] == payment["id"]


for journey in [
    webhooks_are_really_signed,
    an_order_is_created_and_found_by_its_receipt,
    a_payment_is_authorised_and_then_captured,
    a_failed_payment_may_be_authorised_late,
    money_goes_back_once,
    disputes_are_listed_and_block_refunds,
    nonsense_is_refused,
]:
    journey()
    print("ok", journey.__name__)
