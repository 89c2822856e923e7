//! Money that is to go back, or goes back, and is claimed by a bank; and refunds of which the shop
//! learns by webhook alone.

use holdfast::{
    checkout::{
        reconcile::{reconcile_attempts, reconcile_refunds},
        review_dispute,
    },
    payments::Fate,
};
use reqwest::Method;
use serde_json::json;
use simulator::providers::{Capture, Delivery, Fault, Operation, Provider, Verdict};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{findings, ours, paid, paid_at_provider};
use crate::{
    provider::{BOTH, Purchase, assert_ledgers_agree, hear_all, inbox_of},
    support::{
        app::TestApp,
        client::{Answer, until},
        shop::Variant,
    },
};

/// Money that came too late for its order, was claimed by the shopper's bank, and was heard of in one
/// breath with that claim. Returns the dispute, too.
async fn late_and_disputed(app: &TestApp, provider: Provider) -> (Purchase<'_>, String) {
    app.providers.set_delivery(provider, Delivery::Paused);
    let (late, charge) = paid_at_provider(app, provider).await;
    late.expire().await;
    Purchase::of_all(app, late.mug).await;
    let dispute = app.providers.dispute(&charge).unwrap();
    review_dispute(&app.cx, ours(provider), &dispute, &[]).await.unwrap();
    app.providers.set_delivery(provider, Delivery::Normal);
    hear_all(app).await;
    (late, dispute)
}

impl<'a> Purchase<'a> {
    /// Orders everything that is left of the mugs.
    async fn of_all(app: &'a TestApp, mug: Variant) {
        let (on_hand, reserved) = app.stock_of(mug).await;
        app.guest().await.order_for(&[(mug, on_hand - reserved)]).await;
    }

    /// The states of the order's refunds, the first one first.
    async fn refund_states(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT state FROM refunds WHERE order_id = $1 ORDER BY id")
            .bind(self.order_id)
            .fetch_all(&self.app.db)
            .await
            .unwrap()
    }

    /// Who wanted them, and how much.
    async fn refund_causes(&self) -> Vec<(String, i64)> {
        sqlx::query_as("SELECT cause, amount_minor FROM refunds WHERE order_id = $1 ORDER BY id")
            .bind(self.order_id)
            .fetch_all(&self.app.db)
            .await
            .unwrap()
    }

    async fn withheld(&self) -> Vec<(String, bool)> {
        let refunds: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM refunds WHERE order_id = $1")
            .bind(self.order_id)
            .fetch_all(&self.app.db)
            .await
            .unwrap();
        let mut withheld = findings(self.app, "refund_withheld").await;
        withheld.retain(|(subject, _)| refunds.iter().any(|id| id.to_string() == *subject));
        withheld
    }
}

#[tokio::test]
async fn case_20_money_under_dispute_is_not_sent_back_before_the_dispute_is_won() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let sent_back = app.providers.ledger().refunds.len();
            let (late, dispute) = late_and_disputed(app, provider).await;

            assert!(matches!(*late.fates().await, [Fate::RefundDue(_)]));
            assert_eq!(late.refund_states().await, ["requested"]);
            let withheld = late.withheld().await;
            assert!(matches!(&*withheld, [(_, true)]), "{withheld:?}");
            assert_eq!(late.told_of("refund_withheld").await.len(), 1);
            assert_eq!(app.providers.ledger().refunds.len(), sent_back);

            app.providers.close_dispute(&dispute, Verdict::Won).unwrap();
            hear_all(app).await;

            assert_eq!(late.refund_states().await, ["succeeded"]);
            assert!(late.withheld().await.iter().all(|(_, is_open)| !is_open));
            assert_eq!(app.providers.ledger().refunds.len(), sent_back + 1);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_20_a_dispute_that_only_the_provider_knows_of_is_told_of_once() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
            let (late, charge) = paid_at_provider(app, provider).await;
            late.expire().await;
            Purchase::of_all(app, late.mug).await;
            let dispute = app.providers.dispute(&charge).unwrap();
            app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.cancel-payment'").await;

            for _ in 0..3 {
                app.execute("UPDATE payments SET next_look_at = now() WHERE state = 'cancelling'")
                    .await;
                reconcile_attempts(&app.cx).await.unwrap();
                app.settle().await;
                app.execute("UPDATE refunds SET next_look_at = now() WHERE state = 'requested'")
                    .await;
                reconcile_refunds(&app.cx).await.unwrap();
            }

            assert_eq!(late.refund_states().await, ["requested"]);
            assert_eq!(late.dispute_states().await, [""; 0]);
            assert_eq!(late.told_of("refund_withheld").await.len(), 1);
            assert!(matches!(&*late.withheld().await, [(_, true)]));

            app.providers.close_dispute(&dispute, Verdict::Won).unwrap();
            app.execute("UPDATE refunds SET next_look_at = now() WHERE state = 'requested'").await;
            // A worker may have taken it first.
            until("the money is back", async || {
                app.execute("UPDATE refunds SET next_look_at = now() WHERE state = 'requested'")
                    .await;
                reconcile_refunds(&app.cx).await.unwrap();
                let states = late.refund_states().await;
                if states == ["succeeded"] { Ok(()) } else { Err(format!("{states:?}")) }
            })
            .await;
            app.settle().await;
            assert!(late.withheld().await.iter().all(|(_, is_open)| !is_open));
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_20_money_that_was_lost_to_a_dispute_is_not_sent_back_a_second_time() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (late, dispute) = late_and_disputed(app, provider).await;

            app.providers.close_dispute(&dispute, Verdict::Lost).unwrap();
            hear_all(app).await;

            assert_eq!(late.refund_states().await, ["failed"]);
            assert_eq!(late.told_of_disputes().await, ["open", "lost"]);
            assert!(late.withheld().await.iter().all(|(_, is_open)| !is_open));
            // Somebody has to know how it ended.
            let failed = findings(app, "refund_failed").await;
            assert!(matches!(failed.last(), Some((_, true))), "{failed:?}");
        }
        assert_eq!(app.providers.ledger().refunds, []);
    })
    .await;
}

