//! A shop under test: its processes, what is on sale, and what must be true when a test is over.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use holdfast::doctor::{self, ProviderCapture, ProviderLedger, ProviderRefund};
use simulator::providers::{Outcome, Provider, RefundState};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    client::{Client, Variant},
    cluster::{Cluster, Plan},
    ledger::{Answer, Ledger, Wish},
    process::eventually,
};

/// How long everything that was promised may take once nothing goes wrong any more.
const RECOVERY_MAX: Duration = Duration::from_mins(1);

/// How often waiting work is brought forward: each time costs a wake-up for every waiting row.
const HASTENED_EVERY: Duration = Duration::from_secs(3);

/// What one unit of anything costs.
const PRICE_MINOR: i64 = 1_000;

pub(crate) struct Shop {
    pub(crate) cluster: Cluster,
    pub(crate) ledger: Ledger,
    /// How many copies of a mail are forgiven: one, unless something fell between a server's yes and our note.
    pub(crate) copies_max: usize,
}

/// Runs the test on a shop of its own. Afterwards all work must end, every invariant must hold, and
/// the clients' answers, the inbox and the providers' books must agree with the database.
pub(crate) async fn survive(plan: Plan, test: impl AsyncFnOnce(&mut Shop)) {
    let cluster = Cluster::start(plan).await;
    let mut shop = Shop { cluster, ledger: Ledger::default(), copies_max: 1 };

    test(&mut shop).await;

    shop.all_work_ends().await;
    println!("answers: {}", shop.ledger.summary());
    let findings = doctor::examine(shop.db()).await.unwrap();
    assert!(findings.is_empty(), "the doctor found {}: {findings:#?}", findings.len());
    shop.ledger.agree(shop.db()).await;
    shop.mails_agree().await;
    shop.books_agree().await;
    shop.cluster.stop().await;
}

impl Shop {
    pub(crate) fn db(&self) -> &PgPool {
        &self.cluster.db
    }

