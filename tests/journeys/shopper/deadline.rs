//! What happens to an order that nobody pays.

use std::time::Duration;

use holdfast::checkout::{SoldOut, place_orders, work};
use uuid::Uuid;

use crate::support::{KEY, app::TestApp, client::until, shop::strangers_wish};

#[tokio::test]
async fn an_order_ends_at_its_deadline_and_its_stock_is_on_sale_again() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;
        app.age(id, 16).await;

        app.settle().await;

        let order = guest.order(id).await;
        assert_eq!(order.at("/status"), "expired");
        assert_eq!(order.at("/expires_in"), serde_json::Value::Null);
        assert_eq!(order.at("/timeline/0/kind"), "placed");
        assert_eq!(order.at("/timeline/1/kind"), "deadline_passed");
        assert_eq!(order.at("/timeline/1/status"), "expired");
        assert_eq!(order.at("/timeline").as_array().unwrap().len(), 2);
        assert_eq!(app.hold_of(id, mug).await, "released");
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn a_shopper_is_told_once_that_the_time_ran_out() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let placed = guest.place_order(KEY, &[(mug, 2)]).await;
        let id = placed.order_id();
        app.age(id, 16).await;
        app.settle().await;

        // A repeat of the request, and reapers that look again, change nothing.
        guest.place_order(KEY, &[(mug, 2)]).await.assert_status(201);
        work::sweep(&app.cx).await.unwrap();
        app.settle().await;

        let mails = app.mails("reservation-expired", id);
        assert_eq!(mails.len(), 1);
        let number = placed.at("/number").as_str().unwrap().to_owned();
        assert_eq!(mails[0].subject, format!("The time to pay for your order {number} ran out"));
        assert_eq!(mails[0].to, ["ada@example.com"]);
        assert!(mails[0].text.contains("2 x Harbour mug"), "{}", mails[0].text);
    })
    .await;
}

#[tokio::test]
async fn an_order_within_its_time_is_left_alone() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let late = app.guest().await.order_for(&[(mug, 1)]).await;
        let in_time = app.guest().await.order_for(&[(mug, 1)]).await;
        app.age(late, 16).await;
        app.age(in_time, 14).await;

        app.settle().await;

        assert_eq!(app.status_of(late).await, "expired");
        assert_eq!(app.status_of(in_time).await, "awaiting_payment");
        assert_eq!(app.stock_of(mug).await, (5, 1));
        assert_eq!(app.mails("reservation-expired", in_time).len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_deadline_whose_wake_up_is_lost_is_found_by_the_sweep() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.start_workers().await;
        let warm_up = app.guest().await.order_for(&[(mug, 1)]).await;
        app.age(warm_up, 16).await;
        app.settle().await;

        // Its wake-up waits in Redis for a quarter of an hour. The reaper's first sweep is over.
        let id = app.guest().await.order_for(&[(mug, 1)]).await;
        app.age(id, 16).await;

        until("the sweep", async || match &*app.status_of(id).await {
            "expired" => Ok(()),
            status => Err(status.to_owned()),
        })
        .await;
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn a_wake_up_ends_the_orders_of_its_second_and_not_before() {
    let hold = Duration::from_secs(1);
    TestApp::run_holding(hold, async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 1)]).await;
        let second: i64 =
            app.scalar("SELECT extract(epoch FROM expires_at)::bigint FROM orders").await;

        // What a worker does that is woken early: Redis' clock is not the one that counts.
        let ended = work::deadline(&app.cx, second).await.unwrap();

        assert_eq!(ended, 1);
        assert_eq!(app.status_of(id).await, "expired");
        let in_time: bool = app
            .scalar(
                "SELECT recorded_at >= expires_at FROM orders JOIN order_events ON order_id = id
                 WHERE kind = 'deadline_passed'",
            )
            .await;
        assert!(in_time, "it was ended before its deadline");
    })
    .await;
}

#[tokio::test]
async fn a_wake_up_that_is_far_too_early_ends_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 1)]).await;
        let second: i64 =
            app.scalar("SELECT extract(epoch FROM expires_at)::bigint FROM orders").await;

        let ended = work::deadline(&app.cx, second).await.unwrap();

        assert_eq!(ended, 0);
        assert_eq!(app.status_of(id).await, "awaiting_payment");
    })
    .await;
}

/// Waits until the order has expired; returns how many milliseconds after its deadline it did.
async fn lateness(app: &TestApp, order_id: Uuid) -> i64 {
    until("the order's end", async || match &*app.status_of(order_id).await {
        "expired" => Ok(()),
        status => Err(status.to_owned()),
    })
    .await;
    sqlx::query_scalar(
        "
        SELECT (extract(epoch FROM recorded_at - expires_at) * 1000)::bigint
        FROM orders
        JOIN order_events ON order_id = id
        WHERE id = $1 AND kind = 'deadline_passed'
        ",
    )
    .bind(order_id)
    .fetch_one(&app.db)
    .await
    .unwrap()
}

#[tokio::test]
async fn wake_ups_are_faster_than_the_sweep() {
    TestApp::run_holding(Duration::from_secs(1), async |app| {
        let mug = app.product_with_stock(50).await;
        let guest = app.guest().await;
        app.start_workers().await;

        // The sweep comes every two seconds: of two deadlines that are one second apart, it is a
        // second late or more for one. A busy machine is given another chance.
        until("both deadlines are met within a second", async || {
            let first = guest.order_for(&[(mug, 1)]).await;
            until("the next second", async || {
                let is_next: bool = sqlx::query_scalar(
                    "SELECT expires_at - interval '1 second' < clock_timestamp() FROM orders WHERE id = $1",
                )
                .bind(first)
                .fetch_one(&app.db)
                .await
                .unwrap();
                if is_next { Ok(()) } else { Err("it is the same".to_owned()) }
            })
            .await;
            let second = guest.order_for(&[(mug, 1)]).await;
            let late = [lateness(app, first).await, lateness(app, second).await];
            assert!(late.iter().all(|ms| *ms >= 0), "too early: {late:?} ms");
            if late.iter().all(|ms| *ms < 1_000) { Ok(()) } else { Err(format!("{late:?} ms")) }
        })
        .await;

        assert_eq!(app.stock_of(mug).await, (50, 0));
    })
    .await;
}

#[tokio::test]
async fn orders_that_end_together_end_in_slices() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(450).await;
        let sold_out = SoldOut::default();
        for slice in [200, 200, 50] {
            let wishes: Vec<_> = (0..slice).map(|_| strangers_wish(&[(mug, 1)])).collect();
            let placed = place_orders(&app.cx, &sold_out, &wishes).await;
            assert!(placed.iter().all(Result::is_ok));
        }
        app.execute("UPDATE orders SET expires_at = expires_at - interval '16 minutes'").await;
        app.execute("UPDATE holds SET expires_at = expires_at - interval '16 minutes'").await;

        let ended = work::sweep(&app.cx).await.unwrap();

        assert_eq!(ended, 450);
        assert_eq!(app.stock_of(mug).await, (450, 0));
        assert_eq!(
            app.count("job_ledger WHERE dedupe_key LIKE 'reservation-expired:%'").await,
            450
        );
        // Sending 900 mails is another test's business.
        app.expect_unfinished_jobs();
    })
    .await;
}