#[tokio::test]
async fn case_20_a_paid_order_under_dispute_cannot_be_cancelled() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            let dispute = app.providers.dispute(&charge).unwrap();
            hear_all(app).await;
            let stock = app.stock_of(purchase.mug).await;

            let refusal = purchase.shopper.cancel(purchase.order_id).await;

            refusal.assert_problem(409, "order-disputed");
            purchase.assert_paid().await;
            assert_eq!(app.stock_of(purchase.mug).await, stock);
            assert_eq!(purchase.refund_states().await, [""; 0]);

            app.providers.close_dispute(&dispute, Verdict::Won).unwrap();
            hear_all(app).await;
            purchase.shopper.cancel(purchase.order_id).await.assert_status(200);
            hear_all(app).await;

            assert_eq!(purchase.status().await, "cancelled");
            assert_eq!(purchase.refund_states().await, ["succeeded"]);
            assert_eq!(purchase.told_of_disputes().await, ["open", "won"]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_20_another_open_dispute_keeps_the_money_where_it_is() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (late, first) = late_and_disputed(app, provider).await;
            let charge = late.told_of("payment_refund_due").await[0]["charge_ref"].clone();
            let second = app.providers.dispute(charge.as_str().unwrap()).unwrap();
            hear_all(app).await;

            app.providers.close_dispute(&first, Verdict::Won).unwrap();
            hear_all(app).await;
            assert_eq!(late.refund_states().await, ["requested"]);

            app.providers.close_dispute(&second, Verdict::Won).unwrap();
            hear_all(app).await;
            assert_eq!(late.refund_states().await, ["succeeded"]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_19_a_refund_from_the_dashboard_is_taken_over_once_however_often_it_is_told_of() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Tripled);

            app.providers.refund(&charge, Some(500)).unwrap();
            hear_all(app).await;
            for told in app.providers.events().iter().filter(|told| told.kind.contains("refund")) {
                app.providers.redeliver(&told.id);
            }
            app.providers.set_delivery(provider, Delivery::Normal);
            app.providers.refund(&charge, Some(300)).unwrap();
            hear_all(app).await;

            let by_provider = |amount| ("provider".to_owned(), amount);
            assert_eq!(purchase.refund_causes().await, [by_provider(500), by_provider(300)]);
            assert_eq!(purchase.refund_states().await, ["succeeded", "succeeded"]);
            assert_eq!(purchase.told_of("refund_succeeded").await.len(), 2);
            purchase.assert_paid().await;
        }
        let mut told = inbox_of(app).await;
        told.retain(|(kind, ..)| kind.contains("refund"));
        assert!(told.len() >= 6, "{told:?}");
        assert!(told.iter().all(|(_, state, _)| state == "done"), "{told:?}");
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_18_a_refund_that_fails_after_all_is_heard_of_by_webhook() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            let refund = app.providers.refund(&charge, Some(500)).unwrap();
            hear_all(app).await;
            assert_eq!(purchase.refund_states().await, ["succeeded"]);

            app.providers.finish_refund(&refund, Verdict::Lost).unwrap();
            hear_all(app).await;

            assert_eq!(purchase.refund_states().await, ["failed"]);
            assert_eq!(purchase.told_of("refund_failed").await.len(), 1);
        }
        assert_eq!(
            app.count("findings WHERE kind = 'refund_failed' AND closed_at IS NULL").await,
            2
        );
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_03_a_refund_tells_of_money_that_nobody_told_us_of() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
            let (purchase, charge) = paid_at_provider(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Normal);

            app.providers.refund(&charge, Some(500)).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.refund_states().await, ["succeeded"]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_28_refunds_of_others_who_share_the_account_are_ignored() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for provider in BOTH {
            let foreign = app.providers.create_foreign(provider, 999, "USD", [].into());
            let charge = app.providers.succeed(&foreign).unwrap().payment_ref.unwrap();
            app.providers.refund(&charge, None).unwrap();
        }
        let charge = json!({ "id": "ch_1", "object": "charge", "payment_intent": null });
        app.providers.tell(Provider::Stripe, "charge.refunded", &charge);
        hear_all(app).await;

        let mut told = inbox_of(app).await;
        told.retain(|(kind, ..)| kind.contains("refund"));
        assert!(told.len() >= 4, "{told:?}");
        assert!(told.iter().all(|(_, state, _)| state == "ignored"), "{told:?}");
        assert_eq!(app.count("refunds").await + app.count("findings").await, 0);
    })
    .await;
}