    /// A client that knows every API process there is now.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.cluster.addresses(), self.cluster.guests.clone(), self.ledger.clone())
    }

    /// Puts a new variant on sale, of which there are so many units.
    pub(crate) async fn stock(&self, units: i64) -> Variant {
        let id = Uuid::now_v7();
        sqlx::query(
            "
            WITH product AS (
                INSERT INTO products (id, slug, title) VALUES ($1, 'p-' || $1, 'Mug') RETURNING id
            ), variant AS (
                INSERT INTO variants (id, product_id, sku, title, position)
                SELECT $1, id, 'SKU-' || $1, 'Blue', 1 FROM product
                RETURNING id
            ), price AS (
                INSERT INTO prices (variant_id, currency, amount_minor)
                SELECT id, 'USD', $3 FROM variant
            ), counters AS (
                INSERT INTO stock (variant_id, on_hand) SELECT id, $2 FROM variant
            )
            INSERT INTO stock_ledger (id, variant_id, from_account, to_account, quantity, cause, cause_id)
            SELECT id, id, 'supplier', 'available', $2, 'receipt', id FROM variant
            ",
        )
        .bind(id)
        .bind(units)
        .bind(PRICE_MINOR)
        .execute(self.db())
        .await
        .unwrap();
        Variant { id, price_minor: PRICE_MINOR }
    }

    /// Sends every wish once, all at the same time, and returns the answers in the order of the wishes.
    pub(crate) async fn ask_at_once(&self, wishes: &[Wish]) -> Vec<Answer> {
        let client = self.client();
        let asked: Vec<_> = wishes
            .iter()
            .map(|wish| {
                let (client, wish) = (client.clone(), wish.clone());
                tokio::spawn(async move { client.ask(&wish).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
        answers
    }

    /// Waits until so many more orders were placed.
    pub(crate) async fn until_placed(&self, more: usize) {
        let wanted = self.ledger.placed() + more;
        let what = format!("{wanted} orders are placed");
        eventually(&what, Duration::from_secs(30), async || {
            (self.ledger.placed() >= wanted).then_some(())
        })
        .await;
    }

    /// What the query counts.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.db()).await.unwrap()
    }

    /// How many units of the variant orders hold.
    pub(crate) async fn reserved(&self, variant: Variant) -> i64 {
        sqlx::query_scalar("SELECT reserved FROM stock WHERE variant_id = $1")
            .bind(variant.id)
            .fetch_one(self.db())
            .await
            .unwrap()
    }

    /// Keeps everybody else from the variant's stock until the transaction ends.
    pub(crate) async fn lock_stock(&self, variant: Variant) -> Transaction<'static, Postgres> {
        let mut lock = self.db().begin().await.unwrap();
        sqlx::query("SELECT FROM stock WHERE variant_id = $1 FOR UPDATE")
            .bind(variant.id)
            .execute(&mut *lock)
            .await
            .unwrap();
        lock
    }

    /// How many connections of processes of that name wait for somebody else's lock.
    pub(crate) async fn waiting_for_locks(&self, process: &str) -> i64 {
        sqlx::query_scalar(
            "
            SELECT count(*)
            FROM pg_stat_activity
            WHERE datname = current_database()
                AND application_name = $1
                AND wait_event_type = 'Lock'
            ",
        )
        .bind(process)
        .fetch_one(self.db())
        .await
        .unwrap()
    }

    /// Lets time pass for the orders that wait for their payment.
    pub(crate) async fn age_orders(&self, by: Duration) {
        age(self.db(), None, by).await;
    }

    /// Lets time pass for jobs that wait for another attempt or another wake-up.
    pub(crate) async fn hasten(&self) -> sqlx::Result<()> {
        sqlx::query(
            "
            UPDATE job_ledger
            SET run_at = least(run_at, now()), next_push_at = now()
            WHERE state = 'ready' AND (lease_until IS NULL OR lease_until <= now())
            ",
        )
        .execute(self.db())
        .await?;
        Ok(())
    }

    /// Lets the leases of dead workers run out.
    pub(crate) async fn expire_leases(&self) {
        sqlx::query(
            "
            UPDATE job_ledger
            SET lease_until = now(), next_push_at = now()
            WHERE state = 'ready' AND lease_until > now()
            ",
        )
        .execute(self.db())
        .await
        .unwrap();
    }

    /// The events that the providers have told of and no API has taken.
    pub(crate) fn unheard(&self) -> Vec<String> {
        let providers = &self.cluster.providers;
        let heard: HashSet<_> = providers
            .attempts()
            .into_iter()
            .filter(|attempt| matches!(attempt.outcome, Outcome::Answered(200..=299)))
            .map(|attempt| attempt.event_id)
            .collect();
        let told = providers.events().into_iter().map(|event| event.id);
        told.filter(|id| !heard.contains(id)).collect()
    }

    /// Waits until no order is overdue and, where there are mailers, no job is unfinished and the
    /// providers have told nothing that nobody has heard.
    pub(crate) async fn all_work_ends(&self) {
        let has_mailers = !self.cluster.mailers.is_empty();
        let mut hastened = tokio::time::Instant::now();
        eventually("all work has ended", RECOVERY_MAX, async || {
            if hastened.elapsed() > HASTENED_EVERY {
                self.hasten().await.ok()?;
                hastened = tokio::time::Instant::now();
            }
            let Unfinished { overdue, jobs } = self.unfinished().await.ok()?;
            if overdue > 0 || (jobs > 0 && has_mailers) {
                return None;
            }
            if !has_mailers {
                return Some(());
            }
            // What has been heard meanwhile is work, and the last work may have made news.
            let told = self.cluster.providers.events().len();
            let is_quiet = self.unheard().is_empty()
                && self.unfinished().await.ok()?.jobs == 0
                && self.cluster.providers.events().len() == told;
            is_quiet.then_some(())
        })
        .await;
        let dead: Vec<(String, String)> =
            sqlx::query_as("SELECT kind, last_error FROM job_ledger WHERE state = 'dead'")
                .fetch_all(self.db())
                .await
                .unwrap();
        assert!(dead.is_empty(), "dead jobs: {dead:?}");
    }

    async fn unfinished(&self) -> sqlx::Result<Unfinished> {
        let (overdue, jobs) = sqlx::query_as(
            "
            SELECT
                (SELECT count(*) FROM orders WHERE status = 'awaiting_payment' AND expires_at <= now()),
                (SELECT count(*) FROM job_ledger WHERE state = 'ready')
            ",
        )
        .fetch_one(self.db())
        .await?;
        Ok(Unfinished { overdue, jobs })
    }

    /// How long after its deadline the latest order was ended.
    pub(crate) async fn lateness_max(&self) -> Duration {
        let ms: Option<i64> = sqlx::query_scalar(
            "
            SELECT max(extract(epoch FROM recorded_at - expires_at) * 1000)::bigint
            FROM order_events
            JOIN orders ON orders.id = order_events.order_id
            WHERE kind = 'deadline_passed'
            ",
        )
        .fetch_one(self.db())
        .await
        .unwrap();
        Duration::from_millis(u64::try_from(ms.expect("some order was ended")).unwrap())
    }

    /// Every order has its mails in the inbox, each as often as is forgiven, and there is no other.
    async fn mails_agree(&self) {
        if self.cluster.mailers.is_empty() {
            return;
        }
        let mut copies = HashMap::<String, usize>::new();
        for mail in self.cluster.inbox.mails() {
            *copies.entry(mail.message_id.clone()).or_default() += 1;
        }
        let orders: Vec<(Uuid, bool, bool, bool)> = sqlx::query_as(
            "
            SELECT
                id,
                status = 'paid',
                status = 'cancelled',
                EXISTS (
                    SELECT FROM order_events
                    WHERE order_events.order_id = orders.id AND kind = 'deadline_passed'
                )
            FROM orders
            ",
        )
        .fetch_all(self.db())
        .await
        .unwrap();
        let mut wrong = Vec::new();
        for (order_id, is_paid, is_cancelled, has_expired) in orders {
            let due = [
                ("order-received", true),
                ("reservation-expired", has_expired),
                ("order-confirmed", is_paid),
            ];
            for (template, _) in due.into_iter().filter(|(_, is_due)| *is_due) {
                let count = copies.remove(&message_id(template, order_id)).unwrap_or(0);
                if !(1..=self.copies_max).contains(&count) {
                    wrong.push(format!("{count} copies of {template} for {order_id}"));
                }
            }
            // Who gave the order up after paying may have been told before that it is paid.
            if is_cancelled {
                let count = copies.remove(&message_id("order-confirmed", order_id)).unwrap_or(0);
                if count > self.copies_max {
                    wrong.push(format!("{count} copies of order-confirmed for {order_id}"));
                }
            }
        }
        let refunds: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM refunds WHERE state = 'succeeded'")
                .fetch_all(self.db())
                .await
                .unwrap();
        for refund_id in refunds {
            let count = copies.remove(&message_id("refund-made", refund_id)).unwrap_or(0);
            if !(1..=self.copies_max).contains(&count) {
                wrong.push(format!("{count} copies of refund-made for {refund_id}"));
            }
        }
        // Whoever could no longer pay when the mail was to be sent has got none.
        let declined: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM payments WHERE last_decline IS NOT NULL")
                .fetch_all(self.db())
                .await
                .unwrap();
        for payment_id in declined {
            let count = copies.remove(&message_id("payment-failed", payment_id)).unwrap_or(0);
            if count > self.copies_max {
                wrong.push(format!("{count} copies of payment-failed for {payment_id}"));
            }
        }
        wrong.extend(copies.into_keys().map(|id| format!("nobody asked for the mail {id}")));
        assert!(wrong.is_empty(), "{} mails are wrong: {wrong:#?}", wrong.len());
    }

    /// The providers' books and ours are the same, and no attempt to pay has two objects or was
    /// charged twice.
    async fn books_agree(&self) {
        let providers = &self.cluster.providers;
        let books = providers.ledger();
        let collected = books.captures;
        let captures = collected.iter().map(|captured| ProviderCapture {
            provider: captured.provider.name().to_owned(),
            provider_ref: captured.provider_ref.clone(),
            amount_minor: captured.amount_minor,
            currency: captured.currency.clone(),
            payment_id: captured.payment_id.clone(),
        });
        let refunds = books.refunds.into_iter().map(|refunded| ProviderRefund {
            provider: refunded.provider.name().to_owned(),
            provider_ref: refunded.provider_ref,
            payment_ref: refunded.payment_ref,
            amount_minor: refunded.amount_minor,
            state: if refunded.state == RefundState::Failed { "failed" } else { "made" }.to_owned(),
        });
        let refunds = Some(refunds.collect());
        let ledger = ProviderLedger { captures: captures.collect(), refunds };
        let findings = doctor::compare(self.db(), &ledger).await.unwrap();
        assert!(findings.is_empty(), "the books differ in {}: {findings:#?}", findings.len());

        let charged = collected.into_iter().filter_map(|captured| captured.payment_id);
        assert_eq!(repeated(charged), Vec::<String>::new(), "charged twice");
        for provider in [Provider::Stripe, Provider::Razorpay] {
            let objects = providers.payments(provider).into_iter();
            let opened = objects.filter_map(|object| object.metadata.get("payment_id").cloned());
            assert_eq!(repeated(opened), Vec::<String>::new(), "opened twice at {provider}");
        }
    }
}

/// Lets time pass for the order, or for every order, that waits for its payment.
pub(crate) async fn age(db: &PgPool, order_id: Option<Uuid>, by: Duration) {
    sqlx::query(
        "
        WITH orders AS (
            UPDATE orders
            SET placed_at = placed_at - $1 * interval '1 second',
                expires_at = expires_at - $1 * interval '1 second'
            WHERE status = 'awaiting_payment' AND ($2 IS NULL OR id = $2)
            RETURNING id
        )
        UPDATE holds
        SET expires_at = expires_at - $1 * interval '1 second'
        FROM orders
        WHERE holds.order_id = orders.id
        ",
    )
    .bind(i64::try_from(by.as_secs()).unwrap())
    .bind(order_id)
    .execute(db)
    .await
    .unwrap();
}

/// Orders past their deadline, and jobs to be done.
struct Unfinished {
    overdue: i64,
    jobs: i64,
}

/// The names that come more than once.
fn repeated(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(name.clone())).collect()
}

/// The Message-ID of the one mail of that kind about the order.
pub(crate) fn message_id(template: &str, order_id: Uuid) -> String {
    format!("{template}.{order_id}@shop.example")
}
