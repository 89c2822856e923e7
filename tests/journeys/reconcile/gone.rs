//! Money that somebody sent back in a provider's dashboard before anybody here had heard of it.

use std::slice;

use holdfast::{
    checkout::{reconcile::read_list, work},
    payments::reconciliation::Reading,
};
use serde_json::{Value, json};
use simulator::providers::{Act, Provider, Verdict};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    BOTH, UNITS, Visit, assert_ledgers_agree, collect_at_once, lose_webhooks, make_due, open, ours,
    reconcile, soon,
};
use crate::support::{app::TestApp, client::until, shop::PRICE};

const TOTAL: i64 = UNITS * PRICE;

/// What came in for an order: amount, fate and reason.
type Captured = (i64, String, Option<String>);

/// What went back of it: amount, cause and state.
type Refunded = (i64, String, String);

/// Pays, and has so much of the money sent back at the provider, or all; returns its name for the refund.
fn come_and_go(app: &TestApp, visit: &Visit, amount: Option<i64>) -> String {
    let paid = app.providers.succeed(&visit.reference).unwrap();
    app.providers.refund(&paid.payment_ref.unwrap(), amount).unwrap()
}

impl Visit {
    async fn captures(&self, app: &TestApp) -> Vec<Captured> {
        sqlx::query_as("SELECT amount_minor, fate, reason FROM captures WHERE order_id = $1")
            .bind(self.order_id)
            .fetch_all(&app.db)
            .await
            .unwrap()
    }

    /// The order's refunds, the smallest first.
    async fn refunds(&self, app: &TestApp) -> Vec<Refunded> {
        sqlx::query_as(
            "SELECT amount_minor, cause, state FROM refunds WHERE order_id = $1 ORDER BY amount_minor",
        )
        .bind(self.order_id)
        .fetch_all(&app.db)
        .await
        .unwrap()
    }

    /// What the timeline tells of money that did not pay the order.
    async fn returned(&self) -> Vec<Value> {
        let entries = self.shopper.order(self.order_id).await.at("/timeline");
        let entries = entries.as_array().unwrap().iter();
        let due = entries.filter(|entry| entry["kind"] == "payment_refund_due");
        due.map(|entry| entry["detail"].clone()).collect()
    }

    /// The money is on the books, it went back under the name, and the order waits as before.
    async fn assert_came_and_went(&self, app: &TestApp, refund: &str) {
        assert_eq!(self.status(app).await, "awaiting_payment");
        assert_eq!(self.captures(app).await, [captured(TOTAL, "refund_due", Some("wrong_amount"))]);
        assert_eq!(self.refunds(app).await, [refunded(TOTAL, "provider", "succeeded")]);
        let id: Uuid = sqlx::query_scalar("SELECT id FROM refunds WHERE provider_ref = $1")
            .bind(refund)
            .fetch_one(&app.db)
            .await
            .unwrap();
        assert_eq!(app.mails("refund-made", id).len(), 1);
        assert_eq!(app.mails("order-confirmed", self.order_id).len(), 0);
        let returned = self.returned().await;
        assert_eq!(returned.len(), 1, "{returned:?}");
        assert_eq!(
            (&returned[0]["amount"], &returned[0]["refunded"]),
            (&json!(TOTAL), &json!(TOTAL))
        );
        assert_eq!(self.told_of("refund_requested").await, 1);
        assert_eq!(self.told_of("refund_succeeded").await, 1);
        assert_eq!(app.count("findings").await, 0);
    }
}

fn captured(amount: i64, fate: &str, reason: Option<&str>) -> Captured {
    (amount, fate.to_owned(), reason.map(str::to_owned))
}

fn refunded(amount: i64, cause: &str, state: &str) -> Refunded {
    (amount, cause.to_owned(), state.to_owned())
}

