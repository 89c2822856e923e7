//! What a person has to look at, until somebody says that it is seen to.

use serde_json::{Value, json};
use simulator::providers::Provider;
use uuid::Uuid;

use super::{TOTAL, decision, id, key, quarantined, resolve, signed};
use crate::{
    provider::hear_all,
    support::{
        app::TestApp,
        client::{Answer, Client},
    },
};

async fn list(staff: &Client, query: &str) -> Answer {
    let list = staff.get(&format!("/v1/admin/findings{query}")).await;
    list.assert_status(200);
    list
}

fn items(list: &Answer) -> Vec<Value> {
    list.at("/items").as_array().unwrap().clone()
}

async fn close(staff: &Client, id: Uuid, note: &str) -> Answer {
    staff.post(&format!("/v1/admin/findings/{id}/close"), &json!({ "note": note })).await
}

/// Has the provider say something that nobody can read.
async fn park(app: &TestApp) {
    let unreadable = json!({ "id": "pi_1", "status": "succeeded", "amount_received": "much" });
    app.providers.tell(Provider::Stripe, "payment_intent.succeeded", &unreadable);
    hear_all(app).await;
}

#[tokio::test]
async fn staff_see_what_was_found_and_close_it_with_a_word() {
    TestApp::run(async |app| {
        let (staff, colleague) = (app.staff().await, app.staff().await);
        park(app).await;
        let found = items(&list(&staff, "").await);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["kind"], "parked_webhook");
        let finding_id = id(&found[0]["id"]);

        let closed = close(&staff, finding_id, "asked the provider").await;
        closed.assert_status(200);
        let again = close(&staff, finding_id, "asked the provider").await;
        again.assert_status(200);
        assert_eq!(again.at("/closed_at"), closed.at("/closed_at"));
        close(&colleague, finding_id, "me too").await.assert_problem(409, "finding-closed");
        close(&staff, Uuid::now_v7(), "?").await.assert_problem(404, "finding-not-found");
        close(&staff, finding_id, "").await.assert_problem(422, "invalid-request");

        assert_eq!(items(&list(&staff, "?open=true").await), Vec::<Value>::new());
        let all = items(&list(&staff, "?open=false").await);
        assert_eq!(all[0]["note"], "asked the provider");
        assert_eq!(Some(id(&all[0]["closed_by"])), staff.id);
        let log = signed(app, &format!("finding:{finding_id}")).await;
        assert_eq!(log.len(), 1);
        assert_eq!(log[0].entry.action, "closeFinding");
        assert!(log[0].entry.request_id.is_some());
    })
    .await;
}

#[tokio::test]
async fn quarantined_money_is_to_be_decided_about_and_not_to_be_put_away() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let (purchase, capture_id) = quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        let found = items(&list(&staff, "").await);
        assert_eq!(found[0]["kind"], "quarantined");
        assert_eq!(id(&found[0]["subject"]), capture_id);
        assert_eq!(id(&found[0]["order_id"]), purchase.order_id);
        let finding_id = id(&found[0]["id"]);

        close(&staff, finding_id, "whatever").await.assert_problem(409, "capture-not-resolved");
        assert_eq!(app.count("audit_log WHERE action = 'closeFinding'").await, 0);
        resolve(&staff, capture_id, &key(), &decision("refund")).await.assert_status(200);

        assert_eq!(items(&list(&staff, "").await), Vec::<Value>::new());
        close(&staff, finding_id, "whatever").await.assert_problem(409, "finding-closed");
        hear_all(app).await;
    })
    .await;
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        for _ in 0..3 {
            quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        }
        for path in ["/v1/admin/quarantine", "/v1/admin/findings"] {
            let all = staff.get(path).await;
            all.assert_status(200).assert_header("link", None);
            let first = staff.get(&format!("{path}?limit=2")).await;
            let cursor = first.at("/next_cursor");
            let cursor = cursor.as_str().unwrap();
            assert!(first.header("link").unwrap().contains(cursor));
            let last = staff.get(&format!("{path}?limit=2&cursor={cursor}")).await;

            assert_eq!(last.at("/next_cursor"), Value::Null);
            assert_eq!([items(&first), items(&last)].concat(), items(&all));
            assert_eq!(items(&all).len(), 3);
            staff.get(&format!("{path}?limit=0")).await.assert_problem(422, "invalid-limit");
            staff.get(&format!("{path}?cursor=x")).await.assert_problem(422, "invalid-cursor");
        }
    })
    .await;
}
