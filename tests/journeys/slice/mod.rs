//! The checkout's use case, given a slice of wishes as the batcher hands it over.

pub(crate) mod statements;

use std::time::{Duration, Instant};

use holdfast::{
    checkout::{CheckoutError, Placement, SoldOut, place_orders},
    idempotency::KeyError,
    kernel::{Class, Fault},
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    KEY,
    app::TestApp,
    shop::{Variant, strangers_wish, wish},
};

/// The codes of the refusals, and `placed` or `replayed`.
fn summary(outcomes: &[Result<Placement, CheckoutError>]) -> Vec<&'static str> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(placement) if placement.replayed => "replayed",
            Ok(_) => "placed",
            Err(error) => error.code(),
        })
        .collect()
}

#[tokio::test]
async fn each_wish_of_a_slice_is_answered_for_itself_and_in_its_place() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let lamp = app.product_with_stock(1).await;
        let unknown = Variant { id: Uuid::now_v7(), ..mug };
        let stale = Variant { price: 1, ..mug };
        let slice = [
            strangers_wish(&[(mug, 2)]),
            strangers_wish(&[(unknown, 1)]),
            strangers_wish(&[(stale, 1)]),
            strangers_wish(&[(mug, 1), (lamp, 2)]),
            strangers_wish(&[(mug, 4)]),
            strangers_wish(&[(mug, 3), (lamp, 1)]),
        ];

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        assert_eq!(
            summary(&outcomes),
            [
                "placed",
                "lines-not-orderable",
                "total-changed",
                "out-of-stock",
                "out-of-stock",
                "placed",
            ]
        );
        assert_eq!(app.stock_of(mug).await, (5, 5));
        assert_eq!(app.stock_of(lamp).await, (1, 1));
        assert_eq!(app.count("orders").await, 2);
        assert_eq!(app.count("idempotency_keys WHERE operation = 'placeOrder'").await, 2);
    })
    .await;
}

#[tokio::test]
async fn the_first_of_a_slice_are_served_first() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let slice: Vec<_> = (0..5).map(|_| strangers_wish(&[(mug, 1)])).collect();

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        assert_eq!(
            summary(&outcomes),
            ["placed", "placed", "placed", "out-of-stock", "out-of-stock"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_key_twice_in_a_slice_places_one_order() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
        let slice = [
            wish(ada, KEY, &[(mug, 1)]),
            wish(ada, KEY, &[(mug, 1)]),
            wish(ada, KEY, &[(mug, 2)]),
            wish(bob, KEY, &[(mug, 1)]),
        ];

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        assert_eq!(summary(&outcomes), ["placed", "replayed", "idempotency-key-reused", "placed"]);
        let receipts: Vec<_> =
            outcomes.iter().flatten().map(|placement| &placement.receipt).collect();
        assert_eq!(receipts[0], receipts[1]);
        assert_ne!(receipts[0].order_id, receipts[2].order_id);
        assert_eq!(app.stock_of(mug).await, (5, 2));
    })
    .await;
}

#[tokio::test]
async fn a_key_twice_in_a_slice_is_refused_as_its_first_is() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let ada = Uuid::now_v7();
        let slice =
            [wish(ada, KEY, &[(mug, 2)]), wish(ada, KEY, &[(mug, 2)]), wish(ada, KEY, &[(mug, 1)])];

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        // The third is another request: whether its key is free is known when the first is answered.
        assert_eq!(summary(&outcomes), ["out-of-stock", "out-of-stock", "request-in-flight"]);
        assert_eq!(app.stock_of(mug).await, (1, 0));
        assert_eq!(app.count("orders").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_somebody_works_on_is_refused_for_the_moment() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let ada = Uuid::now_v7();
        let first = [wish(ada, KEY, &[(mug, 1)])];
        let (patient, sold_out) = (app.patient(), SoldOut::default());
        let blocker = app.block(mug).await;

        let first = place_orders(&patient, &sold_out, &first);
        let second = async {
            app.until_blocked().await;
            let second = [wish(ada, KEY, &[(mug, 1)])];
            let second = place_orders(&app.cx, &SoldOut::default(), &second).await;
            blocker.rollback().await.unwrap();
            second
        };
        let (first, second) = tokio::join!(first, second);

        assert_eq!(summary(&first), ["placed"]);
        let Err(refusal) = &second[0] else { panic!("{second:?}") };
        assert!(matches!(refusal, CheckoutError::Key(KeyError::InFlight)), "{refusal}");
        assert!(refusal.retry_after().is_some());
        assert_eq!(app.stock_of(mug).await, (5, 1));
    })
    .await;
}

