//! What the database refuses by itself, whoever asks.

use holdfast::kernel::database::violated_constraint;
use sqlx::AssertSqlSafe;

use crate::support::app::TestApp;

impl TestApp {
    /// The statement fails; what is returned says why: the constraint's name, or the error's code.
    async fn refusal(&self, sql: &str) -> String {
        let error = sqlx::query(AssertSqlSafe(sql)).execute(&self.db).await.unwrap_err();
        let code = error.as_database_error().unwrap().code().unwrap().into_owned();
        violated_constraint(&error).map_or(code, str::to_owned)
    }
}

#[tokio::test]
async fn an_order_cannot_go_where_no_order_goes() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 1)]).await;
        guest.cancel(id).await.assert_status(200);

        for status in ["awaiting_payment", "expired"] {
            let refusal = app.refusal(&format!("UPDATE orders SET status = '{status}'")).await;
            assert_eq!(refusal, "orders_transition_legal", "{status}");
        }
        let unknown = app.refusal("UPDATE orders SET status = 'lost'").await;
        assert_eq!(unknown, "orders_transition_legal");

        assert_eq!(app.status_of(id).await, "cancelled");
    })
    .await;
}

#[tokio::test]
async fn the_books_can_only_be_added_to() {
    const RESTRICT_VIOLATION: &str = "23001";
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.guest().await.order_for(&[(mug, 1)]).await;
        let before = app.books().await;

        for sql in [
            "UPDATE stock_ledger SET quantity = quantity + 1",
            "DELETE FROM stock_ledger",
            "TRUNCATE stock_ledger",
            "UPDATE order_events SET kind = 'paid'",
            "DELETE FROM order_events",
            "TRUNCATE order_events",
        ] {
            assert_eq!(app.refusal(sql).await, RESTRICT_VIOLATION, "{sql}");
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn no_counter_leaves_its_bounds_and_no_total_its_sum() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.guest().await.order_for(&[(mug, 1)]).await;
        let before = app.books().await;

        for (sql, constraint) in [
            ("UPDATE stock SET reserved = 6", "stock_reserved_within_on_hand"),
            ("UPDATE stock SET reserved = -1", "stock_reserved_within_on_hand"),
            ("UPDATE stock SET on_hand = 0", "stock_reserved_within_on_hand"),
            ("UPDATE holds SET quantity = 0", "holds_quantity_positive"),
            ("UPDATE orders SET total_minor = total_minor - 1", "orders_total_adds_up"),
            (
                "UPDATE orders SET expires_at = expires_at + interval '1 millisecond'",
                "orders_expires_on_whole_second",
            ),
            ("INSERT INTO holds SELECT * FROM holds", "holds_pk"),
            ("INSERT INTO idempotency_keys SELECT * FROM idempotency_keys", "idempotency_keys_pk"),
        ] {
            assert_eq!(app.refusal(sql).await, constraint, "{sql}");
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}
