//! Deadlines that nobody, or everybody, is there to keep.

use std::time::{Duration, Instant};

use holdfast::{
    checkout::{PlaceOrder, RequestedLine, SoldOut, place_orders},
    clients::Providers,
    context::{self, Context},
    idempotency::{Fingerprint, Key},
    kernel::{EmailAddress, Money, OrderId, batch::SLICE_MAX},
    orders::OrderNumber,
};
use serde_json::json;

use crate::{
    cluster::{Plan, Role},
    ledger::{Answer, PlacedOrder, Wish},
    load::Load,
    process::eventually,
    shop::{Shop, survive},
};

const UNATTENDED: Plan = Plan { reapers: 0, mailers: 0, ..Plan::DEFAULT };

/// Far more than the eight thousand wake-ups that the queue's own promotion can carry.
const CROWD: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_holds_that_run_out_in_one_second_are_released_once_each() {
    survive(UNATTENDED, async |shop| {
        let mut variants = Vec::new();
        for _ in 0..20 {
            variants.push(shop.stock(1_000).await);
        }
        let client = shop.client();
        let wishes: Vec<_> =
            (0..CROWD).map(|n| client.wish(&[(variants[n % variants.len()], 1)])).collect();
        let begun = Instant::now();
        place_in_slices(shop, &wishes).await;
        println!("placed in {:?}", begun.elapsed());
        expire_all(shop).await;

        let load = Load::start(&client, 4, variants[0]);
        let begun = Instant::now();
        shop.cluster.add(Role::Reaper).await;
        shop.cluster.add(Role::Reaper).await;
        eventually("everything is released", Duration::from_mins(3), async || {
            let waiting = shop
                .count("SELECT count(*) FROM orders WHERE status = 'awaiting_payment' AND expires_at <= now()")
                .await;
            (waiting == 0).then_some(())
        })
        .await;
        println!("released in {:?}", begun.elapsed());
        load.stop().await;

        let crowd = i64::try_from(CROWD).unwrap();
        assert_eq!(
            shop.count("SELECT count(*) FROM order_events WHERE kind = 'deadline_passed'").await,
            crowd
        );
        // Shoppers who found nothing left took some units over before a reaper came to them.
        assert_eq!(
            shop.count("SELECT count(*) FROM holds WHERE state IN ('released', 'taken')").await,
            crowd
        );
        // Those of the crowd were given by no server.
        shop.ledger.assert_served(shop.ledger.answers() - CROWD);
    })
    .await;
}

/// Places the wishes as an API process would, without the time that HTTP takes.
async fn place_in_slices(shop: &Shop, wishes: &[Wish]) {
    let cx = Context {
        db: shop.db().clone(),
        // Nobody listens there: no wake-up of these orders will ever arrive.
        relay: jobs::Relay::start("redis://127.0.0.1:1", "nobody").unwrap(),
        hold: Duration::from_mins(15),
        mailer: None,
        providers: Providers::default(),
        shop: context::Shop { name: String::new(), url: String::new() },
    };
    let sold_out = SoldOut::default();
    for wishes in wishes.chunks(SLICE_MAX) {
        let slice: Vec<_> = wishes.iter().map(place_order).collect();
        let placements = place_orders(&cx, &sold_out, &slice).await;
        for (wish, placement) in wishes.iter().zip(placements) {
            let placement = placement.unwrap();
            let order = PlacedOrder {
                id: placement.receipt.order_id,
                placed_at: placement.receipt.placed_at,
                expires_at: placement.expires_at,
                replayed: placement.replayed,
            };
            shop.ledger.open(wish);
            shop.ledger.note(wish, &Answer::Placed(order));
        }
    }
}

fn place_order(wish: &Wish) -> PlaceOrder {
    let currency = "USD".parse().unwrap();
    PlaceOrder {
        order_id: OrderId::generate(),
        number: OrderNumber::generate(),
        owner_id: wish.owner_id.into(),
        key: Key::parse(Some(&wish.key)).unwrap(),
        fingerprint: Fingerprint::of(wish.key.as_bytes()),
        email: EmailAddress::parse(&wish.email).unwrap(),
        shipping_address: json!({ "name": "Ada Lovelace" }),
        currency,
        expected_total: Money::new(wish.total_minor, currency).unwrap(),
        lines: wish
            .lines
            .iter()
            .map(|(variant_id, quantity)| RequestedLine {
                variant_id: (*variant_id).into(),
                quantity: *quantity,
            })
            .collect(),
    }
}

/// Lets every hold run out in the second that has just begun.
async fn expire_all(shop: &Shop) {
    sqlx::query(
        "
        WITH orders AS (
            UPDATE orders
            SET expires_at = date_trunc('second', now()),
                placed_at = placed_at - (expires_at - date_trunc('second', now()))
        )
        UPDATE holds SET expires_at = date_trunc('second', now())
        ",
    )
    .execute(shop.db())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_hour_without_any_worker_the_stock_is_sold_again() {
    survive(UNATTENDED, async |shop| {
        let (mug, plate) = (shop.stock(10).await, shop.stock(5).await);
        let client = shop.client();
        client.place(&[(mug, 5), (plate, 2)]).await;
        client.place(&[(mug, 5)]).await;
        let latecomer = client.wish(&[(mug, 6)]);
        assert_eq!(client.order(&latecomer).await, Answer::OutOfStock);

        shop.age_orders(Duration::from_hours(1)).await;

        // What is sold out is remembered for a fifth of a second, and no longer.
        eventually("the mugs can be had again", Duration::from_secs(5), async || {
            client.order(&latecomer).await.placed().map(drop)
        })
        .await;
        assert_eq!(shop.reserved(mug).await, 6);
        assert_eq!(shop.reserved(plate).await, 2, "nobody was short of plates");
        client.place(&[(plate, 5)]).await;

        // The workers find the orders, of which nothing is left to release.
        shop.cluster.add(Role::Reaper).await;
        shop.cluster.add(Role::Mailer).await;
        shop.all_work_ends().await;
        assert_eq!(shop.count("SELECT count(*) FROM orders WHERE status = 'expired'").await, 2);
        assert_eq!((shop.reserved(mug).await, shop.reserved(plate).await), (6, 5));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sold_out_can_be_had_again_the_moment_a_hold_runs_out() {
    survive(Plan { hold: Duration::from_secs(5), ..UNATTENDED }, async |shop| {
        let mug = shop.stock(1).await;
        let client = shop.client();
        let (_, first) = client.place(&[(mug, 1)]).await;
        let wish = client.wish(&[(mug, 1)]);

        let second = eventually("the mug can be had again", Duration::from_secs(10), async || {
            client.order(&wish).await.placed().cloned()
        })
        .await;

        // An order is placed when its transaction begins; by when it has the stock, the hold has run out.
        let after = second.placed_at - first.expires_at;
        assert!(
            (-1_000..4_000).contains(&after.whole_milliseconds()),
            "{after} after the deadline"
        );
        shop.cluster.add(Role::Reaper).await;
        shop.cluster.add(Role::Mailer).await;
    })
    .await;
}
