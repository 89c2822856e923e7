//! The SQL of refunds and of what was restocked with them.

use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Cause, Refund, State};
use crate::{
    kernel::{OrderId, RefundId, UserId, VariantId},
    payments::{Provider, store::unreadable},
};

/// A refund to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRefund {
    pub id: RefundId,
    pub capture_id: Uuid,
    pub order_id: OrderId,
    pub provider: Provider,
    pub amount_minor: i64,
    pub currency: String,
    pub state: State,
    pub cause: Cause,
    pub reason: Option<String>,
    pub requested_by: Option<UserId>,
    /// Known beforehand only for one that was made in the provider's dashboard.
    pub provider_ref: Option<String>,
}

/// Writes the refunds. Their orders are locked.
pub async fn insert(tx: impl PgExecutor<'_>, refunds: &[NewRefund]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = refunds.iter().map(|new| new.id.uuid()).collect();
    let capture_ids: Vec<Uuid> = refunds.iter().map(|new| new.capture_id).collect();
    let order_ids: Vec<Uuid> = refunds.iter().map(|new| new.order_id.uuid()).collect();
    let providers: Vec<&str> = refunds.iter().map(|new| new.provider.name()).collect();
    let amounts: Vec<i64> = refunds.iter().map(|new| new.amount_minor).collect();
    let currencies: Vec<&str> = refunds.iter().map(|new| new.currency.as_str()).collect();
    let states: Vec<&str> = refunds.iter().map(|new| new.state.name()).collect();
    let causes: Vec<&str> = refunds.iter().map(|new| new.cause.name()).collect();
    let reasons: Vec<Option<&str>> = refunds.iter().map(|new| new.reason.as_deref()).collect();
    let staff: Vec<Option<Uuid>> =
        refunds.iter().map(|new| new.requested_by.map(UserId::uuid)).collect();
    let refs: Vec<Option<&str>> = refunds.iter().map(|new| new.provider_ref.as_deref()).collect();
    sqlx::query!(
        r#"
        INSERT INTO refunds (
            id, capture_id, order_id, provider, amount_minor, currency, state, cause, reason,
            requested_by, provider_ref
        )
        SELECT *
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::uuid[], $11::text[]
        )
        "#,
        &ids,
        &capture_ids,
        &order_ids,
        &providers as &[&str],
        &amounts,
        &currencies as &[&str],
        &states as &[&str],
        &causes as &[&str],
        &reasons as &[Option<&str>],
        &staff as &[Option<Uuid>],
        &refs as &[Option<&str>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The refund of that id.
pub async fn find(db: impl PgExecutor<'_>, id: RefundId) -> sqlx::Result<Option<Refund>> {
    let row = sqlx::query_as!(
        RefundRow,
        r#"
        SELECT
            id, capture_id, order_id, provider, amount_minor, currency, state, cause, reason,
            requested_by, provider_ref, failure, key_generation, created_at
        FROM refunds
        WHERE id = $1
        "#,
        id.uuid(),
    )
    .fetch_optional(db)
    .await?;
    row.map(Refund::try_from).transpose()
}

/// The refund that the provider knows by that name.
pub async fn find_by_ref(
    db: impl PgExecutor<'_>,
    provider: Provider,
    provider_ref: &str,
) -> sqlx::Result<Option<Refund>> {
    let row = sqlx::query_as!(
        RefundRow,
        r#"
        SELECT
            id, capture_id, order_id, provider, amount_minor, currency, state, cause, reason,
            requested_by, provider_ref, failure, key_generation, created_at
        FROM refunds
        WHERE provider = $1 AND provider_ref = $2
        "#,
        provider.name(),
        provider_ref,
    )
    .fetch_optional(db)
    .await?;
    row.map(Refund::try_from).transpose()
}

/// All refunds of the orders, the oldest first.
pub async fn of_orders(
    db: impl PgExecutor<'_>,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<Refund>> {
    let order_ids: Vec<Uuid> = order_ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query_as!(
        RefundRow,
        r#"
        SELECT
            id, capture_id, order_id, provider, amount_minor, currency, state, cause, reason,
            requested_by, provider_ref, failure, key_generation, created_at
        FROM refunds
        WHERE order_id = ANY($1)
        ORDER BY id
        "#,
        &order_ids,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Refund::try_from).collect()
}

/// Writes where a refund stands whose order is locked. What is known of it already stays.
pub async fn set_state(
    tx: impl PgExecutor<'_>,
    id: RefundId,
    state: State,
    provider_ref: Option<&str>,
    failure: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE refunds
        SET state = $2,
            provider_ref = coalesce(provider_ref, $3),
            failure = coalesce($4, failure),
            updated_at = now()
        WHERE id = $1
        "#,
        id.uuid(),
        state.name(),
        provider_ref,
        failure,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the refund on to the key after `generation`, unless somebody else did or it was made meanwhile.
pub async fn next_key(db: impl PgExecutor<'_>, id: RefundId, generation: i32) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE refunds
        SET key_generation = key_generation + 1, updated_at = now()
        WHERE id = $1 AND key_generation = $2 AND state = 'requested'
        "#,
        id.uuid(),
        generation,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How long after it was asked for a refund is looked at that may have come back: a bank may take weeks.
const MAY_COME_BACK_DAYS: i32 = 30;

/// Takes up to `limit` refunds of the provider that are to be looked at now; each is due again later,
/// after a pause that doubles with every look up to a day.
///
/// Those of Razorpay that succeeded are looked at, too, for 30 days: it lists refunds by when they were
/// made, so that one that came back later is told by a webhook or not at all.
pub async fn take_due(
    db: impl PgExecutor<'_>,
    provider: Provider,
    limit: i64,
) -> sqlx::Result<Vec<Refund>> {
    let rows = sqlx::query_as!(
        RefundRow,
        r#"
        UPDATE refunds
        SET looks = looks + 1,
            next_look_at = CASE
                WHEN state <> 'succeeded' OR created_at > now() - make_interval(days => $3)
                THEN now()
                    + least(interval '2 minutes' * power(2, least(looks, 20)), interval '1 day')
            END
        WHERE id IN (
            SELECT id
            FROM refunds
            WHERE (
                    state IN ('requested', 'pending')
                    OR (state = 'succeeded' AND provider = 'razorpay')
                )
                AND next_look_at <= now()
                AND provider = $1
            ORDER BY next_look_at
            LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED
        )
        RETURNING
            id, capture_id, order_id, provider, amount_minor, currency, state, cause, reason,
            requested_by, provider_ref, failure, key_generation, created_at
        "#,
        provider.name(),
        limit,
        MAY_COME_BACK_DAYS,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Refund::try_from).collect()
}

/// Lets the refunds be looked at in two minutes, as if the last look had not been: the provider did not
/// answer.
pub async fn look_again(db: impl PgExecutor<'_>, ids: &[RefundId]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        r#"
        UPDATE refunds
        SET looks = greatest(looks - 1, 0),
            next_look_at = now() + interval '2 minutes'
        WHERE id IN (
            SELECT id
            FROM refunds
            WHERE id = ANY($1) AND next_look_at IS NOT NULL
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        &ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets every refund of the provider be looked at now that has no end yet.
pub async fn look_now(db: impl PgExecutor<'_>, provider: Provider) -> sqlx::Result<u64> {
    let brought_forward = sqlx::query!(
        r#"
        UPDATE refunds
        SET next_look_at = now()
        WHERE id IN (
            SELECT id
            FROM refunds
            WHERE state IN ('requested', 'pending') AND next_look_at > now() AND provider = $1
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

/// Units of an order's variant that went back on sale with its refunds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restocked {
    pub variant_id: VariantId,
    pub quantity: i64,
}

/// What went back on sale of the order so far, by variant.
pub async fn restocked(db: impl PgExecutor<'_>, order_id: OrderId) -> sqlx::Result<Vec<Restocked>> {
    let rows = sqlx::query!(
        r#"
        SELECT variant_id, sum(quantity)::bigint AS "quantity!"
        FROM restocks
        WHERE order_id = $1
        GROUP BY variant_id
        ORDER BY variant_id
        "#,
        order_id.uuid(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Restocked { variant_id: row.variant_id.into(), quantity: row.quantity })
        .collect())
}

/// What went back on sale with each refund of the order.
pub async fn restocks_of(
    db: impl PgExecutor<'_>,
    order_id: OrderId,
) -> sqlx::Result<Vec<(RefundId, Restocked)>> {
    let rows = sqlx::query!(
        r#"
        SELECT refund_id, variant_id, quantity
        FROM restocks
        WHERE order_id = $1
        ORDER BY refund_id, variant_id
        "#,
        order_id.uuid(),
    )
    .fetch_all(db)
    .await?;
    let restock =
        |variant_id: Uuid, quantity| Restocked { variant_id: variant_id.into(), quantity };
    Ok(rows
        .into_iter()
        .map(|row| (row.refund_id.into(), restock(row.variant_id, row.quantity)))
        .collect())
}

/// Notes what goes back on sale with the refund.
pub async fn insert_restocks(
    tx: &mut PgConnection,
    order_id: OrderId,
    refund_id: RefundId,
    units: &[Restocked],
) -> sqlx::Result<()> {
    let variants: Vec<Uuid> = units.iter().map(|unit| unit.variant_id.uuid()).collect();
    let quantities: Vec<i64> = units.iter().map(|unit| unit.quantity).collect();
    sqlx::query!(
        r#"
        INSERT INTO restocks (order_id, refund_id, variant_id, quantity)
        SELECT $1, $2, unit.variant_id, unit.quantity
        FROM unnest($3::uuid[], $4::bigint[]) AS unit (variant_id, quantity)
        "#,
        order_id.uuid(),
        refund_id.uuid(),
        &variants,
        &quantities,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A refund as it is stored.
struct RefundRow {
    id: Uuid,
    capture_id: Uuid,
    order_id: Uuid,
    provider: String,
    amount_minor: i64,
    currency: String,
    state: String,
    cause: String,
    reason: Option<String>,
    requested_by: Option<Uuid>,
    provider_ref: Option<String>,
    failure: Option<String>,
    key_generation: i32,
    created_at: OffsetDateTime,
}

impl TryFrom<RefundRow> for Refund {
    type Error = sqlx::Error;

    fn try_from(row: RefundRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id.into(),
            capture_id: row.capture_id,
            order_id: row.order_id.into(),
            provider: row.provider.parse().map_err(unreadable)?,
            amount_minor: row.amount_minor,
            currency: row.currency,
            state: row.state.parse().map_err(unreadable)?,
            cause: row.cause.parse().map_err(unreadable)?,
            reason: row.reason,
            requested_by: row.requested_by.map(UserId::from),
            provider_ref: row.provider_ref,
            failure: row.failure,
            key_generation: row.key_generation,
            created_at: row.created_at,
        })
    }
}
