use sqlx::PgExecutor;

use crate::kernel::OrderId;

/// The order that people call so.
pub(super) async fn order_by_number(
    db: impl PgExecutor<'_>,
    number: &str,
) -> sqlx::Result<Option<OrderId>> {
    let order = sqlx::query!(
        r#"
        SELECT id
        FROM orders
        WHERE number = $1
        "#,
        number,
    )
    .fetch_optional(db)
    .await?;
    Ok(order.map(|order| order.id))
}
