//! The shop as its owner sees it: shelves, orders and books, behind the API's back.

use std::collections::BTreeMap;

use holdfast::{
    audit::Actor,
    catalog::{self, Description, NewProduct, NewVariant, Sale, Sku, Slug, Title},
    checkout::{PlaceOrder, RequestedLine},
    idempotency::{Fingerprint, Key},
    inventory::{ReceiveStock, receive_stock},
    kernel::{EmailAddress, Money, OrderId, UserId},
    orders::OrderNumber,
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::app::TestApp;

/// Something to buy, at a price in USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) id: Uuid,
    pub(crate) price: i64,
}

/// What every variant costs in these tests, in cents: no round number, so that sums tell.
pub(crate) const PRICE: i64 = 12_99;

impl TestApp {
    /// Puts a new variant on sale.
    pub(crate) async fn product_with_stock(&self, units: i64) -> Variant {
        let name = Uuid::now_v7().simple().to_string();
        let new = NewProduct {
            slug: Slug::parse(&format!("harbour-mug-{name}")).unwrap(),
            title: Title::parse("Harbour mug").unwrap(),
            description: Description::parse("Stoneware.").unwrap(),
            variants: vec![NewVariant {
                sku: Sku::parse(&format!("MUG-{name}")).unwrap(),
                title: Title::parse("Deep blue").unwrap(),
                prices: vec![usd(PRICE)],
                sale: Sale::default(),
            }],
        };
        let staff_id = UserId::generate();
        let actor = Actor { id: staff_id, request_id: None };
        let product = catalog::create_product(&self.db, new, actor).await.unwrap();
        let id = product.variants[0].id;
        if units > 0 {
            let receipt = ReceiveStock {
                receipt_id: Uuid::now_v7(),
                variant_id: id,
                quantity: units,
                staff_id,
                key: Key::parse(Some(&name)).unwrap(),
                request_id: None,
            };
            receive_stock(&self.db, &receipt).await.unwrap();
        }
        Variant { id: id.uuid(), price: PRICE }
    }

    /// The variant's counters: units on hand, and those of them that orders hold.
    pub(crate) async fn stock_of(&self, variant: Variant) -> (i64, i64) {
        sqlx::query_as("SELECT on_hand, reserved FROM stock WHERE variant_id = $1")
            .bind(variant.id)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// Lets the order grow older by moving its moments into the past.
    pub(crate) async fn age(&self, order_id: Uuid, minutes: i32) {
        let mut tx = self.db.begin().await.unwrap();
        let aged = sqlx::query(
            "
            UPDATE orders
            SET placed_at = placed_at - make_interval(mins => $2),
                expires_at = expires_at - make_interval(mins => $2)
            WHERE id = $1
            ",
        )
        .bind(order_id)
        .bind(minutes)
        .execute(&mut *tx)
        .await
        .unwrap();
        assert_eq!(aged.rows_affected(), 1, "there is no order {order_id}");
        sqlx::query(
            "UPDATE holds SET expires_at = expires_at - make_interval(mins => $2) WHERE order_id = $1",
        )
        .bind(order_id)
        .bind(minutes)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// Lets the order's deadline be the next whole second.
    pub(crate) async fn bring_deadline_near(&self, order_id: Uuid) {
        let mut tx = self.db.begin().await.unwrap();
        for table in ["orders", "holds"] {
            let column = if table == "orders" { "id" } else { "order_id" };
            sqlx::query(AssertSqlSafe(format!(
                "UPDATE {table} SET expires_at = date_trunc('second', now()) + interval '1 second'
                 WHERE {column} = $1"
            )))
            .bind(order_id)
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Whether the order's deadline has passed, by the clock that judges it.
    pub(crate) async fn is_overdue(&self, order_id: Uuid) -> bool {
        sqlx::query_scalar("SELECT expires_at <= clock_timestamp() FROM orders WHERE id = $1")
            .bind(order_id)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// The order's status as it is stored.
    pub(crate) async fn status_of(&self, order_id: Uuid) -> String {
        sqlx::query_scalar("SELECT status FROM orders WHERE id = $1")
            .bind(order_id)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// What became of the order's hold on the variant.
    pub(crate) async fn hold_of(&self, order_id: Uuid, variant: Variant) -> String {
        sqlx::query_scalar("SELECT state FROM holds WHERE order_id = $1 AND variant_id = $2")
            .bind(order_id)
            .bind(variant.id)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// The movements of the variant's stock after it came in: cause, units and destination.
    pub(crate) async fn movements_of(&self, variant: Variant) -> Vec<(String, i64, String)> {
        sqlx::query_as(
            "
            SELECT cause, quantity, to_account
            FROM stock_ledger
            WHERE variant_id = $1 AND cause <> 'receipt'
            ORDER BY id
            ",
        )
        .bind(variant.id)
        .fetch_all(&self.db)
        .await
        .unwrap()
    }

    /// How many rows the condition finds, as SQL after `FROM`.
    pub(crate) async fn count(&self, rows: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {rows}")))
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    /// What every table holds: how many rows, and a digest of them. Equal before and after, nothing changed.
    pub(crate) async fn books(&self) -> BTreeMap<String, (i64, String)> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'",
        )
        .fetch_all(&self.db)
        .await
        .unwrap();
        let mut books = BTreeMap::new();
        for table in tables {
            let digest = sqlx::query_as(AssertSqlSafe(format!(
                "SELECT count(*), coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM {table} AS t"
            )))
            .fetch_one(&self.db)
            .await
            .unwrap();
            books.insert(table, digest);
        }
        books
    }
}

/// A wish as the checkout's batcher hands it over.
pub(crate) fn wish(owner_id: Uuid, key: &str, lines: &[(Variant, i64)]) -> PlaceOrder {
    let total: i64 = lines.iter().map(|(variant, quantity)| variant.price * quantity).sum();
    let lines: Vec<_> = lines
        .iter()
        .map(|(variant, quantity)| RequestedLine {
            variant_id: variant.id.into(),
            quantity: *quantity,
        })
        .collect();
    PlaceOrder {
        order_id: OrderId::generate(),
        number: OrderNumber::generate(),
        owner_id: owner_id.into(),
        key: Key::parse(Some(key)).unwrap(),
        fingerprint: Fingerprint::of(format!("{lines:?}").as_bytes()),
        email: EmailAddress::parse("ada@example.com").unwrap(),
        shipping_address: json!({ "name": "Ada Lovelace" }),
        currency: usd(0).currency(),
        expected_total: usd(total),
        lines,
    }
}

/// A wish of somebody who was never here before.
pub(crate) fn strangers_wish(lines: &[(Variant, i64)]) -> PlaceOrder {
    wish(Uuid::now_v7(), &Uuid::now_v7().to_string(), lines)
}

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, "USD".parse().unwrap()).unwrap()
}
