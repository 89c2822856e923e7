//! Looking after background work.

use simulator::inbox::Fault;
use uuid::Uuid;

use crate::support::app::TestApp;

/// Places an order whose mail is refused for good, and returns the order and the dead job.
async fn dead_mail(app: &TestApp) -> (Uuid, Uuid) {
    let mug = app.product_with_stock(5).await;
    app.inbox.set_fault(Some(Fault::PermanentFailure));
    let order = app.guest().await.order_for(&[(mug, 1)]).await;
    app.settle().await;
    app.inbox.set_fault(None);
    (order, app.scalar("SELECT id FROM job_ledger WHERE state = 'dead'").await)
}

#[tokio::test]
async fn a_dead_job_is_found_understood_and_tried_again() {
    TestApp::run(async |app| {
        let (order, job) = dead_mail(app).await;
        let id = job.to_string();

        let list = app.ctl(&["jobs", "list", "--state", "dead"]).await;
        list.assert(0, &[&id, "notifications.send-order-received", "1 jobs"]);
        app.ctl(&["jobs", "list", "--state", "done"]).await.assert(0, &["0 jobs"]);
        app.ctl(&["jobs", "show", &id]).await.assert(0, &[&id, "dead", "550", &order.to_string()]);

        app.ctl(&["jobs", "retry", &id]).await.assert(0, &[&id]);
        app.settle().await;

        assert_eq!(app.mails("order-received", order).len(), 1);
        app.ctl(&["jobs", "list", "--state", "dead"]).await.assert(0, &["0 jobs"]);
        app.ctl(&["jobs", "retry", &id]).await.assert(1, &[]);
    })
    .await;
}

#[tokio::test]
async fn a_dead_job_that_is_not_worth_it_is_discarded_and_stays_on_record() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let (order, job) = dead_mail(app).await;
        let id = job.to_string();

        app.ctl(&["jobs", "discard", &id, "--by", "grace"]).await.assert(0, &[&id]);
        app.settle().await;

        assert_eq!(app.mails("order-received", order).len(), 0);
        app.ctl(&["jobs", "show", &id]).await.assert(0, &["discarded", "grace", "550"]);
        app.ctl(&["jobs", "retry", &id]).await.assert(1, &[]);
        app.ctl(&["jobs", "discard", &id, "--by", "grace"]).await.assert(1, &[]);
        let unknown = Uuid::now_v7().to_string();
        app.ctl(&["jobs", "show", &unknown]).await.assert(1, &[&unknown]);
    })
    .await;
}
