//! Money: an order is paid once, and no money is lost, whatever dies between a provider and us.

mod crash;
mod late;
mod loss;
mod refunds;
mod reviews;
mod storm;

use std::time::Duration;

use simulator::providers::Provider;

use crate::{cluster::Plan, ledger::PlacedOrder, process::eventually, shop::Shop};

/// Two APIs, of which one may die, and one of each worker.
const TILL: Plan = Plan { webhooks: 1, ..Plan::DEFAULT };

const PROVIDERS: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// Some retries wait for seconds, and some locks for those who died with them.
const PAID_WITHIN: Duration = Duration::from_secs(30);

/// Waits until the order is paid, and checks that its shopper was charged once.
async fn is_paid_once(shop: &Shop, order: &PlacedOrder) {
    eventually("the order is paid", PAID_WITHIN, async || {
        (status_of(shop, order).await == "paid").then_some(())
    })
    .await;
    let attempts: Vec<String> =
        sqlx::query_scalar("SELECT id::text FROM payments WHERE order_id = $1")
            .bind(order.id)
            .fetch_all(shop.db())
            .await
            .unwrap();
    let is_ours = |id: &String| attempts.contains(id);
    let charges = shop.cluster.providers.ledger().captures;
    let charges =
        charges.iter().filter(|charge| charge.payment_id.as_ref().is_some_and(is_ours)).count();
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM captures WHERE order_id = $1")
        .bind(order.id)
        .fetch_one(shop.db())
        .await
        .unwrap();
    assert_eq!((charges, recorded), (1, 1), "charged, and recorded");
}

async fn status_of(shop: &Shop, order: &PlacedOrder) -> String {
    sqlx::query_scalar("SELECT status FROM orders WHERE id = $1")
        .bind(order.id)
        .fetch_one(shop.db())
        .await
        .unwrap()
}

/// Waits until every attempt to pay the order stands there.
async fn payments_are(shop: &Shop, order: &PlacedOrder, state: &str) {
    let what = format!("the payment is {state}");
    eventually(&what, PAID_WITHIN, async || {
        let states: Vec<String> =
            sqlx::query_scalar("SELECT state FROM payments WHERE order_id = $1")
                .bind(order.id)
                .fetch_all(shop.db())
                .await
                .unwrap();
        (!states.is_empty() && states.iter().all(|found| found == state)).then_some(())
    })
    .await;
}
