//! A person decides what becomes of the money.

use std::collections::BTreeMap;

use holdfast::payments::{Fate, Mismatch, Surplus};
use simulator::providers::{Capture, Provider, RefundState};

use super::{TOTAL, attachment, decision, key, quarantined, resolve, signed, waiting};
use crate::{
    provider::{BOTH, Purchase, UNITS, assert_ledgers_agree, hear_all},
    support::{app::TestApp, client::until, shop::PRICE},
};

#[tokio::test]
async fn money_that_staff_accept_pays_its_order() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            for amount in [TOTAL - 1, TOTAL + 1] {
                let (purchase, capture_id) = quarantined(app, provider, amount, "USD").await;

                let answer = resolve(&staff, capture_id, &key(), &decision("accept")).await;
                answer.assert_status(200).assert_header("idempotency-replayed", None);
                hear_all(app).await;

                assert_eq!(answer.at("/fate"), "accepted");
                assert_eq!(answer.at("/amount/amount"), amount);
                assert_eq!(purchase.status().await, "paid");
                assert_eq!(purchase.hold().await, "sold");
                assert_eq!(app.stock_of(purchase.mug).await, (5 - UNITS, 0));
                assert_eq!(purchase.fates().await, [Fate::Accepted]);
                assert_eq!(purchase.mails("order-confirmed"), 1);
                assert_eq!(
                    purchase.timeline().await,
                    ["placed", "payment_quarantined", "payment_settled", "quarantine_resolved"],
                );
                assert_eq!(purchase.told_of("payment_settled").await[0]["amount"], amount);
                let told = &purchase.told_of("quarantine_resolved").await[0];
                assert_eq!(told["resolution"], "accept");
                assert!(told.get("note").is_none(), "what staff say is theirs");
                let log = signed(app, &format!("capture:{capture_id}")).await;
                assert_eq!(log.len(), 1);
                assert_eq!(Some(log[0].entry.actor_id.uuid()), staff.id);
                assert_eq!(log[0].entry.action, "resolveQuarantined");
                assert!(log[0].entry.request_id.is_some());
            }
        }
        assert!(waiting(&staff).await.is_empty());
        assert_eq!(app.count("findings WHERE closed_at IS NULL").await, 0);
        let by_nobody = "findings WHERE closed_by IS NULL OR note <> 'spoke with the shopper'";
        assert_eq!(app.count(by_nobody).await, 0);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn money_that_staff_refuse_goes_back_and_the_order_can_still_be_paid() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (purchase, capture_id) = quarantined(app, provider, TOTAL, "INR").await;

            let answer = resolve(&staff, capture_id, &key(), &decision("refund")).await;
            answer.assert_status(200);
            hear_all(app).await;

            assert_eq!(answer.at("/fate"), "refund_due");
            assert_eq!(answer.at("/reason"), "wrong_currency");
            let due = Fate::RefundDue(Surplus::Refused(Mismatch::WrongCurrency));
            assert_eq!(purchase.fates().await, [due]);
            let refunded = app.providers.ledger().refunds.pop().unwrap();
            assert_eq!((refunded.amount_minor, refunded.state), (TOTAL, RefundState::Succeeded));
            assert_eq!(purchase.told_of("refund_succeeded").await.len(), 1);
            assert_eq!(purchase.status().await, "awaiting_payment");
            assert_eq!(purchase.hold().await, "held");

            let name = purchase.open(provider).await;
            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
        }
        assert_eq!(app.providers.ledger().refunds.len(), BOTH.len());
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn money_that_was_meant_for_another_order_pays_that_one_and_is_its_own_from_then_on() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for (provider, expires) in BOTH.into_iter().zip([false, true]) {
            let (purchase, capture_id) = quarantined(app, provider, PRICE, "USD").await;
            let other_id = purchase.shopper.order_for(&[(purchase.mug, 1)]).await;
            let (shopper, mug) = (purchase.shopper.clone(), purchase.mug);
            let other = Purchase { app, shopper, mug, order_id: other_id };
            other.open(provider).await;
            if expires {
                other.expire().await;
                hear_all(app).await;
            }

            resolve(&staff, capture_id, &key(), &attachment(other_id)).await.assert_status(200);
            hear_all(app).await;

            assert_eq!(other.status().await, "paid");
            assert_eq!(other.hold().await, "sold");
            assert_eq!(other.fates().await, [Fate::Accepted]);
            assert_eq!(other.attempts().await, ["cancelled"]);
            assert_eq!(other.mails("order-confirmed"), 1);
            assert_eq!(other.told_of("quarantine_resolved").await.len(), 1);
            assert_eq!(purchase.status().await, "awaiting_payment");
            assert_eq!(purchase.fates().await, []);
            assert_eq!(purchase.told_of("quarantine_resolved").await.len(), 1);

            // Whoever gives the order up gets that money back.
            other.shopper.cancel(other_id).await.assert_status(200);
            hear_all(app).await;
            let refunded = app.providers.ledger().refunds.pop().unwrap();
            assert_eq!((refunded.amount_minor, refunded.state), (PRICE, RefundState::Succeeded));
            assert_eq!(other.told_of("refund_succeeded").await.len(), 1);
            assert_eq!(app.stock_of(purchase.mug).await, (5, UNITS));
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn accepted_money_of_another_object_withdraws_what_else_could_be_paid() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let staff = app.staff().await;
        let purchase = Purchase::begin(app).await;
        purchase.open(Provider::Stripe).await;
        let ours = app.providers.payments(Provider::Stripe).pop().unwrap();
        let metadata: BTreeMap<_, _> =
            [("payment_id".to_owned(), ours.metadata["payment_id"].clone())].into();
        let foreign = app.providers.create_foreign(Provider::Stripe, TOTAL, "USD", metadata);
        app.providers.succeed(&foreign).unwrap();
        hear_all(app).await;
        let capture_id = waiting(&staff).await[0];

        resolve(&staff, capture_id, &key(), &decision("accept")).await.assert_status(200);
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(purchase.attempts().await, ["cancelled"]);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn money_for_an_order_that_was_given_up_can_still_pay_it() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let (purchase, capture_id) = quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        purchase.shopper.cancel(purchase.order_id).await.assert_status(200);
        assert_eq!(purchase.hold().await, "released");

        resolve(&staff, capture_id, &key(), &decision("accept")).await.assert_status(200);
        hear_all(app).await;

        assert_eq!(purchase.status().await, "paid");
        assert_eq!(purchase.hold().await, "sold");
        assert_eq!(app.stock_of(purchase.mug).await, (5 - UNITS, 0));
    })
    .await;
}

