use sqlx::PgExecutor;
use uuid::Uuid;

use super::{ClaimKey, Fingerprint, NewRecord, Recorded};

/// Claims each key until the transaction ends; `false` where another transaction has it.
///
/// Must be a statement of its own, before [`find`]: a statement sees only what was committed
/// before it began. Equal keys of one slice are all claimed; the caller lets one of them act.
pub async fn claim(tx: impl PgExecutor<'_>, keys: &[ClaimKey<'_>]) -> sqlx::Result<Vec<bool>> {
    let locks: Vec<i64> = keys.iter().map(ClaimKey::lock).collect();
    sqlx::query_scalar!(
        r#"
        SELECT pg_try_advisory_xact_lock(lock) AS "claimed!"
        FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (lock, place)
        ORDER BY place
        "#,
        &locks,
    )
    .fetch_all(tx)
    .await
}

/// Reads what each key stands for, in the order of `keys`.
///
/// `LATERAL` with `LIMIT` keeps the planner at one index lookup a key, however many keys it is given.
pub async fn find(
    db: impl PgExecutor<'_>,
    keys: &[ClaimKey<'_>],
) -> sqlx::Result<Vec<Option<Recorded>>> {
    let (owners, operations, names) = columns(keys.iter());
    let rows = sqlx::query!(
        r#"
        SELECT wanted.place AS "place!", known.fingerprint, known.subject_id, known.answer
        FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY
            AS wanted (owner_id, operation, key, place)
        CROSS JOIN LATERAL (
            SELECT fingerprint, subject_id, answer
            FROM idempotency_keys
            WHERE idempotency_keys.owner_id = wanted.owner_id
                AND idempotency_keys.operation = wanted.operation
                AND idempotency_keys.key = wanted.key
            LIMIT 1
        ) AS known
        "#,
        &owners,
        &operations as &[&str],
        &names as &[&str],
    )
    .fetch_all(db)
    .await?;

    let mut found = vec![None; keys.len()];
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        let Some(slot) = place.and_then(|place| found.get_mut(place)) else { continue };
        *slot = Some(Recorded {
            fingerprint: row.fingerprint.try_into().ok().map(Fingerprint),
            subject_id: row.subject_id,
            answer: row.answer,
        });
    }
    Ok(found)
}

/// Records what each key stands for from now on.
pub async fn record(tx: impl PgExecutor<'_>, records: &[NewRecord<'_>]) -> sqlx::Result<()> {
    let (owners, operations, names) = columns(records.iter().map(|record| &record.claim));
    let fingerprints: Vec<&[u8]> = records.iter().map(|record| &record.fingerprint.0[..]).collect();
    let subjects: Vec<Uuid> = records.iter().map(|record| record.subject_id).collect();
    let answers: Vec<_> =
        records.iter().map(|record| &record.answer).map(sqlx::types::Json).collect();
    sqlx::query!(
        r#"
        INSERT INTO idempotency_keys (owner_id, operation, key, fingerprint, subject_id, answer)
        SELECT *
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::uuid[], $6::jsonb[])
        "#,
        &owners,
        &operations as &[&str],
        &names as &[&str],
        &fingerprints as &[&[u8]],
        &subjects,
        &answers as &[sqlx::types::Json<&serde_json::Value>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets the oldest keys that are past their 48 hours, at most `limit` of them; returns how many.
pub async fn purge(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
        WHERE (owner_id, operation, key) IN (
            SELECT owner_id, operation, key
            FROM idempotency_keys
            WHERE created_at < now() - interval '48 hours'
            ORDER BY created_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// One array a column, as `unnest` takes them.
fn columns<'a>(
    keys: impl Iterator<Item = &'a ClaimKey<'a>>,
) -> (Vec<Uuid>, Vec<&'static str>, Vec<&'a str>) {
    let (mut owners, mut operations, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        owners.push(key.owner_id.uuid());
        operations.push(key.operation);
        names.push(key.key.as_str());
    }
    (owners, operations, names)
}
