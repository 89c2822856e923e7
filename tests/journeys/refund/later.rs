//! What becomes of refunds after the shop has asked for them, and those that it never asked for.

use futures_util::future::join_all;
use holdfast::{
    checkout::{Heard, refund_payment, review_refund},
    clients::{razorpay, stripe},
    payments::{
        self,
        findings::{self, Kind, store::NewFinding},
        refunds::{Refund, State, store::set_state},
    },
};
use serde_json::json;
use simulator::providers::{Delivery, Fault, Provider, RefundState, Verdict};

use super::{
    BOTH, Sale, TOTAL, Taken, all, found, journey, key, making, open_findings, ours, part,
    sent_back,
};
use crate::support::{app::TestApp, client::until};

/// Asks the provider how the refund stands.
async fn review(app: &TestApp, provider: Provider, refund: &str) -> Heard {
    review_refund(&app.cx, ours(provider), refund, &[]).await.unwrap()
}

fn newest(app: &TestApp, taken: &Taken) -> String {
    sent_back(app, taken).pop().unwrap().provider_ref
}

#[tokio::test]
async fn case_18_a_refund_that_the_provider_works_on_is_not_over() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            app.providers.set_refunds_wait(provider, true);
            let (sale, taken) = Sale::paid(app, provider).await;
            sale.refund(&staff, &key(), &part(1_000)).await.assert_status(201);
            sale.refund(&staff, &key(), &part(500)).await.assert_status(201);
            app.settle().await;
            assert_eq!(sale.told().await, [("staff", "pending", 1_000), ("staff", "pending", 500)]);
            assert_eq!(sale.mails().await, 0);
            let refunds = sent_back(app, &taken);
            let name_of = |amount| {
                let of_amount = refunds.iter().find(|known| known.amount_minor == amount);
                of_amount.unwrap().provider_ref.clone()
            };

            app.providers.finish_refund(&name_of(1_000), Verdict::Won).unwrap();
            app.providers.finish_refund(&name_of(500), Verdict::Lost).unwrap();
            for refund in [name_of(1_000), name_of(500)] {
                assert_eq!(review(app, provider, &refund).await, Heard::New);
                assert_eq!(review(app, provider, &refund).await, Heard::Known);
            }
            app.settle().await;

            assert_eq!(
                sale.told().await,
                [("staff", "succeeded", 1_000), ("staff", "failed", 500)]
            );
            assert_eq!(sale.mails().await, 1);
            assert_eq!(sale.noted("refund_failed").await.len(), 1);
            app.providers.set_refunds_wait(provider, false);
        }
        assert_eq!(found(app).await, [Kind::RefundFailed; 2]);
    })
    .await;
}

#[tokio::test]
async fn case_18_money_that_came_back_from_the_bank_can_be_sent_again() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.settle().await;
            assert_eq!(sale.told().await, [("staff", "succeeded", TOTAL)]);
            sale.refund(&staff, &key(), &all()).await.assert_problem(409, "nothing-to-refund");

            app.providers.finish_refund(&newest(app, &taken), Verdict::Lost).unwrap();
            assert_eq!(review(app, provider, &newest(app, &taken)).await, Heard::New);

            assert_eq!(sale.told().await, [("staff", "failed", TOTAL)]);
            let finding = &open_findings(app).await[0];
            assert_eq!(finding.kind, Kind::RefundFailed);
            assert_eq!(finding.subject, sale.refunds().await[0].id.to_string());
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.settle().await;
            assert_eq!(
                sale.told().await,
                [("staff", "failed", TOTAL), ("staff", "succeeded", TOTAL)]
            );
            let states: Vec<_> = sent_back(app, &taken).iter().map(|known| known.state).collect();
            assert_eq!(states, [RefundState::Failed, RefundState::Succeeded]);
            // Nobody is told any longer to send it again.
            assert_eq!(found(app).await, []);
        }
    })
    .await;
}

#[tokio::test]
async fn case_19_a_refund_of_the_dashboard_is_taken_over_once() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            let refund = app.providers.refund(&taken.charge_ref, Some(1_000)).unwrap();

            let asks = (0..6).map(|_| review(app, provider, &refund));
            let heard = join_all(asks).await;
            app.settle().await;

            assert_eq!(heard.iter().filter(|heard| **heard == Heard::New).count(), 1, "{heard:?}");
            assert_eq!(sale.told().await, [("provider", "succeeded", 1_000)]);
            assert_eq!(sale.mails().await, 1);
            assert_eq!(sale.noted("refund_succeeded").await.len(), 1);
            let refused = sale.refund(&staff, &key(), &part(TOTAL - 999)).await;
            refused.assert_problem(422, "refund-too-large");
        }
        assert_eq!(found(app).await, []);
    })
    .await;
}

