//! The SQL of attempts to pay and of money that came in. Functions that write for a slice are one
//! statement each.

use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Fate, Mismatch, Payment, Provider, State, Surplus};
use crate::kernel::{Money, OrderId, PaymentId};

/// An attempt to be committed before its provider is asked.
#[derive(Debug, Clone, Copy)]
pub struct NewPayment {
    pub id: PaymentId,
    pub order_id: OrderId,
    pub provider: Provider,
    pub livemode: bool,
    /// The order's total.
    pub amount: Money,
}

/// Writes an attempt in state `creating`.
///
/// The index `payments_one_open_per_order` refuses it while the order has another under way.
pub async fn insert(tx: impl PgExecutor<'_>, new: &NewPayment) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO payments (id, order_id, provider, livemode, amount_minor, currency)
        VALUES ($1, $2, $3, $4, $5, $6)
        "#,
        new.id as PaymentId,
        new.order_id as OrderId,
        new.provider.name(),
        new.livemode,
        new.amount.minor(),
        new.amount.currency().code(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The payment of that id.
pub async fn find(db: impl PgExecutor<'_>, id: PaymentId) -> sqlx::Result<Option<Payment>> {
    Ok(find_many(db, &[id]).await?.pop())
}

/// Those of the payments that exist, in the order of their ids.
pub async fn find_many(db: impl PgExecutor<'_>, ids: &[PaymentId]) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE id = ANY($1)
        ORDER BY id
        "#,
        &uuids(ids),
    )
    .fetch_all(db)
    .await?;
    payments(rows)
}

/// The payments that are known by one of the providers' names or by one of the ids.
pub async fn find_named(
    db: impl PgExecutor<'_>,
    names: &[(Provider, &str)],
    ids: &[PaymentId],
) -> sqlx::Result<Vec<Payment>> {
    let (providers, refs) = columns(names);
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE id IN (
            SELECT unnest($3::uuid[])
            UNION
            SELECT payments.id
            FROM unnest($1::text[], $2::text[]) AS named (provider, provider_ref)
            JOIN payments USING (provider, provider_ref)
        )
        ORDER BY id
        "#,
        &providers as &[&str],
        &refs as &[&str],
        &uuids(ids),
    )
    .fetch_all(db)
    .await?;
    payments(rows)
}

/// How many attempts of one order are shown: nobody tries that often in earnest.
const ATTEMPTS_MAX: i64 = 100;

/// The attempts to pay the order, the newest first.
pub async fn of_order(db: impl PgExecutor<'_>, order_id: OrderId) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE order_id = $1
        ORDER BY id DESC
        LIMIT $2
        "#,
        order_id as OrderId,
        ATTEMPTS_MAX,
    )
    .fetch_all(db)
    .await?;
    payments(rows)
}

/// Locks the attempts under way of the orders, one an order at most. The orders are locked.
pub async fn open_of(tx: impl PgExecutor<'_>, order_ids: &[OrderId]) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE order_id = ANY($1) AND state IN ('creating', 'open', 'processing', 'authorized')
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await?;
    payments(rows)
}

/// Locks the payments. Their orders are locked.
pub async fn lock(tx: impl PgExecutor<'_>, ids: &[PaymentId]) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE id = ANY($1)
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        &uuids(ids),
    )
    .fetch_all(tx)
    .await?;
    payments(rows)
}

/// Locks every attempt to pay one of the orders. The orders are locked, so there will be no more.
pub async fn lock_of(tx: impl PgExecutor<'_>, order_ids: &[OrderId]) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        SELECT
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        FROM payments
        WHERE order_id = ANY($1)
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await?;
    payments(rows)
}

/// What is to be written of a payment that somebody has locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub id: PaymentId,
    pub state: State,
    /// The provider's name for it; one that is known already stays.
    pub provider_ref: Option<String>,
    /// A newer decline; without one the last stays.
    pub last_decline: Option<String>,
}