#[tokio::test]
async fn money_that_somebody_sent_back_at_the_provider_is_not_sent_back_again() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (purchase, capture_id) = quarantined(app, provider, TOTAL - 1, "USD").await;
            let charge = app.providers.ledger().captures.pop().unwrap().provider_ref;
            app.providers.refund(&charge, None).unwrap();
            hear_all(app).await;

            let refused = resolve(&staff, capture_id, &key(), &decision("accept")).await;
            refused.assert_problem(409, "money-went-back");
            resolve(&staff, capture_id, &key(), &decision("refund")).await.assert_status(200);
            hear_all(app).await;

            let due = Fate::RefundDue(Surplus::Refused(Mismatch::WrongAmount));
            assert_eq!(purchase.fates().await, [due]);
        }
        assert_eq!(app.providers.ledger().refunds.len(), BOTH.len());
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_heard_of_while_its_money_moves_follows_it() {
    TestApp::run(async |app| {
        app.start_workers().await;
        let staff = app.staff().await;
        let api = app.another_api(app.patient()).await;
        let patient = api.with_token(staff.token(), staff.id);
        for provider in BOTH {
            let (purchase, capture_id) = quarantined(app, provider, PRICE, "USD").await;
            let other_id = purchase.shopper.order_for(&[(purchase.mug, 1)]).await;
            hear_all(app).await;
            let charge = app.providers.ledger().captures.pop().unwrap().provider_ref;
            let blocked = app.block(purchase.mug).await;

            let (once, wish) = (key(), attachment(other_id));
            let (answer, ()) = tokio::join!(resolve(&patient, capture_id, &once, &wish), async {
                until_so_many_wait(app, 1).await;
                app.providers.dispute(&charge).unwrap();
                until_so_many_wait(app, 2).await;
                blocked.rollback().await.unwrap();
            });
            answer.assert_status(200);
            hear_all(app).await;

            assert_eq!(app.status_of(other_id).await, "paid");
            for (order_id, disputes) in [(purchase.order_id, 0), (other_id, 1)] {
                let path = format!("/v1/admin/orders/{order_id}/disputes");
                let listed = staff.get(&path).await.at("/items");
                assert_eq!(listed.as_array().unwrap().len(), disputes);
            }
        }
    })
    .await;
}

/// Waits until so many wait for a lock.
async fn until_so_many_wait(app: &TestApp, wanted: i64) {
    let waiting = "pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("somebody waits for a lock", async || match app.count(waiting).await {
        waiting if waiting >= wanted => Ok(()),
        waiting => Err(format!("{waiting} do")),
    })
    .await;
}
