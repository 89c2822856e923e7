//! Stock that somebody kept too long goes to whoever asks for it, with or without a worker.

use crate::support::{KEY, app::TestApp, client::until};

#[tokio::test]
async fn an_hour_without_a_worker_blocks_no_sale() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let late = app.guest().await.order_for(&[(mug, 1)]).await;
        app.age(late, 60).await;

        let placed = app.guest().await.place_order(KEY, &[(mug, 1)]).await;

        placed.assert_status(201);
        assert_eq!(app.stock_of(mug).await, (1, 1));
        assert_eq!(app.hold_of(late, mug).await, "taken");
        assert_eq!(app.hold_of(placed.order_id(), mug).await, "held");
        assert_eq!(
            app.movements_of(mug).await,
            [
                ("order_placed", 1, "held"),
                ("hold_taken", 1, "available"),
                ("order_placed", 1, "held")
            ]
            .map(|(cause, units, to)| (cause.to_owned(), units, to.to_owned()))
        );
    })
    .await;
}

#[tokio::test]
async fn an_order_that_lost_a_line_is_ended_later_with_its_other_lines() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let lamp = app.product_with_stock(3).await;
        let owner = app.guest().await;
        let late = owner.order_for(&[(mug, 1), (lamp, 2)]).await;
        app.age(late, 60).await;
        app.guest().await.order_for(&[(mug, 1)]).await;
        assert_eq!(app.status_of(late).await, "awaiting_payment");
        assert_eq!(app.hold_of(late, lamp).await, "held");

        app.settle().await;

        assert_eq!(app.status_of(late).await, "expired");
        assert_eq!(app.hold_of(late, mug).await, "taken");
        assert_eq!(app.stock_of(mug).await, (1, 1));
        assert_eq!(app.stock_of(lamp).await, (3, 0));
        let released = owner.order(late).await.at("/timeline/1/detail/released");
        assert_eq!(released.as_array().unwrap().len(), 1);
        assert_eq!(released[0]["variant_id"], lamp.id.to_string());
        assert_eq!(released[0]["quantity"], 2);
        assert_eq!(app.mails("reservation-expired", late).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_oldest_holds_go_first_and_no_more_than_are_needed() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let mut late = Vec::new();
        for minutes in [20, 40, 30] {
            let id = app.guest().await.order_for(&[(mug, 1)]).await;
            app.age(id, minutes).await;
            late.push(id);
        }

        app.guest().await.order_for(&[(mug, 2)]).await;

        assert_eq!(app.hold_of(late[0], mug).await, "held");
        assert_eq!(app.hold_of(late[1], mug).await, "taken");
        assert_eq!(app.hold_of(late[2], mug).await, "taken");
        assert_eq!(app.stock_of(mug).await, (3, 3));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_taken_while_there_is_enough() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let late = app.guest().await.order_for(&[(mug, 2)]).await;
        app.age(late, 60).await;

        app.guest().await.order_for(&[(mug, 3)]).await;

        assert_eq!(app.hold_of(late, mug).await, "held");
        assert_eq!(app.stock_of(mug).await, (5, 5));
    })
    .await;
}

#[tokio::test]
async fn a_hold_is_taken_whole_and_what_is_over_is_on_sale() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(8).await;
        let older = app.guest().await.order_for(&[(mug, 4)]).await;
        let newer = app.guest().await.order_for(&[(mug, 4)]).await;
        app.age(older, 60).await;
        app.age(newer, 30).await;

        app.guest().await.order_for(&[(mug, 3)]).await;

        assert_eq!(app.hold_of(older, mug).await, "taken");
        assert_eq!(app.hold_of(newer, mug).await, "held", "one hold covers it");
        assert_eq!(app.stock_of(mug).await, (8, 7));
    })
    .await;
}

#[tokio::test]
async fn a_hold_within_its_time_is_never_taken() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(2).await;
        let in_time = app.guest().await.order_for(&[(mug, 1)]).await;
        let late = app.guest().await.order_for(&[(mug, 1)]).await;
        app.age(late, 60).await;

        let refusal = app.guest().await.place_order(KEY, &[(mug, 2)]).await;

        refusal.assert_problem(409, "out-of-stock");
        assert_eq!(refusal.at("/errors/0/available"), 1);
        assert_eq!(app.hold_of(in_time, mug).await, "held");
        assert_eq!(app.hold_of(late, mug).await, "held", "a refusal takes nothing from anybody");
    })
    .await;
}

#[tokio::test]
async fn units_past_their_deadline_are_shown_as_available() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let late = app.guest().await.order_for(&[(mug, 2)]).await;
        let stock = format!("/v1/stock/{}", mug.id);
        assert_eq!(app.anybody().get(&stock).await.at("/available"), 1);

        app.age(late, 60).await;

        assert_eq!(app.anybody().get(&stock).await.at("/available"), 3);
    })
    .await;
}

#[tokio::test]
async fn the_memory_of_what_is_sold_out_ends_at_the_next_deadline() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let first = app.guest().await.order_for(&[(mug, 1)]).await;
        let next = app.guest().await;
        app.bring_deadline_near(first).await;

        // Each refusal is remembered for a while, but for no moment beyond the deadline.
        until("the deadline", async || {
            let is_overdue = app.is_overdue(first).await;
            let answer = next.place_order(KEY, &[(mug, 1)]).await;
            match answer.status {
                201 => Ok(()),
                409 if !is_overdue => Err(answer.body),
                _ => panic!("refused after the deadline: {}", answer.body),
            }
        })
        .await;

        assert_eq!(app.hold_of(first, mug).await, "taken");
        // The deadline was brought forward behind the back of the order's timeline.
        app.settle().await;
    })
    .await;
}