#[tokio::test]
async fn case_19_webhooks_of_a_refund_take_it_over_once() {
    journey(async |app| {
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Normal);

            let refund = app.providers.refund(&taken.charge_ref, None).unwrap();
            app.start_workers().await;
            until("the refund is known", async || {
                let refunds = sale.refunds().await;
                let is_known = refunds.iter().any(|known| known.state.name() == "succeeded");
                if is_known { Ok(()) } else { Err(format!("{refunds:?}")) }
            })
            .await;
            for told in app.providers.events() {
                app.providers.redeliver(&told.id);
            }
            app.work_off().await;

            assert_eq!(sale.told().await, [("provider", "succeeded", TOTAL)]);
            assert_eq!(sale.refunds().await[0].provider_ref.as_deref(), Some(&*refund));
            assert_eq!(sale.mails().await, 1);
            app.providers.set_delivery(provider, Delivery::Lost);
        }
    })
    .await;
}

#[tokio::test]
async fn case_14_a_refund_that_was_taken_for_failed_and_was_made_needs_nobody() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            sale.refund(&staff, &key(), &part(1_000)).await.assert_status(201);
            let refund = sale.refunds().await.remove(0);
            // The provider had no such refund when it was asked, and makes it now.
            let mut tx = app.db.begin().await.unwrap();
            let (subject, detail) = (refund.id.to_string(), json!({}));
            let finding = NewFinding {
                kind: Kind::RefundFailed,
                subject,
                order_id: Some(refund.order_id),
                detail,
            };
            set_state(&mut *tx, refund.id, State::Failed, None, Some("status 400")).await.unwrap();
            findings::store::open(&mut *tx, &[finding]).await.unwrap();
            tx.commit().await.unwrap();
            app.settle().await;
            assert_eq!(found(app).await, [Kind::RefundFailed]);
            make(app, &refund, &taken.charge_ref).await;

            let name = newest(app, &taken);
            assert_eq!(review(app, provider, &name).await, Heard::New);
            app.settle().await;

            assert_eq!(
                sale.told().await,
                [("staff", "failed", 1_000), ("provider", "succeeded", 1_000)]
            );
            assert_eq!(found(app).await, []);
        }
    })
    .await;
}

/// Has the provider make the refund, as a request of ours would that was long under way.
async fn make(app: &TestApp, refund: &Refund, charge_ref: &str) {
    let (refund_id, key) = (refund.id.uuid(), refund.provider_key());
    match refund.provider {
        payments::Provider::Stripe => {
            let new = stripe::NewRefund {
                payment_intent: charge_ref,
                amount_minor: refund.amount_minor,
                currency: &refund.currency,
                refund_id,
            };
            let stripe = app.cx.providers.stripe.as_ref().unwrap();
            stripe.create_refund(&new, &key).await.unwrap();
        }
        payments::Provider::Razorpay => {
            let new = razorpay::NewRefund {
                payment: charge_ref,
                amount_minor: refund.amount_minor,
                refund_id,
            };
            let razorpay = app.cx.providers.razorpay.as_ref().unwrap();
            razorpay.refund_payment(&new, &key).await.unwrap();
        }
    }
}

#[tokio::test]
async fn case_19_who_was_faster_in_the_dashboard_is_believed() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            app.providers.refund(&taken.charge_ref, None).unwrap();

            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.settle().await;

            assert_eq!(
                sale.told().await,
                [("staff", "failed", TOTAL), ("provider", "succeeded", TOTAL)]
            );
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(sale.mails().await, 1);
        }
        // All of it went back: there is nothing to look at.
        assert_eq!(found(app).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_refund_that_is_asked_for_too_late_gets_a_key_of_its_own() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.execute("UPDATE refunds SET created_at = created_at - interval '2 days'").await;

            app.settle().await;

            assert_eq!(
                sale.told().await,
                [("staff", "failed", TOTAL), ("staff", "succeeded", TOTAL)]
            );
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(sale.mails().await, 1);
        }
        assert_eq!(found(app).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_refund_that_is_not_made_for_as_long_as_its_key_lasts_is_told_to_people() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            app.providers.fail_next(making(provider), Fault::ErrorBefore, u32::MAX);
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            for _ in 0..2 {
                app.execute("UPDATE refunds SET created_at = created_at - interval '2 days'").await;
                app.hurry().await;
                app.settle().await;
            }

            let told = sale.told().await;
            assert_eq!(told.last(), Some(&("staff", "requested", TOTAL)), "{told:?}");
            assert!(told.len() > 1, "{told:?}");
            let findings = open_findings(app).await;
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].kind, Kind::RefundWithheld);
            assert_eq!(findings[0].subject, sale.refunds().await.pop().unwrap().id.to_string());
            assert_eq!(findings[0].detail["reason"], "key_expired");
            assert_eq!(sale.noted("refund_failed").await.len(), told.len() - 1);
            assert_eq!(sale.noted("refund_requested").await.len(), told.len());

            app.providers.clear_faults();
            app.work_off().await;
            assert_eq!(sale.told().await.last(), Some(&("staff", "succeeded", TOTAL)));
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(found(app).await, []);
        }
    })
    .await;
}

#[tokio::test]
async fn case_15_jobs_of_one_refund_at_once_give_the_money_back_once() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            let id = sale.refunds().await[0].id;

            let outcomes = join_all((0..4).map(|_| refund_payment(&app.cx, id))).await;
            app.work_off().await;

            assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
            assert_eq!(sale.told().await, [("staff", "succeeded", TOTAL)]);
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(sale.mails().await, 1);
        }
    })
    .await;
}