#[tokio::test]
async fn a_lock_that_took_too_long_is_waited_for_once_more() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let slice: Vec<_> = (0..10).map(|_| strangers_wish(&[(mug, 1)])).collect();
        let sold_out = SoldOut::default();
        for _ in 0..STALLS_MAX {
            let blocker = app.block(mug).await;

            let placed = app.hold_up(blocker, place_orders(&app.cx, &sold_out, &slice)).await;

            match placed.as_deref().map(summary) {
                None => {}
                Some(seen) if seen == ["temporarily-unavailable"; 10] => {}
                Some(seen) => {
                    assert_eq!(seen, [["placed"; 5], ["out-of-stock"; 5]].concat());
                    return;
                }
            }
        }
        panic!("it was given up every time");
    })
    .await;
}

/// How often a machine may stall for longer than a slice is patient.
const STALLS_MAX: usize = 5;

#[tokio::test]
async fn one_wish_that_the_database_refuses_spoils_no_other() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(500).await;
        let taken = strangers_wish(&[(mug, 1)]);
        let number = taken.number.clone();
        place_orders(&app.cx, &SoldOut::default(), &[taken]).await.remove(0).unwrap();
        let mut slice: Vec<_> = (0..200).map(|_| strangers_wish(&[(mug, 1)])).collect();
        // Another order has this number, and no text in a table may hold U+0000.
        slice[77].number = number;
        slice[150].shipping_address = json!({ "name": "Ada\u{0}Lovelace" });

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        for (place, outcome) in outcomes.iter().enumerate() {
            match (place, outcome) {
                (77, Err(error)) => assert!(matches!(error, CheckoutError::NumberTaken)),
                (150, Err(error)) => assert_eq!(error.class(), Class::Broken),
                (77 | 150, Ok(_)) => panic!("{place} was placed"),
                (_, outcome) => assert!(outcome.is_ok(), "{place}: {outcome:?}"),
            }
        }
        assert_eq!(app.stock_of(mug).await, (500, 199));
        assert_eq!(app.count("orders").await, 199);
        // Sending 199 mails is another test's business.
        app.expect_unfinished_jobs();
    })
    .await;
}

#[tokio::test]
async fn two_orders_of_one_number_are_not_both_placed() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let mut slice = [strangers_wish(&[(mug, 1)]), strangers_wish(&[(mug, 1)])];
        slice[1].number = slice[0].number.clone();

        let outcomes = place_orders(&app.cx, &SoldOut::default(), &slice).await;

        assert!(outcomes[0].is_ok());
        assert!(matches!(outcomes[1], Err(CheckoutError::NumberTaken)));
        assert_eq!(app.stock_of(mug).await, (5, 1));
    })
    .await;
}

#[tokio::test]
async fn a_memory_that_ends_while_the_keys_are_read_is_still_a_refusal_for_want_of_stock() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let sold_out = SoldOut::default();
        let slice = [strangers_wish(&[(mug, 1)]), strangers_wish(&[(mug, 1)])];
        let first = place_orders(&app.cx, &sold_out, &slice).await;
        assert_eq!(summary(&first), ["placed", "out-of-stock"]);

        // The keys cannot be read until the memory is over.
        let known_at = Instant::now();
        let mut blocker = app.db.begin().await.unwrap();
        sqlx::query("LOCK TABLE idempotency_keys").execute(&mut *blocker).await.unwrap();
        let late = [strangers_wish(&[(mug, 1)])];
        let patient = app.patient();
        let late = place_orders(&patient, &sold_out, &late);
        let free = async {
            app.until_blocked().await;
            tokio::time::sleep_until((known_at + Duration::from_millis(250)).into()).await;
            blocker.rollback().await.unwrap();
        };
        let (late, ()) = tokio::join!(late, free);

        assert_eq!(summary(&late), ["out-of-stock"]);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_forgotten_after_two_days_and_not_before() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
        let slice = [wish(ada, KEY, &[(mug, 1)]), wish(bob, KEY, &[(mug, 1)])];
        place_orders(&app.cx, &SoldOut::default(), &slice).await;
        for (owner, hours) in [(ada, 49), (bob, 47)] {
            sqlx::query(
                "UPDATE idempotency_keys SET created_at = now() - make_interval(hours => $2)
                 WHERE owner_id = $1",
            )
            .bind(owner)
            .bind(hours)
            .execute(&app.db)
            .await
            .unwrap();
        }
        // An order of today has its key, says the doctor.
        app.execute("UPDATE orders SET placed_at = now() - interval '49 hours'").await;

        holdfast::checkout::work::purge(&app.cx).await.unwrap();

        let again = [wish(ada, KEY, &[(mug, 1)]), wish(bob, KEY, &[(mug, 1)])];
        let again = place_orders(&app.cx, &SoldOut::default(), &again).await;
        assert_eq!(summary(&again), ["placed", "replayed"]);
        assert_eq!(app.stock_of(mug).await, (5, 3));
    })
    .await;
}
