//! Payments of orders whose units are somebody else's by now.

use std::time::Duration;

use simulator::providers::{Act, Provider};

use super::{TILL, payments_are, status_of};
use crate::{
    cluster::{Plan, Role},
    shop::survive,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_under_way_gives_no_time_to_an_order_whose_units_were_taken_over() {
    let plan = Plan { reapers: 0, ..TILL };
    survive(plan, async |shop| {
        let (mug, plate) = (shop.stock(1).await, shop.stock(1).await);
        let client = shop.client();
        let (wish, late) = client.place(&[(mug, 1), (plate, 1)]).await;
        let (_, reference) = client.pays_with(&wish, &late, Provider::Stripe).await;
        shop.age_orders(Duration::from_hours(1)).await;
        client.place(&[(mug, 1)]).await;

        shop.cluster.providers.act(&reference, &Act::Process).unwrap();
        payments_are(shop, &late, "processing").await;

        let extended = "SELECT count(*) FROM orders WHERE extended_at IS NOT NULL";
        assert_eq!(shop.count(extended).await, 0);
        shop.cluster.providers.decline(&reference, "generic_decline").unwrap();
        shop.cluster.add(Role::Reaper).await;
        payments_are(shop, &late, "cancelled").await;
        assert_eq!(status_of(shop, &late).await, "expired");
        assert_eq!(shop.reserved(plate).await, 0);
    })
    .await;
}
