//! Processes that die between a provider's answer and our note of it, when they asked because nobody told,
//! or because what they were told was not enough.

use simulator::providers::{Delivery, Provider};

use super::{PAID_WITHIN, PROVIDERS, TILL, is_paid_once};
use crate::{
    client::Variant,
    cluster::Role,
    crash::has_aborted,
    ledger::PlacedOrder,
    process::eventually,
    shop::{Shop, survive},
};

/// Lets the provider be asked now about every attempt to pay.
async fn make_due(shop: &Shop) {
    sqlx::query("UPDATE payments SET next_look_at = now() WHERE next_look_at IS NOT NULL")
        .execute(shop.db())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaper_that_dies_after_it_found_money_leaves_it_to_be_found_once_by_the_next() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            println!("{provider}");
            let client = shop.client();
            let (wish, order) = client.place(&[(mug, 1)]).await;
            let (_, reference) = client.pays_with(&wish, &order, provider).await;
            shop.all_work_ends().await;
            shop.cluster.providers.set_delivery(provider, Delivery::Lost);
            shop.cluster.providers.succeed(&reference).unwrap();
            shop.cluster.doom(Role::Reaper, 0, "reconcile.after-call").await;

            make_due(shop).await;
            has_aborted(&mut shop.cluster.reapers[0]).await;
            shop.cluster.revive(Role::Reaper, 0).await;
            make_due(shop).await;

            is_paid_once(shop, &order).await;
            shop.cluster.providers.set_delivery(provider, Delivery::Normal);
            // What was lost comes after all, and changes nothing.
            for lost in shop.unheard() {
                assert!(shop.cluster.providers.redeliver(&lost));
            }
            shop.all_work_ends().await;
            is_paid_once(shop, &order).await;
        }
    })
    .await;
}

/// A paid order, and the provider's name for its money.
async fn paid(shop: &Shop, mug: Variant, provider: Provider) -> (PlacedOrder, String) {
    let client = shop.client();
    let (wish, order) = client.place(&[(mug, 1)]).await;
    let (_, reference) = client.pays_with(&wish, &order, provider).await;
    let charge = shop.cluster.providers.succeed(&reference).unwrap().payment_ref.unwrap();
    is_paid_once(shop, &order).await;
    shop.all_work_ends().await;
    (order, charge)
}

/// Lets the worker that died be followed by another, which does its work.
async fn is_followed(shop: &mut Shop) {
    has_aborted(&mut shop.cluster.webhooks[0]).await;
    shop.expire_leases().await;
    shop.cluster.revive(Role::Webhooks, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_after_it_asked_about_a_refund_leaves_it_to_be_taken_over_once() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            println!("{provider}");
            let (order, charge) = paid(shop, mug, provider).await;
            shop.cluster.doom(Role::Webhooks, 0, "review-refund.after-call").await;

            shop.cluster.providers.refund(&charge, Some(300)).unwrap();
            is_followed(shop).await;

            let mut adopted = Vec::new();
            eventually("the refund is known", PAID_WITHIN, async || {
                adopted = sqlx::query_as::<_, (String, String, i64)>(
                    "SELECT cause, state, amount_minor FROM refunds WHERE order_id = $1",
                )
                .bind(order.id)
                .fetch_all(shop.db())
                .await
                .unwrap();
                adopted.iter().any(|(_, state, _)| state == "succeeded").then_some(())
            })
            .await;
            assert_eq!(adopted, [("provider".to_owned(), "succeeded".to_owned(), 300)]);
        }
        assert_eq!(shop.cluster.providers.ledger().refunds.len(), PROVIDERS.len());
    })
    .await;
}

const DEATHS_BY_DISPUTE: [&str; 2] = ["review-dispute.after-call", "review-dispute.before-commit"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_around_its_note_of_a_dispute_leaves_it_to_be_noted_once() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        let mut known = 0;
        for provider in PROVIDERS {
            for failpoint in DEATHS_BY_DISPUTE {
                println!("{provider}, {failpoint}");
                let (order, charge) = paid(shop, mug, provider).await;
                shop.cluster.doom(Role::Webhooks, 0, failpoint).await;

                shop.cluster.providers.dispute(&charge).unwrap();
                is_followed(shop).await;

                known += 1;
                eventually("the dispute is known", PAID_WITHIN, async || {
                    let open = "SELECT count(*) FROM disputes WHERE state = 'open'";
                    (shop.count(open).await == known).then_some(())
                })
                .await;
                shop.all_work_ends().await;
                let told: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM order_events WHERE order_id = $1 AND kind = 'disputed'",
                )
                .bind(order.id)
                .fetch_one(shop.db())
                .await
                .unwrap();
                assert_eq!(told, 1);
            }
        }
        assert_eq!(shop.count("SELECT count(*) FROM disputes").await, known);
        let open = "SELECT count(*) FROM findings WHERE kind = 'disputed' AND closed_at IS NULL";
        assert_eq!(shop.count(open).await, known);
    })
    .await;
}
