//! What the shop makes of news of disputes.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast::{
    checkout::{Heard, review_dispute},
    kernel::OrderId,
    payments::{
        Fate,
        disputes::{
            State,
            store::{NewDispute, upsert},
        },
        store::{self, captures_of},
    },
};
use serde_json::json;
use simulator::providers::{Capture, Delivery, Fault, Operation, Provider, Verdict};
use uuid::Uuid;

use super::{findings, ours, paid, paid_at_provider};
use crate::{
    provider::{
        BOTH, Purchase, UNITS, assert_ledgers_agree, fate_of_kind, hear_all, inbox_of, kept,
    },
    support::app::TestApp,
};

const VERDICTS: [(Verdict, &str); 2] = [(Verdict::Won, "won"), (Verdict::Lost, "lost")];

#[tokio::test]
async fn case_21_a_dispute_is_seen_from_its_claim_to_its_verdict() {
    TestApp::run(async |app| {
        for provider in BOTH {
            for (verdict, state) in VERDICTS {
                let (purchase, charge) = paid(app, provider).await;

                let name = app.providers.dispute(&charge).unwrap();
                hear_all(app).await;

                let seen = purchase.disputes().await;
                assert_eq!(seen.at("/items/0/provider"), provider.name());
                assert_eq!(seen.at("/items/0/provider_ref"), *name);
                assert_eq!(seen.at("/items/0/state"), "open");
                let amount = json!({ "amount": UNITS * purchase.mug.price, "currency": "USD" });
                assert_eq!(seen.at("/items/0/amount"), amount);
                assert!(findings(app, "disputed").await.contains(&(name.clone(), true)));

                app.providers.close_dispute(&name, verdict).unwrap();
                hear_all(app).await;

                assert_eq!(purchase.dispute_states().await, [state]);
                assert_eq!(purchase.told_of_disputes().await, ["open", state]);
                assert!(findings(app, "disputed").await.contains(&(name, false)));
                // Whether the shopper keeps the goods is no matter of the bank.
                purchase.assert_paid().await;
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_21_how_a_dispute_stands_is_not_taken_from_the_name_of_an_event() {
    TestApp::run(async |app| {
        let (purchase, charge) = paid(app, Provider::Stripe).await;
        let name = app.providers.dispute(&charge).unwrap();
        hear_all(app).await;

        let won = json!({ "id": name, "object": "dispute", "status": "won" });
        for kind in ["charge.dispute.funds_reinstated", "charge.dispute.closed"] {
            app.providers.tell(Provider::Stripe, kind, &won);
        }
        hear_all(app).await;

        assert_eq!(purchase.dispute_states().await, ["open"]);
        assert_eq!(purchase.told_of_disputes().await, ["open"]);
        assert_eq!(findings(app, "disputed").await, [(name.clone(), true)]);

        app.providers.close_dispute(&name, Verdict::Lost).unwrap();
        hear_all(app).await;
        app.providers.tell(Provider::Stripe, "charge.dispute.created", &won);
        hear_all(app).await;

        assert_eq!(purchase.dispute_states().await, ["lost"]);
        assert_eq!(findings(app, "disputed").await, [(name, false)]);
    })
    .await;
}

#[tokio::test]
async fn case_21_news_of_a_dispute_that_come_backwards_end_with_its_verdict() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Paused);
            let name = app.providers.dispute(&charge).unwrap();
            app.providers.close_dispute(&name, Verdict::Won).unwrap();

            app.providers.set_delivery(provider, Delivery::Reordered);
            hear_all(app).await;

            assert_eq!(purchase.dispute_states().await, ["won"]);
            assert_eq!(purchase.told_of_disputes().await, ["won"]);
            assert_eq!(findings(app, "disputed").await, []);
            purchase.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_01_a_dispute_that_is_told_of_many_times_is_one() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;

            app.providers.set_delivery(provider, Delivery::Tripled);
            let name = app.providers.dispute(&charge).unwrap();
            hear_all(app).await;
            for told in app.providers.events().iter().filter(|told| told.kind.contains("dispute")) {
                app.providers.redeliver(&told.id);
            }
            let again = (0..5).map(|_| review_dispute(&app.cx, ours(provider), &name, &[]));
            for review in join_all(again).await {
                assert!(matches!(review, Ok(Heard::Known)) || review.is_err(), "{review:?}");
            }
            hear_all(app).await;

            assert_eq!(purchase.dispute_states().await, ["open"]);
            assert_eq!(purchase.told_of_disputes().await, ["open"]);
            assert!(findings(app, "disputed").await.contains(&(name, true)));
        }
        assert_eq!(app.count("disputes").await, 2);
        assert_eq!(app.count("findings").await, 2);
    })
    .await;
}

