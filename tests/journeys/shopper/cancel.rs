//! Giving an order up.

use uuid::Uuid;

use crate::support::app::TestApp;

#[tokio::test]
async fn a_cancelled_order_gives_its_stock_back() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;

        let cancelled = guest.cancel(id).await;

        cancelled.assert_status(200);
        assert_eq!(cancelled.at("/status"), "cancelled");
        assert_eq!(cancelled.at("/timeline/1/kind"), "cancelled");
        assert_eq!(cancelled.at("/timeline/1/detail/released/0/quantity"), 2);
        assert_eq!(app.hold_of(id, mug).await, "released");
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn cancelling_again_changes_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;
        let first = guest.cancel(id).await;
        let before = app.books().await;

        let second = guest.cancel(id).await;

        second.assert_status(200);
        assert_eq!(second.json::<serde_json::Value>(), first.json::<serde_json::Value>());
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_has_expired_cannot_be_cancelled() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;
        app.age(id, 60).await;
        app.settle().await;
        let before = app.books().await;

        let refusal = guest.cancel(id).await;

        refusal.assert_problem(409, "order-not-cancellable");
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_lost_a_line_gives_back_only_the_others() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let lamp = app.product_with_stock(3).await;
        let late = app.guest().await;
        let id = late.order_for(&[(mug, 1), (lamp, 2)]).await;
        app.age(id, 60).await;
        let next = app.guest().await.order_for(&[(mug, 1)]).await;

        late.cancel(id).await.assert_status(200);

        assert_eq!(app.hold_of(next, mug).await, "held");
        assert_eq!(app.stock_of(mug).await, (1, 1));
        assert_eq!(app.stock_of(lamp).await, (3, 0));
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_order_does_not_expire_as_well() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;
        guest.cancel(id).await.assert_status(200);
        app.age(id, 60).await;
        app.start_workers().await;

        app.settle().await;

        assert_eq!(holdfast::checkout::work::sweep(&app.cx).await.unwrap(), 0);
        assert_eq!(app.status_of(id).await, "cancelled");
        assert_eq!(app.mails("reservation-expired", id).len(), 0);
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_order_is_as_good_as_none() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        let strangers = [app.guest().await, app.customer().await];
        let before = app.books().await;

        for stranger in strangers {
            let theirs = stranger.cancel(id).await;
            let nobodys = stranger.cancel(Uuid::now_v7()).await;

            theirs.assert_problem(404, "order-not-found");
            assert_eq!(theirs.without_request_id(), nobodys.without_request_id());
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}