/// Lets every webhook that is kept from now on be older than it is. Whoever did so after it came would
/// have to be quicker than the workers.
async fn age_webhooks(app: &TestApp) {
    app.execute(
        r#"CREATE FUNCTION age_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               NEW.raw := convert_to(
                   regexp_replace(convert_from(NEW.raw, 'UTF8'), '"(created|created_at)" *: *[0-9]+', '"\1":1700000000', 'g'),
                   'UTF8');
               RETURN NEW;
           END $$"#,
    )
    .await;
    app.execute(
        "CREATE TRIGGER age_webhook BEFORE INSERT ON provider_events
         FOR EACH ROW EXECUTE FUNCTION age_webhook()",
    )
    .await;
}

#[tokio::test]
async fn case_19_money_that_came_and_went_unheard_is_found_by_asking_and_pays_nothing() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let refund = come_and_go(app, &visit, None);

            for _ in 0..2 {
                make_due(app).await;
                reconcile(app).await;
            }

            visit.assert_came_and_went(app, &refund).await;
            // Whoever sent it back may not be the shopper, who can pay in another way.
            let other = open(&visit.shopper, visit.order_id, Provider::Stripe).await;
            app.providers.succeed(&other).unwrap();
            make_due(app).await;
            reconcile(app).await;
            assert_eq!(visit.status(app).await, "paid");
        }
        assert_eq!(app.providers.ledger().refunds.len(), 2);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_19_money_that_came_and_went_unheard_is_found_in_the_lists_and_pays_nothing() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        age_webhooks(app).await;
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let refund = come_and_go(app, &visit, None);
            let now: OffsetDateTime = app.scalar("SELECT now()").await;
            let from = now - Duration::hours(1);
            let until = now + Duration::seconds(2);

            for _ in 0..2 {
                let reading = Reading { provider: ours(provider), from, until };
                read_list(&app.cx, &reading, soon()).await.unwrap();
                app.settle().await;
            }

            visit.assert_came_and_went(app, &refund).await;
        }
        assert_eq!(app.providers.ledger().refunds.len(), 2);
        assert_ledgers_agree(app).await;
    })
    .await;
}

/// Has the webhook delivered late, and acted on.
async fn hear_late(app: &TestApp, event_id: &str) {
    let known = app.count("provider_events").await;
    assert!(app.providers.redeliver(event_id));
    until("the webhook is kept", async || {
        let count = app.count("provider_events").await;
        if count > known { Ok(()) } else { Err(format!("{count} are")) }
    })
    .await;
    app.settle().await;
}

#[tokio::test]
async fn case_03_money_that_came_and_went_is_told_of_late_and_by_whichever_webhook_comes_first() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        age_webhooks(app).await;
        for provider in BOTH {
            let mut first = 0;
            loop {
                let before = app.providers.events().len();
                let visit = Visit::begin(app, provider).await;
                let refund = come_and_go(app, &visit, None);
                let mut told = app.providers.events().split_off(before);
                told.retain(|told| told.provider == provider);
                if first == told.len() {
                    break;
                }
                // Each kind of news is once the first to be heard of; the others come the last one first.
                let head = told.remove(first);
                told.reverse();
                for told in slice::from_ref(&head).iter().chain(&told) {
                    hear_late(app, &told.id).await;
                }

                visit.assert_came_and_went(app, &refund).await;
                first += 1;
            }
            assert!(first >= 3, "{first} kinds");
        }
        let open = app.count("provider_events WHERE state NOT IN ('done', 'ignored')").await;
        assert_eq!(open, 0);
    })
    .await;
}