#[tokio::test]
async fn case_20_a_refund_that_staff_want_is_tried_and_the_provider_has_the_last_word() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            app.providers.dispute(&charge).unwrap();
            hear_all(app).await;

            let path = format!("/v1/admin/orders/{}/refunds", purchase.order_id);
            let wish = staff.request(Method::POST, &path);
            let wish = wish.header("Idempotency-Key", Uuid::now_v7().to_string());
            let wish = wish.json(&json!({ "reason": "never arrived" }));
            Answer::to(wish).await.assert_status(201);
            hear_all(app).await;

            assert_eq!(purchase.refund_states().await, ["failed"]);
            assert_eq!(purchase.withheld().await, []);
            let failed = findings(app, "refund_failed").await;
            assert!(failed.iter().any(|(_, is_open)| *is_open), "{failed:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_22_an_order_whose_money_the_bank_gave_back_is_not_given_up() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (purchase, charge) = paid(app, provider).await;
            let before = app.stock_of(purchase.mug).await;
            let dispute = app.providers.dispute(&charge).unwrap();
            app.providers.close_dispute(&dispute, Verdict::Lost).unwrap();
            hear_all(app).await;
            assert_eq!(purchase.dispute_states().await, ["lost"]);

            let refused = purchase.shopper.cancel(purchase.order_id).await;

            refused.assert_problem(409, "order-disputed");
            let path = format!("/v1/admin/orders/{}/ship", purchase.order_id);
            staff.post(&path, &json!({})).await.assert_problem(409, "money-went-back");
            assert_eq!(app.stock_of(purchase.mug).await, before);
            assert_eq!(purchase.refund_states().await, [""; 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_20_a_refund_that_a_long_dispute_kept_is_no_failure() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let (late, dispute) = late_and_disputed(app, provider).await;
            // Disputes take months.
            app.execute("UPDATE refunds SET created_at = created_at - interval '60 days'").await;

            app.providers.close_dispute(&dispute, Verdict::Won).unwrap();
            hear_all(app).await;

            assert_eq!(late.refund_states().await, ["failed", "succeeded"]);
            assert_eq!(late.told_of("refund_failed").await.len(), 0);
            assert_eq!(late.told_of("refund_requested").await.len(), 1);
            assert_eq!(late.withheld().await.len(), 1);
        }
        assert_eq!(app.count("findings WHERE closed_at IS NULL").await, 0);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_20_what_keeps_a_refund_now_is_what_people_read() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
            let (late, charge) = paid_at_provider(app, provider).await;
            late.expire().await;
            Purchase::of_all(app, late.mug).await;
            let reason = async |state: &str| -> Option<String> {
                sqlx::query_scalar(AssertSqlSafe(format!(
                    "SELECT max(detail ->> 'reason') FROM findings
                     WHERE kind = 'refund_withheld' AND closed_at IS {state}
                        AND order_id = '{}'",
                    late.order_id
                )))
                .fetch_one(&app.db)
                .await
                .unwrap()
            };
            let look = async || {
                app.execute("UPDATE refunds SET next_look_at = now() WHERE state = 'requested'")
                    .await;
                reconcile_refunds(&app.cx).await.unwrap();
            };
            app.providers.fail_next(making(provider), Fault::ErrorBefore, u32::MAX);
            app.execute("UPDATE payments SET next_look_at = now() WHERE state = 'cancelling'")
                .await;
            reconcile_attempts(&app.cx).await.unwrap();
            app.settle().await;
            app.execute("UPDATE refunds SET created_at = created_at - interval '2 days'").await;
            app.hurry().await;
            app.settle().await;
            assert_eq!(reason("NULL").await.as_deref(), Some("key_expired"));

            // Meanwhile there is a dispute, of which the provider alone knows.
            app.providers.dispute(&charge).unwrap();
            app.providers.clear_faults();
            app.hurry().await;
            app.settle().await;
            look().await;

            assert_eq!(reason("NULL").await.as_deref(), Some("disputed"));
            assert_eq!(reason("NOT NULL").await.as_deref(), Some("key_expired"));
        }
    })
    .await;
}

/// How the provider calls the making of a refund.
const fn making(provider: Provider) -> Operation {
    match provider {
        Provider::Stripe => Operation::CreateRefund,
        Provider::Razorpay => Operation::RefundPayment,
    }
}
