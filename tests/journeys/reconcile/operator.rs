//! The operator's part of it.

use std::process::Output;

use holdfast::{
    checkout::review_dispute,
    payments::{self, inbox},
};
use serde_json::{Value, json};
use simulator::providers::{Delivery, Provider, Verdict};
use tokio::process::Command;
use uuid::Uuid;

use super::{Visit, collect_at_once, lose_webhooks, reconcile};
use crate::support::{app::TestApp, client::until};

/// What the operator's tool says, and how it ends.
async fn ctl(app: &TestApp, arguments: &[&str]) -> (Option<i32>, String) {
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_ctl"));
    let ctl = ctl.args(arguments).env("DATABASE_URL", &app.database_url).output();
    let Output { status, stdout, stderr } = ctl.await.unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test]
async fn what_is_under_way_is_asked_about_when_an_operator_says_so() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        let visit = Visit::begin(app, Provider::Stripe).await;
        app.providers.succeed(&visit.reference).unwrap();

        let (status, said) = ctl(app, &["reconcile", "run", "--provider", "stripe"]).await;
        assert_eq!(status, Some(0), "{said}");
        let asked = "stripe will be asked about 1 payments, 0 refunds and 0 disputes";
        assert!(said.contains(asked), "{said}");
        assert!(!said.contains("razorpay"), "{said}");
        reconcile(app).await;
        assert_eq!(visit.status(app).await, "paid");

        let dispute = app.providers.dispute(&visit.reference).unwrap();
        review_dispute(&app.cx, payments::Provider::Stripe, &dispute, &[]).await.unwrap();
        app.execute("UPDATE disputes SET next_look_at = now() + interval '6 hours'").await;
        app.providers.close_dispute(&dispute, Verdict::Won).unwrap();
        let (_, said) = ctl(app, &["reconcile", "run", "--provider", "stripe"]).await;
        assert!(said.contains("and 1 disputes"), "{said}");
        reconcile(app).await;
        assert_eq!(app.count("disputes WHERE state = 'won'").await, 1);

        let since = ["reconcile", "run", "--since", "2026-01-02T03:04:05Z"];
        let (status, said) = ctl(app, &since).await;
        assert_eq!(status, Some(0), "{said}");
        let rewound = "reconciliation_cursors WHERE read_until = '2026-01-02T03:04:05Z' AND next_read_at <= now()";
        assert_eq!(app.count(rewound).await, 2);
        let (status, said) = ctl(app, &["reconcile", "run", "--since", "yesterday"]).await;
        assert_eq!(status, Some(2), "{said}");
        assert_eq!(ctl(app, &["reconcile", "runs"]).await.0, Some(0));
    })
    .await;
}

#[tokio::test]
async fn findings_are_listed_for_people_and_programs() {
    TestApp::run(async |app| {
        app.execute(
            "INSERT INTO findings (id, kind, subject, detail, closed_at) VALUES
                (gen_random_uuid(), 'unknown_money', 'pi_open', '{\"amount\": 5}', NULL),
                (gen_random_uuid(), 'unknown_money', 'pi_over', '{}', now())",
        )
        .await;

        let (status, open) = ctl(app, &["reconcile", "findings"]).await;
        assert_eq!(status, Some(0), "{open}");
        assert!(open.contains("pi_open") && open.contains("1 findings"), "{open}");
        let (_, all) = ctl(app, &["reconcile", "findings", "--all"]).await;
        assert!(all.contains("pi_over") && all.contains("2 findings"), "{all}");
        let (_, listed) = ctl(app, &["reconcile", "findings", "--json"]).await;
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["subject"], "pi_open");
        assert_eq!(listed[0]["detail"], json!({ "amount": 5 }));
    })
    .await;
}

/// The ids of the webhooks in that state.
async fn events(app: &TestApp, state: &str) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT id FROM provider_events WHERE state = $1 ORDER BY id")
        .bind(state)
        .fetch_all(&app.db)
        .await
        .unwrap()
}

#[tokio::test]
async fn case_27_a_parked_webhook_is_judged_again_after_the_mend() {
    TestApp::run(async |app| {
        // What cannot be read: an amount that is a text.
        let broken = json!({ "id": "pi_1", "object": "payment_intent", "status": "succeeded",
            "amount_received": "much", "currency": "usd", "metadata": {} });
        app.start_workers().await;
        app.providers.set_delivery(Provider::Stripe, Delivery::Normal);
        app.providers.tell(Provider::Stripe, "payment_intent.succeeded", &broken);
        let parked = until("it is parked", async || {
            let parked = events(app, "parked").await;
            if let [id] = *parked { Ok(id) } else { Err(format!("{parked:?}")) }
        })
        .await;
        app.settle().await;
        let open = "findings WHERE kind = 'parked_webhook' AND closed_at IS NULL";
        assert_eq!(app.count(open).await, 1);

        // Nothing was mended: it is parked again, and that is told again.
        let (status, said) = ctl(app, &["webhooks", "replay", &parked.to_string()]).await;
        assert_eq!(status, Some(0), "{said}");
        until("it is parked again", async || {
            let findings = app.count("findings WHERE kind = 'parked_webhook'").await;
            if findings == 2 { Ok(()) } else { Err(format!("{findings} findings")) }
        })
        .await;
        assert_eq!(app.count(open).await, 1);

        // The mend, from the webhook's side.
        app.execute(
            "UPDATE provider_events
             SET raw = convert_to(replace(convert_from(raw, 'UTF8'), '\"much\"', '500'), 'UTF8'),
                 received_at = received_at - interval '1 hour'",
        )
        .await;
        let other_kind = ["webhooks", "replay", "--parked", "--kind", "refund.updated"];
        let (_, said) = ctl(app, &other_kind).await;
        assert!(said.contains("0 webhooks will be judged again"), "{said}");
        let (status, said) = ctl(app, &["webhooks", "replay", "--parked"]).await;
        assert_eq!(status, Some(0), "{said}");
        until("it is judged", async || {
            let ignored = events(app, "ignored").await;
            if ignored == [parked] { Ok(()) } else { Err(format!("{ignored:?}")) }
        })
        .await;

        assert_eq!(app.count(open).await, 0);
        let (status, said) = ctl(app, &["webhooks", "replay", &parked.to_string()]).await;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("forgotten"), "{said}");
        assert_eq!(ctl(app, &["webhooks", "replay"]).await.0, Some(2));
    })
    .await;
}

#[tokio::test]
async fn webhooks_that_cannot_be_mended_do_not_stand_before_those_that_can() {
    TestApp::run(async |app| {
        app.execute(
            "INSERT INTO provider_events
                (id, provider, event_id, body_sha256, kind, raw, state, reason, finished_at)
             SELECT gen_random_uuid(), 'stripe', 'evt_' || place, sha256(''), 'refund.updated', '{}',
                'parked', 'broken', now() + place * interval '1 minute'
             FROM generate_series(1, 2) AS place",
        )
        .await;
        let first = async || inbox::store::parked(&app.db, None, 1).await.unwrap();
        let before = first().await;

        // It was judged, and parked once more.
        app.execute(
            "UPDATE provider_events SET finished_at = now() + interval '1 hour'
             WHERE event_id = 'evt_1'",
        )
        .await;

        assert_ne!(first().await, before);
        app.execute("DELETE FROM provider_events").await;
    })
    .await;
}
