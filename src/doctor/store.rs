use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction, types::Json};

/// Opens a transaction in which every statement sees the same moment.
pub(super) async fn snapshot(db: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut tx = db.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *tx)
        .await?;
    // Whole tables are read here, which the processes' own limits forbid.
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *tx).await?;
    Ok(tx)
}

/// Runs one invariant's query; the rows are what breaks it.
pub(super) async fn violations(
    snapshot: &mut PgConnection,
    sql: &'static str,
    limit: usize,
) -> sqlx::Result<Vec<(String, String)>> {
    let mut rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(snapshot).await?;
    rows.truncate(limit);
    Ok(rows)
}

/// The same for a query about a list that is not ours.
pub(super) async fn violations_of(
    snapshot: &mut PgConnection,
    sql: &'static str,
    list: &[impl Serialize + Sync],
    limit: usize,
) -> sqlx::Result<Vec<(String, String)>> {
    let list = Json(list);
    let mut rows: Vec<(String, String)> =
        sqlx::query_as(sql).bind(list).fetch_all(snapshot).await?;
    rows.truncate(limit);
    Ok(rows)
}
