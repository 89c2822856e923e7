//! Mail servers that fail.

use std::{collections::HashMap, time::Duration};

use simulator::inbox::Fault;
use uuid::Uuid;

use crate::{
    cluster::{Plan, is_healthy},
    process::eventually,
    shop::{Shop, message_id, survive},
};

const MAILER_ONLY: Plan = Plan { apis: 1, ..Plan::DEFAULT };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_a_server_did_not_take_is_sent_again_until_it_does() {
    survive(MAILER_ONLY, async |shop| {
        for fault in [Fault::RefuseConnection, Fault::TemporaryFailure] {
            shop.cluster.inbox.set_fault(Some(fault));
            let order_id = order(shop).await;

            has_failed(shop, order_id, 1).await;
            shop.hasten().await.unwrap();
            has_failed(shop, order_id, 2).await;
            assert!(is_healthy(&shop.cluster.mailers[0], "/livez").await, "{fault:?}");
            assert_eq!(copies(shop, order_id), 0);
            shop.cluster.inbox.set_fault(None);
            shop.hasten().await.unwrap();

            was_sent(shop, order_id).await;
            assert_eq!(copies(shop, order_id), 1, "{fault:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_mail_server_gets_each_mail_once() {
    survive(MAILER_ONLY, async |shop| {
        shop.cluster.inbox.set_fault(Some(Fault::Slow(Duration::from_secs(2))));
        let mut orders = Vec::new();
        for _ in 0..10 {
            orders.push(order(shop).await);
        }

        for order_id in orders {
            was_sent(shop, order_id).await;
            assert_eq!(copies(shop, order_id), 1);
        }
        assert!(is_healthy(&shop.cluster.mailers[0], "/livez").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_a_mail_and_does_not_say_so_gets_the_same_mail_again() {
    survive(MAILER_ONLY, async |shop| {
        shop.copies_max = 2;
        for fault in [Fault::DropAfterData, Fault::HangAfterData] {
            shop.cluster.inbox.fail_next(fault, 1);
            let order_id = order(shop).await;

            has_failed(shop, order_id, 1).await;
            assert!(is_healthy(&shop.cluster.mailers[0], "/livez").await, "{fault:?}");
            shop.hasten().await.unwrap();

            was_sent(shop, order_id).await;
            assert_eq!(copies(shop, order_id), 2, "{fault:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_that_comes_too_late_is_not_taken_for_the_yes_to_another_mail() {
    survive(MAILER_ONLY, async |shop| {
        shop.copies_max = 2;
        // Four seconds longer than the mailer waits. The next mail is refused at first.
        shop.cluster.inbox.fail_next(Fault::Slow(Duration::from_secs(14)), 1);
        shop.cluster.inbox.fail_next(Fault::TemporaryFailure, 1);

        let late = order(shop).await;
        has_failed(shop, late, 1).await;
        put_off(shop, late).await;
        eventually("the server says yes to the first mail", Duration::from_secs(10), async || {
            (copies(shop, late) == 1).then_some(())
        })
        .await;
        let next = order(shop).await;
        has_failed(shop, next, 1).await;
        shop.hasten().await.unwrap();

        for order_id in [late, next] {
            was_sent(shop, order_id).await;
        }
        assert_eq!((copies(shop, late), copies(shop, next)), (2, 1));
    })
    .await;
}

/// Keeps the order's mail from being tried again until time is moved.
async fn put_off(shop: &Shop, order_id: Uuid) {
    sqlx::query(
        "
        UPDATE job_ledger
        SET run_at = now() + interval '1 hour', next_push_at = now() + interval '1 hour'
        WHERE dedupe_key = 'order-received:' || $1
        ",
    )
    .bind(order_id)
    .execute(shop.db())
    .await
    .unwrap();
}

/// Places an order, of which a mail is sent.
async fn order(shop: &Shop) -> Uuid {
    let mug = shop.stock(1).await;
    shop.client().place(&[(mug, 1)]).await.1.id
}

/// Waits until that many attempts to send the order's mail have ended without success.
async fn has_failed(shop: &Shop, order_id: Uuid, attempts: i32) {
    // The mailer waits ten seconds for an answer.
    eventually("an attempt has failed", Duration::from_secs(20), async || {
        let failed: Option<i32> = sqlx::query_scalar(
            "
            SELECT attempts
            FROM job_ledger
            WHERE dedupe_key = 'order-received:' || $1
                AND state = 'ready'
                AND lease_until IS NULL
                AND last_error IS NOT NULL
            ",
        )
        .bind(order_id)
        .fetch_optional(shop.db())
        .await
        .unwrap();
        failed.filter(|failed| *failed >= attempts).map(drop)
    })
    .await;
}

async fn was_sent(shop: &Shop, order_id: Uuid) {
    // One attempt is enough: whoever needs a second has not got over the first.
    eventually("the mail was sent", Duration::from_secs(20), async || {
        let sent: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM deliveries WHERE cause_id = $1 AND sent_at IS NOT NULL)",
        )
        .bind(order_id)
        .fetch_one(shop.db())
        .await
        .unwrap();
        sent.then_some(())
    })
    .await;
}

/// How often the inbox has the order's mail, by its Message-ID.
fn copies(shop: &Shop, order_id: Uuid) -> usize {
    let mut copies = HashMap::<String, usize>::new();
    for mail in shop.cluster.inbox.mails() {
        *copies.entry(mail.message_id.clone()).or_default() += 1;
    }
    copies.remove(&message_id("order-received", order_id)).unwrap_or(0)
}