#[tokio::test]
async fn case_19_a_part_that_went_back_unheard_is_taken_over_with_the_money_that_pays() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        let staff = app.staff().await;
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            come_and_go(app, &visit, Some(500));

            for _ in 0..2 {
                make_due(app).await;
                reconcile(app).await;
            }

            assert_eq!(visit.status(app).await, "paid");
            assert_eq!(visit.captures(app).await, [captured(TOTAL, "accepted", None)]);
            assert_eq!(visit.refunds(app).await, [refunded(500, "provider", "succeeded")]);
            assert_eq!(visit.told_of("refund_succeeded").await, 1);
            // The rest is all that can go back.
            let path = format!("/v1/admin/orders/{}/refunds", visit.order_id);
            let request = staff.request(reqwest::Method::POST, &path);
            let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
            let made = request.json(&json!({ "reason": "never arrived" })).send().await.unwrap();
            assert_eq!(made.status(), 201);
            app.settle().await;
            assert_eq!(
                visit.refunds(app).await,
                [
                    refunded(500, "provider", "succeeded"),
                    refunded(TOTAL - 500, "staff", "succeeded")
                ]
            );
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_19_of_money_for_a_dead_order_only_what_is_left_goes_back() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            for amount in [500, TOTAL] {
                let mug = app.product_with_stock(UNITS).await;
                let visit = Visit::of(app, mug, provider).await;
                come_and_go(app, &visit, Some(amount));
                // Nobody withdraws what nobody asks about.
                app.age(visit.order_id, 16).await;
                work::sweep(&app.cx).await.unwrap();
                app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.cancel-payment'").await;
                app.guest().await.order_for(&[(mug, UNITS)]).await;

                make_due(app).await;
                reconcile(app).await;

                assert_eq!(visit.status(app).await, "expired");
                let reason = if amount == TOTAL { "wrong_amount" } else { "out_of_stock" };
                let expected = [captured(TOTAL, "refund_due", Some(reason))];
                assert_eq!(visit.captures(app).await, expected);
                let mut expected = vec![refunded(amount, "provider", "succeeded")];
                if amount != TOTAL {
                    expected.push(refunded(TOTAL - amount, "surplus", "succeeded"));
                }
                assert_eq!(visit.refunds(app).await, expected);
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_18_money_that_was_going_unheard_and_comes_back_is_told_to_people() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            app.providers.set_refunds_wait(provider, true);
            let visit = Visit::begin(app, provider).await;
            let refund = come_and_go(app, &visit, None);
            make_due(app).await;
            reconcile(app).await;
            assert_eq!(visit.refunds(app).await, [refunded(TOTAL, "provider", "pending")]);
            assert_eq!(visit.status(app).await, "awaiting_payment");

            app.providers.finish_refund(&refund, Verdict::Lost).unwrap();
            make_due(app).await;
            reconcile(app).await;

            assert_eq!(visit.refunds(app).await, [refunded(TOTAL, "provider", "failed")]);
            assert_eq!(visit.told_of("refund_failed").await, 1);
        }
        assert_eq!(app.count("findings WHERE kind = 'refund_failed'").await, 2);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_09_money_that_was_not_asked_for_and_went_unheard_needs_no_decision() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let act = Act::PayWrong { amount_minor: TOTAL - 1, currency: "USD".to_owned() };
            let paid = app.providers.act(&visit.reference, &act).unwrap();
            app.providers.refund(&paid.payment_ref.unwrap(), None).unwrap();

            make_due(app).await;
            reconcile(app).await;

            let expected = [captured(TOTAL - 1, "refund_due", Some("wrong_amount"))];
            assert_eq!(visit.captures(app).await, expected);
            assert_eq!(visit.refunds(app).await, [refunded(TOTAL - 1, "provider", "succeeded")]);
        }
        assert_eq!(app.count("findings").await, 0);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn a_shopper_who_confirms_money_that_went_back_is_told_that_the_order_waits() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let refund = come_and_go(app, &visit, None);
            let id: Uuid = sqlx::query_scalar("SELECT id FROM payments WHERE order_id = $1")
                .bind(visit.order_id)
                .fetch_one(&app.db)
                .await
                .unwrap();

            let told = visit.shopper.post(&format!("/v1/payments/{id}/confirm"), &json!({})).await;
            app.settle().await;

            told.assert_status(200);
            assert_eq!(told.at("/order_status"), "awaiting_payment");
            visit.assert_came_and_went(app, &refund).await;
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}