/// Writes the changes of the locked payments.
pub async fn set_states(tx: impl PgExecutor<'_>, changes: &[StateChange]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = changes.iter().map(|change| change.id.uuid()).collect();
    let states: Vec<&str> = changes.iter().map(|change| change.state.name()).collect();
    let refs: Vec<Option<&str>> =
        changes.iter().map(|change| change.provider_ref.as_deref()).collect();
    let declines: Vec<Option<&str>> =
        changes.iter().map(|change| change.last_decline.as_deref()).collect();
    sqlx::query!(
        r#"
        UPDATE payments
        SET state = change.state,
            provider_ref = coalesce(payments.provider_ref, change.provider_ref),
            last_decline = coalesce(change.last_decline, payments.last_decline),
            updated_at = now()
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
            AS change (id, state, provider_ref, last_decline)
        WHERE payments.id = change.id
        "#,
        &ids,
        &states as &[&str],
        &refs as &[Option<&str>],
        &declines as &[Option<&str>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the provider refused to have the payment; `false` if it is no longer being created.
pub async fn reject(db: impl PgExecutor<'_>, id: PaymentId) -> sqlx::Result<bool> {
    let rejected = sqlx::query!(
        r#"
        UPDATE payments
        SET state = 'rejected', updated_at = now()
        WHERE id = $1 AND state = 'creating'
        "#,
        id as PaymentId,
    )
    .execute(db)
    .await?;
    Ok(rejected.rows_affected() == 1)
}

/// Moves the payment on to the key after `generation`; `false` if somebody else did, or if nobody needs
/// the payment at its provider any more.
///
/// One that is given up still does: only what exists there can be withdrawn.
pub async fn next_key(
    db: impl PgExecutor<'_>,
    id: PaymentId,
    generation: i32,
) -> sqlx::Result<bool> {
    let moved = sqlx::query!(
        r#"
        UPDATE payments
        SET key_generation = key_generation + 1, updated_at = now()
        WHERE id = $1 AND key_generation = $2 AND state IN ('creating', 'cancelling')
        "#,
        id as PaymentId,
        generation,
    )
    .execute(db)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Takes up to `limit` of the provider's payments that are to be looked at now; each is due again later,
/// after a pause that doubles with every look up to six hours.
///
/// Those that are over are among them a last time. Razorpay's cancelled ones are so six days after they
/// were made: until then their shoppers' banks may still set money aside.
pub async fn take_due(
    db: impl PgExecutor<'_>,
    provider: Provider,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    let rows = sqlx::query_as!(
        PaymentRow,
        r#"
        UPDATE payments
        SET looks = looks + 1,
            next_look_at = CASE
                WHEN state IN ('captured', 'rejected')
                    OR state = 'cancelled'
                        AND (provider = 'stripe' OR created_at < now() - interval '6 days')
                THEN NULL
                ELSE now() + least(interval '2 minutes' * power(2, least(looks, 20)), interval '6 hours')
            END
        WHERE id IN (
            SELECT id
            FROM payments
            WHERE next_look_at <= now() AND provider = $1
            ORDER BY next_look_at
            LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED
        )
        RETURNING
            id, order_id, provider, livemode, state, amount_minor, currency, key_generation,
            provider_ref, last_decline, created_at
        "#,
        provider.name(),
        limit,
    )
    .fetch_all(db)
    .await?;
    payments(rows)
}

/// Lets the payments be looked at in two minutes, as if the last look had not been: the provider did
/// not answer.
pub async fn look_again(db: impl PgExecutor<'_>, ids: &[PaymentId]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE payments
        SET looks = greatest(looks - 1, 0),
            next_look_at = now() + interval '2 minutes'
        WHERE id IN (
            SELECT id
            FROM payments
            WHERE id = ANY($1) AND next_look_at IS NOT NULL
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        &uuids(ids),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets every payment be looked at now that its provider may still know something new of.
pub async fn look_now(db: impl PgExecutor<'_>, provider: Provider) -> sqlx::Result<u64> {
    let brought_forward = sqlx::query!(
        r#"
        UPDATE payments
        SET next_look_at = now()
        WHERE id IN (
            SELECT id
            FROM payments
            WHERE next_look_at > now() AND provider = $1 AND state NOT IN ('captured', 'rejected')
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        provider.name(),
    )
    .execute(db)
    .await?;
    Ok(brought_forward.rows_affected())
}

/// Money that came in, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCapture {
    pub id: Uuid,
    pub payment_id: PaymentId,
    pub order_id: OrderId,
    pub provider: Provider,
    /// The provider's name for the money.
    pub charge_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    pub fate: Fate,
}

/// Records money that came in.
///
/// The index `captures_provider_ref_unique` refuses money that is recorded already.
pub async fn insert_captures(tx: impl PgExecutor<'_>, captures: &[NewCapture]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = captures.iter().map(|new| new.id).collect();
    let payment_ids: Vec<Uuid> = captures.iter().map(|new| new.payment_id.uuid()).collect();
    let order_ids: Vec<Uuid> = captures.iter().map(|new| new.order_id.uuid()).collect();
    let providers: Vec<&str> = captures.iter().map(|new| new.provider.name()).collect();
    let refs: Vec<&str> = captures.iter().map(|new| new.charge_ref.as_str()).collect();
    let amounts: Vec<i64> = captures.iter().map(|new| new.amount_minor).collect();
    let currencies: Vec<&str> = captures.iter().map(|new| new.currency.as_str()).collect();
    let fates: Vec<&str> = captures.iter().map(|new| new.fate.name()).collect();
    let reasons: Vec<Option<&str>> = captures.iter().map(|new| new.fate.reason()).collect();
    sqlx::query!(
        r#"
        INSERT INTO captures (
            id, payment_id, order_id, provider, provider_ref, amount_minor, currency, fate, reason
        )
        SELECT *
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::text[],
            $8::text[], $9::text[]
        )
        "#,
        &ids,
        &payment_ids,
        &order_ids,
        &providers as &[&str],
        &refs as &[&str],
        &amounts,
        &currencies as &[&str],
        &fates as &[&str],
        &reasons as &[Option<&str>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Money that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub id: Uuid,
    pub payment_id: PaymentId,
    pub order_id: OrderId,
    pub provider: Provider,
    /// The provider's name for the money.
    pub charge_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    pub fate: Fate,
    pub captured_at: OffsetDateTime,
}

/// All money that came in for the orders, the oldest first.
pub async fn captures_of(
    db: impl PgExecutor<'_>,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<Capture>> {
    captures_known(db, order_ids, &[]).await
}

/// All money that came in for the orders, and what is recorded under the names for whatever order;
/// the oldest first.
pub async fn captures_known(
    db: impl PgExecutor<'_>,
    order_ids: &[OrderId],
    charges: &[(Provider, &str)],
) -> sqlx::Result<Vec<Capture>> {
    let (providers, refs) = columns(charges);
    let rows = sqlx::query_as!(
        CaptureRow,
        r#"
        SELECT
            id, payment_id, order_id, provider, provider_ref, amount_minor, currency, fate, reason,
            captured_at
        FROM captures
        WHERE id IN (
            SELECT captures.id
            FROM captures
            WHERE captures.order_id = ANY($3)
            UNION
            SELECT captures.id
            FROM unnest($1::text[], $2::text[]) AS charge (provider, provider_ref)
            JOIN captures USING (provider, provider_ref)
        )
        ORDER BY id
        "#,
        &providers as &[&str],
        &refs as &[&str],
        &uuids(order_ids),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Capture::try_from).collect()
}

/// The money of that id.
pub async fn find_capture(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Capture>> {
    let row = sqlx::query_as!(
        CaptureRow,
        r#"
        SELECT
            id, payment_id, order_id, provider, provider_ref, amount_minor, currency, fate, reason,
            captured_at
        FROM captures
        WHERE id = $1
        "#,
        id,
    )
    .fetch_optional(db)
    .await?;
    row.map(Capture::try_from).transpose()
}

/// Up to `limit` of the money that nobody has decided about, the newest first; `before` is the last of
/// the page before.
pub async fn quarantined(
    db: impl PgExecutor<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Capture>> {
    let rows = sqlx::query_as!(
        CaptureRow,
        r#"
        SELECT
            id, payment_id, order_id, provider, provider_ref, amount_minor, currency, fate, reason,
            captured_at
        FROM captures
        WHERE fate = 'quarantined' AND ($1::uuid IS NULL OR id < $1)
        ORDER BY id DESC
        LIMIT $2
        "#,
        before,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Capture::try_from).collect()
}

/// Writes what a person decided about quarantined money, and whose it is from now on; `false` where it
/// is not quarantined. Both orders are locked.
pub async fn resolve(
    tx: impl PgExecutor<'_>,
    id: Uuid,
    order_id: OrderId,
    fate: Fate,
) -> sqlx::Result<bool> {
    let resolved = sqlx::query!(
        r#"
        UPDATE captures
        SET fate = $3, reason = $4, order_id = $2
        WHERE id = $1 AND fate = 'quarantined'
        "#,
        id,
        order_id as OrderId,
        fate.name(),
        fate.reason(),
    )
    .execute(tx)
    .await?;
    Ok(resolved.rows_affected() == 1)
}

/// Up to `limit` of the money that did not pay its order, the oldest first.
pub async fn not_accepted(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<Capture>> {
    let rows = sqlx::query_as!(
        CaptureRow,
        r#"
        SELECT
            id, payment_id, order_id, provider, provider_ref, amount_minor, currency, fate, reason,
            captured_at
        FROM captures
        WHERE fate <> 'accepted'
        ORDER BY captured_at
        LIMIT $1
        "#,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Capture::try_from).collect()
}

/// A payment as it is stored.
struct PaymentRow {
    id: PaymentId,
    order_id: OrderId,
    provider: String,
    livemode: bool,
    state: String,
    amount_minor: i64,
    currency: String,
    key_generation: i32,
    provider_ref: Option<String>,
    last_decline: Option<String>,
    created_at: OffsetDateTime,
}

impl TryFrom<PaymentRow> for Payment {
    type Error = sqlx::Error;

    fn try_from(row: PaymentRow) -> sqlx::Result<Self> {
        let currency = row.currency.parse().map_err(unreadable)?;
        Ok(Self {
            id: row.id,
            order_id: row.order_id,
            provider: row.provider.parse().map_err(unreadable)?,
            livemode: row.livemode,
            state: row.state.parse().map_err(unreadable)?,
            amount: Money::new(row.amount_minor, currency).map_err(unreadable)?,
            key_generation: row.key_generation,
            provider_ref: row.provider_ref,
            last_decline: row.last_decline,
            created_at: row.created_at,
        })
    }
}

fn payments(rows: Vec<PaymentRow>) -> sqlx::Result<Vec<Payment>> {
    rows.into_iter().map(Payment::try_from).collect()
}

/// A capture as it is stored.
struct CaptureRow {
    id: Uuid,
    payment_id: PaymentId,
    order_id: OrderId,
    provider: String,
    provider_ref: String,
    amount_minor: i64,
    currency: String,
    fate: String,
    reason: Option<String>,
    captured_at: OffsetDateTime,
}

impl TryFrom<CaptureRow> for Capture {
    type Error = sqlx::Error;

    fn try_from(row: CaptureRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            payment_id: row.payment_id,
            order_id: row.order_id,
            provider: row.provider.parse().map_err(unreadable)?,
            charge_ref: row.provider_ref,
            amount_minor: row.amount_minor,
            currency: row.currency,
            fate: fate(&row.fate, row.reason.as_deref())?,
            captured_at: row.captured_at,
        })
    }
}

/// Everything that can become of money.
const FATES: [Fate; 10] = [
    Fate::Accepted,
    Fate::RefundDue(Surplus::OutOfStock),
    Fate::RefundDue(Surplus::OrderCancelled),
    Fate::RefundDue(Surplus::AlreadyPaid),
    Fate::RefundDue(Surplus::Refused(Mismatch::WrongAmount)),
    Fate::RefundDue(Surplus::Refused(Mismatch::WrongCurrency)),
    Fate::RefundDue(Surplus::Refused(Mismatch::ForeignObject)),
    Fate::Quarantined(Mismatch::WrongAmount),
    Fate::Quarantined(Mismatch::WrongCurrency),
    Fate::Quarantined(Mismatch::ForeignObject),
];

fn fate(name: &str, reason: Option<&str>) -> sqlx::Result<Fate> {
    FATES
        .into_iter()
        .find(|fate| fate.name() == name && fate.reason() == reason)
        .ok_or_else(|| sqlx::Error::Decode(format!("no capture is {name} ({reason:?})").into()))
}

pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// The providers and their names for something, as two columns.
fn columns<'a>(names: &[(Provider, &'a str)]) -> (Vec<&'static str>, Vec<&'a str>) {
    names.iter().map(|(provider, name)| (provider.name(), *name)).unzip()
}

fn uuids<I: Copy + Into<Uuid>>(ids: &[I]) -> Vec<Uuid> {
    ids.iter().map(|&id| id.into()).collect()
}
