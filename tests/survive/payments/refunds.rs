//! Workers that die around the call that sends money back.

use simulator::providers::Provider;

use super::{PAID_WITHIN, PROVIDERS, TILL, is_paid_once};
use crate::{
    cluster::Role, crash::has_aborted, ledger::CancelAnswer, process::eventually, shop::survive,
};

const DEATHS: [&str; 4] = [
    "refund.before-call",
    "refund.after-call",
    "settle-refund.before-commit",
    "settle-refund.after-commit",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_around_a_refund_has_sent_the_money_back_once() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        let mut refunded = 0;
        for provider in PROVIDERS {
            for failpoint in DEATHS {
                println!("{provider}, {failpoint}");
                let client = shop.client();
                let (wish, order) = client.place(&[(mug, 1)]).await;
                let (_, reference) = client.pays_with(&wish, &order, provider).await;
                shop.cluster.providers.succeed(&reference).unwrap();
                is_paid_once(shop, &order).await;
                shop.all_work_ends().await;
                shop.cluster.doom(Role::Webhooks, 0, failpoint).await;

                assert_eq!(client.cancel(&wish, &order).await, CancelAnswer::Cancelled);
                has_aborted(&mut shop.cluster.webhooks[0]).await;
                shop.expire_leases().await;
                shop.cluster.revive(Role::Webhooks, 0).await;

                refunded += 1;
                eventually("the money is back", PAID_WITHIN, async || {
                    let done = "SELECT count(*) FROM refunds WHERE state = 'succeeded'";
                    (shop.count(done).await == refunded).then_some(())
                })
                .await;
                let refunds = shop.cluster.providers.ledger().refunds;
                assert_eq!(i64::try_from(refunds.len()).unwrap(), refunded, "{refunds:?}");
            }
        }
        let ours = |provider: Provider| {
            let refunds = shop.cluster.providers.ledger().refunds;
            refunds.into_iter().filter(|refund| refund.provider == provider).count()
        };
        assert_eq!(PROVIDERS.map(ours), [DEATHS.len(); 2]);
        assert_eq!(shop.count("SELECT count(*) FROM refunds").await, refunded);
        assert_eq!(shop.count("SELECT on_hand FROM stock").await, 100);
    })
    .await;
}
