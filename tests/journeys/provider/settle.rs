//! Settling many payments together, given as a worker hands them over.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast::{
    checkout::{Settled, Settlement, SoldOut, cancel_order, place_orders, settle, work},
    payments::{
        Charge, Payment, Provider, Standing,
        gateway::{RefundAtProvider, RefundStanding},
    },
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    slice::statements::Tap,
    support::{
        app::TestApp,
        shop::{Variant, strangers_wish},
    },
    till::{charge, news},
};

/// What docs/architecture.md and the use case itself promise.
const STATEMENTS_MAX: usize = 29;

/// Places so many orders of one unit each.
async fn orders(app: &TestApp, variant: Variant, number: usize) -> Vec<Uuid> {
    let slice: Vec<_> = (0..number).map(|_| strangers_wish(&[(variant, 1)])).collect();
    let placed = place_orders(&app.cx, &SoldOut::default(), &slice).await;
    placed.into_iter().map(|placed| placed.unwrap().receipt.order_id).collect()
}

/// The same, of shoppers who let the time to pay pass.
async fn expired_orders(app: &TestApp, variant: Variant, number: usize) -> Vec<Uuid> {
    let ids = orders(app, variant, number).await;
    for id in &ids {
        app.age(*id, 16).await;
    }
    assert!(work::sweep(&app.cx).await.unwrap() >= number);
    ids
}

async fn cancelled_orders(app: &TestApp, variant: Variant, number: usize) -> Vec<Uuid> {
    let slice: Vec<_> = (0..number).map(|_| strangers_wish(&[(variant, 1)])).collect();
    let placed = place_orders(&app.cx, &SoldOut::default(), &slice).await;
    for (placed, wish) in placed.into_iter().zip(&slice) {
        let id = placed.unwrap().receipt.order_id;
        cancel_order(&app.cx, id.into(), wish.owner_id).await.unwrap();
    }
    slice.iter().map(|wish| wish.order_id.uuid()).collect()
}

/// News of an attempt to pay each order.
async fn of_each(
    app: &TestApp,
    order_ids: &[Uuid],
    standing: impl Fn(&Payment) -> Standing,
) -> Vec<Settlement> {
    let mut slice = Vec::new();
    for id in order_ids {
        let payment = app.attempt(*id, Provider::Stripe).await;
        slice.push(news(&payment, standing(&payment)));
    }
    slice
}

fn in_full(payment: &Payment) -> Standing {
    Standing::Captured(vec![charge(payment)])
}

fn too_little(payment: &Payment) -> Standing {
    let asked = charge(payment);
    Standing::Captured(vec![Charge { amount_minor: asked.amount_minor - 1, ..asked }])
}

/// All of it went back before anybody here heard of it.
fn gone(payment: &Payment) -> Standing {
    let asked = charge(payment);
    let refund = RefundAtProvider {
        provider_ref: format!("re_{}", payment.id.uuid().simple()),
        refund_id: None,
        charge_ref: asked.charge_ref.clone(),
        amount_minor: asked.amount_minor,
        currency: asked.currency.clone(),
        standing: RefundStanding::Succeeded,
    };
    Standing::Captured(vec![Charge { refunds: vec![refund], ..asked }])
}

fn set_aside(payment: &Payment) -> Standing {
    Standing::Authorized(charge(payment))
}

fn too_little_set_aside(payment: &Payment) -> Standing {
    let asked = charge(payment);
    Standing::Authorized(Charge { amount_minor: asked.amount_minor - 1, ..asked })
}

fn declined(_: &Payment) -> Standing {
    Standing::Open { last_decline: Some("generic_decline".to_owned()) }
}

/// How much money had each fate.
async fn fates(app: &TestApp) -> BTreeMap<String, i64> {
    let fates: Vec<(String, i64)> = sqlx::query_as(
        "SELECT concat_ws(' ', fate, reason), count(*) FROM captures GROUP BY fate, reason",
    )
    .fetch_all(&app.db)
    .await
    .unwrap();
    fates.into_iter().collect()
}

/// So many payments of every fate, and as much other news.
async fn of_every_fate(app: &TestApp, each: usize) -> Vec<Settlement> {
    let units = i64::try_from(each).unwrap();
    let plenty = app.product_with_stock(1_000).await;
    let scarce = app.product_with_stock(units).await;
    let lost = expired_orders(app, scarce, each).await;
    orders(app, scarce, each).await;
    let idle = app.product_with_stock(units).await;
    let regained = expired_orders(app, idle, each).await;
    for id in orders(app, idle, each).await {
        app.age(id, 16).await;
    }
    let late = orders(app, plenty, each).await;
    for id in &late {
        app.age(*id, 16).await;
    }
    let in_time = orders(app, plenty, each).await;
    let cancelled = cancelled_orders(app, plenty, each).await;
    let mut slice = of_each(app, &in_time, in_full).await;
    slice.extend(of_each(app, &lost, in_full).await);
    slice.extend(of_each(app, &regained, in_full).await);
    slice.extend(of_each(app, &late, in_full).await);
    slice.extend(of_each(app, &cancelled, in_full).await);
    let waiting = orders(app, plenty, 6 * each).await;
    slice.extend(of_each(app, &waiting[..each], too_little).await);
    slice.extend(of_each(app, &waiting[each..2 * each], declined).await);
    slice.extend(of_each(app, &waiting[2 * each..3 * each], |_| Standing::Processing).await);
    slice.extend(of_each(app, &waiting[3 * each..4 * each], gone).await);
    slice.extend(of_each(app, &waiting[4 * each..5 * each], set_aside).await);
    slice.extend(of_each(app, &waiting[5 * each..], too_little_set_aside).await);
    slice
}

