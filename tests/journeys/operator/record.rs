//! What operators do is on record, as the deeds of staff are: what, what was before, and who it was.

use holdfast::audit::{Entry, OPERATOR, of_subject};
use serde_json::{Value, json};
use simulator::inbox::Fault;
use uuid::Uuid;

use super::Said;
use crate::support::app::TestApp;

/// Runs the tool as the user `grace` of the system.
async fn ctl(app: &TestApp, arguments: &[&str]) -> Said {
    app.ctl_with(arguments, "", &[("SUDO_USER", "grace"), ("USER", "root")]).await
}

/// The entries about the subject, the newest first.
async fn entries(app: &TestApp, subject: &str) -> Vec<Entry> {
    let recorded = of_subject(&app.db, subject).await.unwrap();
    recorded.into_iter().map(|recorded| recorded.entry).collect()
}

/// Checks that the entry is one of `grace` at this host, and that it says this.
#[track_caller]
fn assert_entry(entry: &Entry, action: &str, before: Option<&Value>, after: &Value) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut said = entry.after.clone().unwrap();
    let operator = said.as_object_mut().unwrap().remove("operator").unwrap();
    assert_eq!(operator, format!("grace@{}", host.trim()));
    assert_eq!(entry.actor_id, OPERATOR);
    assert_eq!((&*entry.action, entry.before.as_ref(), &said), (action, before, after));
}

#[tokio::test]
async fn a_counter_that_was_set_right_is_on_record_and_one_that_was_right_is_not() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        // Its counters are right.
        app.product_with_stock(5).await;
        let rows = app.count("audit_log").await;
        sqlx::query("UPDATE stock SET on_hand = 7 WHERE variant_id = $1")
            .bind(mug.id)
            .execute(&app.db)
            .await
            .unwrap();

        ctl(app, &["stock", "recount"]).await.assert(1, &[]);
        assert_eq!(app.count("audit_log").await, rows, "looking is no deed");
        for _ in 0..2 {
            ctl(app, &["stock", "recount", "--repair"]).await.assert(0, &[]);
        }

        assert_eq!(app.count("audit_log").await, rows + 1);
        let repaired = entries(app, &format!("variant:{}", mug.id)).await;
        let counters = |on_hand: i64| json!({ "on_hand": on_hand, "reserved": 0 });
        assert_entry(&repaired[0], "repairStock", Some(&counters(7)), &counters(5));
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_decides_about_a_job_is_on_record() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(5).await;
        app.inbox.set_fault(Some(Fault::PermanentFailure));
        app.guest().await.order_for(&[(mug, 1)]).await;
        app.settle().await;
        let job = app.scalar::<Uuid>("SELECT id FROM job_ledger WHERE state = 'dead'").await;
        let job = job.to_string();

        ctl(app, &["jobs", "retry", &job]).await.assert(0, &[]);
        app.settle().await;
        ctl(app, &["jobs", "discard", &job, "--by", "ada"]).await.assert(0, &[]);
        ctl(app, &["jobs", "retry", &job]).await.assert(1, &[]);
        ctl(app, &["jobs", "discard", &job, "--by", "ada"]).await.assert(1, &[]);

        let entries = entries(app, &format!("job:{job}")).await;
        assert_eq!(entries.len(), 2, "what was not done is not on record");
        let kind = "notifications.send-order-received";
        let dead = json!({ "kind": kind, "state": "dead", "attempts": 1 });
        let discarded = json!({ "state": "discarded", "by": "ada" });
        assert_entry(&entries[0], "discardJob", Some(&dead), &discarded);
        let ready = json!({ "state": "ready", "attempts": 0 });
        assert_entry(&entries[1], "retryJob", Some(&dead), &ready);
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_is_judged_again_is_on_record_with_why_it_was_parked() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        app.execute(
            "INSERT INTO provider_events
                (id, provider, event_id, body_sha256, kind, raw, state, reason, finished_at)
             VALUES
                (gen_random_uuid(), 'stripe', 'evt_1', sha256('1'), 'payment_intent.succeeded',
                    'hunter2', 'parked', 'no amount', now()),
                (gen_random_uuid(), 'stripe', 'evt_2', sha256('2'), 'payment_intent.processing',
                    'hunter2', 'done', NULL, now())",
        )
        .await;
        let parked: Uuid =
            app.scalar("SELECT id FROM provider_events WHERE event_id = 'evt_1'").await;
        let done: Uuid =
            app.scalar("SELECT id FROM provider_events WHERE event_id = 'evt_2'").await;
        let (parked, done) = (parked.to_string(), done.to_string());

        ctl(app, &["webhooks", "replay", &parked, &done]).await.assert(1, &["1 webhooks"]);

        let recorded = entries(app, &format!("webhook:{parked}")).await;
        let before = json!({ "state": "parked", "reason": "no amount" });
        assert_entry(&recorded[0], "replayWebhook", Some(&before), &json!({ "state": "new" }));
        assert_eq!(app.count("audit_log").await, 1, "nothing was done to the other");
    })
    .await;
}

#[tokio::test]
async fn whom_an_operator_has_asked_is_on_record() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        ctl(app, &["payments", "review", "stripe", "pi_1"]).await.assert(0, &[]);
        let since = "2026-01-02T03:04:05Z";
        let run = ["reconcile", "run", "--provider", "razorpay", "--since", since];
        ctl(app, &run).await.assert(0, &[]);

        let reviewed = entries(app, "stripe:pi_1").await;
        assert_entry(&reviewed[0], "reviewPayment", None, &json!({}));
        let reconciled = entries(app, "provider:razorpay").await;
        assert_entry(&reconciled[0], "reconcile", None, &json!({ "since": since }));
        assert_eq!(app.count("audit_log").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_role_that_was_given_is_on_record_with_who_gave_it() {
    TestApp::run(async |app| {
        let user = app.customer().await.id.unwrap();
        let email: String = app.scalar("SELECT email FROM users").await;

        ctl(app, &["user", "set-role", &email, "staff"]).await.assert(0, &[]);

        let given = entries(app, &format!("user:{user}")).await;
        let role = |role: &str| json!({ "role": role });
        assert_entry(&given[0], "setRole", Some(&role("customer")), &role("staff"));
    })
    .await;
}