#[tokio::test]
async fn case_21_an_answer_that_another_one_has_overtaken_is_asked_for_again() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Lost);
            let name = app.providers.dispute(&charge).unwrap();
            let mut block = app.db.begin().await.unwrap();
            sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE")
                .bind(purchase.order_id)
                .execute(&mut *block)
                .await
                .unwrap();

            // It has been told that the dispute is open when somebody else writes how it ended.
            let patient = app.patient();
            let (review, ()) =
                tokio::join!(review_dispute(&patient, ours(provider), &name, &[]), async {
                    app.until_blocked().await;
                    app.providers.close_dispute(&name, Verdict::Won).unwrap();
                    let order = [OrderId::from(purchase.order_id)];
                    let capture = captures_of(&app.db, &order).await.unwrap().pop().unwrap();
                    upsert(&mut *block, &won(&capture, &name)).await.unwrap();
                    block.commit().await.unwrap();
                });

            assert_eq!(review.unwrap(), Heard::Known);
            assert_eq!(purchase.dispute_states().await, ["won"]);
            assert_eq!(findings(app, "disputed").await, []);
        }
    })
    .await;
}

fn won(capture: &store::Capture, name: &str) -> NewDispute {
    NewDispute {
        capture_id: capture.id,
        order_id: capture.order_id,
        provider: capture.provider,
        provider_ref: name.to_owned(),
        amount_minor: capture.amount_minor,
        currency: capture.currency.clone(),
        state: State::Won,
        status: "won".to_owned(),
        reason: None,
    }
}

#[tokio::test]
async fn case_03_a_dispute_tells_of_money_that_nobody_told_us_of() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
            let (purchase, charge) = paid_at_provider(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Normal);

            app.providers.dispute(&charge).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
            assert_eq!(purchase.dispute_states().await, ["open"]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_28_disputes_of_others_who_share_the_account_are_ignored() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for provider in BOTH {
            let foreign = app.providers.create_foreign(provider, 999, "USD", BTreeMap::new());
            let charge = app.providers.succeed(&foreign).unwrap().payment_ref.unwrap();
            app.providers.dispute(&charge).unwrap();
        }
        // Stripe does not know it, or not yet.
        app.providers.tell(Provider::Stripe, "charge.dispute.created", &json!({ "id": "du_none" }));
        hear_all(app).await;
        assert_eq!(app.count("provider_events WHERE state = 'new'").await, 1);
        app.age_webhooks().await;
        hear_all(app).await;

        let mut disputes = inbox_of(app).await;
        disputes.retain(|(kind, ..)| kind.contains("dispute"));
        assert_eq!(disputes.len(), 4);
        for (kind, state, reason) in disputes {
            assert_eq!((&*state, reason.as_deref()), ("ignored", Some("not ours")), "{kind}");
        }
        assert_eq!(app.count("disputes").await + app.count("findings").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_asked_about_a_dispute_again() {
    TestApp::run(async |app| {
        for (provider, ask) in [
            (Provider::Stripe, Operation::RetrieveDispute),
            (Provider::Razorpay, Operation::RetrievePaymentDispute),
        ] {
            let (purchase, charge) = paid(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Paused);
            let name = app.providers.dispute(&charge).unwrap();
            app.providers.fail_next(ask, Fault::ErrorBefore, 1);
            let failed = review_dispute(&app.cx, ours(provider), &name, &[]).await;
            assert!(failed.is_err(), "{failed:?}");
            assert_eq!(purchase.dispute_states().await, [""; 0]);

            app.providers.fail_next(ask, Fault::ErrorBefore, 1);
            app.providers.set_delivery(provider, Delivery::Normal);
            hear_all(app).await;
            app.hurry().await;
            hear_all(app).await;

            assert_eq!(purchase.dispute_states().await, ["open"]);
            app.providers.clear_faults();
        }
        assert_eq!(app.count("provider_events WHERE state = 'new'").await, 0);
    })
    .await;
}

#[tokio::test]
async fn case_27_a_dispute_without_a_name_is_parked_and_found() {
    TestApp::run(async |app| {
        let nameless = json!({ "object": "dispute", "evidence": "ada@example.com" });
        app.providers.tell(Provider::Stripe, "charge.dispute.created", &nameless);
        app.providers.tell(Provider::Razorpay, "payment.dispute.created", &nameless);
        hear_all(app).await;

        assert_eq!(fate_of_kind(app, "charge.dispute.created").await, ["parked"]);
        assert_eq!(fate_of_kind(app, "payment.dispute.created").await, ["parked"]);
        let mut ids: Vec<String> = kept(app).await.into_iter().map(|id| id.to_string()).collect();
        ids.sort();
        let mut found = findings(app, "parked_webhook").await;
        found.sort();
        assert_eq!(found, ids.into_iter().map(|id| (id, true)).collect::<Vec<_>>());
        assert_eq!(app.count("findings WHERE detail::text LIKE '%ada%'").await, 0);
    })
    .await;
}

#[tokio::test]
async fn disputes_are_for_staff_alone() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let purchase = Purchase::of(app, mug).await;
        let path = format!("/v1/admin/orders/{}/disputes", purchase.order_id);

        purchase.disputes().await.assert_status(200);
        assert_eq!(purchase.dispute_states().await, [""; 0]);
        app.anybody().get(&path).await.assert_status(401);
        purchase.shopper.get(&path).await.assert_status(403);
        app.customer().await.get(&path).await.assert_status(403);
        let unknown = format!("/v1/admin/orders/{}/disputes", Uuid::now_v7());
        app.staff().await.get(&unknown).await.assert_problem(404, "order-not-found");
    })
    .await;
}