#[tokio::test]
async fn payments_of_every_fate_take_the_same_statements_however_many_they_are() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let tap = Tap::open(app).await;

        let mut counts = Vec::new();
        for each in [1, 7] {
            let slice = of_every_fate(app, each).await;

            let (settled, statements) = tap.count(settle(&tap.cx, &slice)).await;

            for settled in settled {
                assert!(matches!(settled.unwrap(), Settled::Applied { .. }));
            }
            counts.push(statements);
        }

        assert_eq!(counts[0], counts[1]);
        assert!(counts[0] <= STATEMENTS_MAX, "{} statements", counts[0]);
        let expected = [
            ("accepted", 24),
            ("refund_due order_cancelled", 8),
            ("refund_due out_of_stock", 8),
            ("refund_due wrong_amount", 8),
            ("quarantined wrong_amount", 8),
        ];
        let expected = expected.map(|(fate, captures)| (fate.to_owned(), captures)).into();
        assert_eq!(fates(app).await, expected);
        let extended = "order_events WHERE kind = 'deadline_extended'";
        assert_eq!(app.count(extended).await, 16);
        assert_eq!(app.count("order_events WHERE kind = 'payment_failed'").await, 8);
        assert_eq!(app.count("order_events WHERE kind = 'payment_not_collected'").await, 8);
        assert_eq!(app.count("refunds WHERE cause = 'provider'").await, 8);
    })
    .await;
}

#[tokio::test]
async fn the_same_slice_again_changes_nothing() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let slice = of_every_fate(app, 2).await;
        settle(&app.cx, &slice).await;
        let before = app.books().await;

        let backwards: Vec<_> = slice.iter().rev().cloned().collect();
        for slice in [slice, backwards] {
            for settled in settle(&app.cx, &slice).await {
                assert!(matches!(settled.unwrap(), Settled::Applied { .. }));
            }
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn one_payment_that_the_database_refuses_spoils_no_other() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(50).await;
        let ids = orders(app, mug, 50).await;
        let slice = of_each(app, &ids, in_full).await;
        let refusal = format!(
            "ALTER TABLE captures ADD CONSTRAINT captures_unlucky CHECK (provider_ref <> '{}')",
            slice[31].news.provider_ref,
        );
        sqlx::query(AssertSqlSafe(refusal)).execute(&app.db).await.unwrap();

        let settled = settle(&app.cx, &slice).await;

        for (place, settled) in settled.iter().enumerate() {
            assert_eq!(settled.is_err(), place == 31, "{place}: {settled:?}");
        }
        assert_eq!(app.count("orders WHERE status = 'paid'").await, 49);
        assert_eq!(app.status_of(ids[31]).await, "awaiting_payment");
        assert_eq!(app.stock_of(mug).await, (1, 1));
    })
    .await;
}

/// Twenty orders that expired, paid all the same, and the variant of which five units are left.
async fn twenty_for_five(app: &TestApp) -> (Variant, Vec<Settlement>) {
    let mug = app.product_with_stock(20).await;
    let ids = expired_orders(app, mug, 20).await;
    let slice = of_each(app, &ids, in_full).await;
    orders(app, mug, 15).await;
    (mug, slice)
}

/// Five orders were paid, and the money of the others has to go back.
async fn assert_five_of_twenty(app: &TestApp, mug: Variant) {
    let expected = [("accepted", 5), ("refund_due out_of_stock", 15)];
    let expected = expected.map(|(fate, captures)| (fate.to_owned(), captures)).into();
    assert_eq!(fates(app).await, expected);
    assert_eq!(app.count("orders WHERE status = 'paid'").await, 5);
    assert_eq!(app.count("holds WHERE state = 'sold'").await, 5);
    assert_eq!(app.stock_of(mug).await, (15, 15));
}

#[tokio::test]
async fn of_twenty_that_pay_late_in_one_slice_those_are_served_first_who_came_first() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let (mug, slice) = twenty_for_five(app).await;

        for settled in settle(&app.cx, &slice).await {
            settled.unwrap();
        }

        assert_five_of_twenty(app, mug).await;
        for settlement in &slice[..5] {
            let paid: String =
                sqlx::query_scalar("SELECT fate FROM captures WHERE provider_ref = $1")
                    .bind(&settlement.news.provider_ref)
                    .fetch_one(&app.db)
                    .await
                    .unwrap();
            assert_eq!(paid, "accepted");
        }
    })
    .await;
}

#[tokio::test]
async fn of_twenty_that_pay_late_at_once_five_are_served() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let (mug, slice) = twenty_for_five(app).await;

        let settled = join_all(slice.chunks(1).map(|one| settle(&app.cx, one))).await;

        assert!(settled.iter().flatten().all(Result::is_ok), "{settled:?}");
        assert_five_of_twenty(app, mug).await;
    })
    .await;
}
