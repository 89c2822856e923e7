//! A sale that opens and closes.

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{key, limit, set_sale, wait_of};
use crate::support::{app::TestApp, client::Client, shop::Variant};

/// Moves the hours of the variant's sale: seconds from now, by the clock that judges them.
async fn hours(app: &TestApp, variant: Variant, opens: Option<f64>, closes: Option<f64>) {
    let moved = sqlx::query(
        "UPDATE variants
         SET opens_at = now() + make_interval(secs => $2), closes_at = now() + make_interval(secs => $3)
         WHERE id = $1",
    )
    .bind(variant.id)
    .bind(opens)
    .bind(closes)
    .execute(&app.db)
    .await
    .unwrap();
    assert_eq!(moved.rows_affected(), 1);
}

async fn product_of(app: &TestApp, variant: Variant) -> String {
    let slug: String = sqlx::query_scalar(
        "SELECT slug FROM products JOIN variants ON product_id = products.id WHERE variants.id = $1",
    )
    .bind(variant.id)
    .fetch_one(&app.db)
    .await
    .unwrap();
    format!("/v1/products/{slug}")
}

#[tokio::test]
async fn a_drop_is_not_sold_before_it_opens_nor_after_it_closes() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let shopper = app.guest().await;
        let before = app.books().await;

        hours(app, mug, Some(3600.0), Some(7200.0)).await;
        let early = shopper.place_order(KEY, &[(mug, 1)]).await;
        hours(app, mug, Some(-1.0), Some(3600.0)).await;
        let in_time = shopper.place_order(KEY, &[(mug, 1)]).await;
        let placed = app.books().await;
        hours(app, mug, Some(-3600.0), Some(-0.001)).await;
        let late = shopper.place_order(&key(), &[(mug, 1)]).await;

        early.assert_problem(409, "sale-not-open");
        early.assert_errors(&[("/lines/0/variant_id", "sale-not-open")]);
        assert!((3590..=3600).contains(&wait_of(&early)), "{}", wait_of(&early));
        in_time.assert_status(201);
        late.assert_problem(410, "sale-closed");
        late.assert_errors(&[("/lines/0/variant_id", "sale-closed")]);
        assert_eq!(late.header("retry-after"), None);
        let after = app.books().await;
        assert_ne!(before["orders"], placed["orders"]);
        for table in ["orders", "holds", "stock", "stock_ledger", "idempotency_keys", "job_ledger"]
        {
            assert_eq!(placed[table], after[table], "{table}");
        }
    })
    .await;
}

const KEY: &str = "one-key-per-intention";

#[tokio::test]
async fn a_shopper_who_came_early_is_told_when_the_sale_opens() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let lamp = app.product_with_stock(5).await;
        hours(app, mug, Some(60.0), None).await;
        hours(app, lamp, Some(600.0), None).await;

        let early = app.guest().await.place_order(KEY, &[(mug, 1), (lamp, 1)]).await;

        early.assert_problem(409, "sale-not-open");
        assert!((595..=600).contains(&wait_of(&early)), "the later of both: {}", wait_of(&early));
        let opens_at: OffsetDateTime =
            sqlx::query_scalar("SELECT opens_at FROM variants WHERE id = $1")
                .bind(lamp.id)
                .fetch_one(&app.db)
                .await
                .unwrap();
        let message = early.at("/errors/1/message");
        assert_eq!(message, format!("it opens at {}", opens_at.format(&Rfc3339).unwrap()));
    })
    .await;
}

#[tokio::test]
async fn an_order_with_one_line_out_of_hours_is_refused_whole() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let gone = app.product_with_stock(5).await;
        let to_come = app.product_with_stock(5).await;
        hours(app, gone, None, Some(-1.0)).await;
        hours(app, to_come, Some(60.0), None).await;
        let shopper = app.guest().await;

        let refused = shopper.place_order(KEY, &[(mug, 1), (to_come, 1), (gone, 1)]).await;

        // Waiting would not help.
        refused.assert_problem(410, "sale-closed");
        refused.assert_errors(&[("/lines/2/variant_id", "sale-closed")]);
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn an_order_that_was_placed_in_time_is_found_again_after_the_sale() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let shopper = app.guest().await;
        let first = shopper.place_order(KEY, &[(mug, 1)]).await;
        hours(app, mug, None, Some(-0.001)).await;

        let again = shopper.place_order(KEY, &[(mug, 1)]).await;

        again.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(again.order_id(), first.order_id());
    })
    .await;
}

#[tokio::test]
async fn staff_set_the_rules_of_a_sale_and_shoppers_see_them() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let path = product_of(app, mug).await;
        let staff = app.staff().await;
        let sale = json!({
            "opens_at": "2031-05-01T10:00:00Z",
            "closes_at": "2031-05-01T12:00:00.5Z",
            "purchase_limit": { "units": 2, "window_seconds": 86_400 },
        });
        let plain: Value = app.anybody().get(&path).await.at("/variants/0");
        assert!(plain.get("sale").is_none(), "{plain}");

        let set = set_sale(&staff, mug.id, &sale).await;
        let shown = app.anybody().get(&path).await;
        let cleared = set_sale(&staff, mug.id, &json!({})).await;

        set.assert_status(200);
        assert_eq!(set.json::<Value>(), sale);
        assert_eq!(shown.at("/variants/0/sale"), sale);
        assert_eq!(cleared.assert_status(200).json::<Value>(), json!({}));
        assert_eq!(app.anybody().get(&path).await.at("/variants/0"), plain);
    })
    .await;
}

#[tokio::test]
async fn each_change_of_a_sale_leaves_one_row_that_says_who_and_what() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let staff = app.staff().await;
        let sale = json!({ "purchase_limit": { "units": 2 } });

        let set = set_sale(&staff, mug.id, &sale).await;

        let (actor, before, after, request): (Uuid, Value, Value, String) = sqlx::query_as(
            "SELECT actor_id, before, after, request_id FROM audit_log WHERE subject = $1 AND action = 'setSale'",
        )
        .bind(format!("variant:{}", mug.id))
        .fetch_one(&app.db)
        .await
        .unwrap();
        assert_eq!(Some(actor), staff.id);
        assert_eq!(before, json!({ "opens_at": null, "closes_at": null, "purchase_limit": null }));
        assert_eq!(after["purchase_limit"], json!({ "units": 2, "window_seconds": null }));
        assert_eq!(Some(&*request), set.header("x-request-id"));
    })
    .await;
}

#[tokio::test]
async fn a_product_may_be_added_with_the_rules_of_its_sale() {
    TestApp::run(async |app| {
        let sale = json!({ "opens_at": "2031-05-01T10:00:00Z", "purchase_limit": { "units": 1 } });
        let mut product = json!({
            "slug": "drop",
            "title": "Drop",
            "variants": [
                { "sku": "DROP-1", "title": "One", "prices": [], "sale": sale },
                { "sku": "DROP-2", "title": "Two", "prices": [] },
            ],
        });
        let staff = app.staff().await;

        let created = staff.post("/v1/products", &product).await;
        product["slug"] = json!("other");
        product["variants"][0]["sku"] = json!("DROP-3");
        product["variants"][0]["sale"]["closes_at"] = json!("2031-05-01T10:00:00Z");
        let refused = staff.post("/v1/products", &product).await;

        created.assert_status(201);
        assert_eq!(created.at("/variants/0/sale"), sale);
        assert_eq!(app.anybody().get("/v1/products/drop").await.at("/variants/0/sale"), sale);
        refused.assert_problem(422, "invalid-request");
        refused.assert_errors(&[("/variants/0/sale/closes_at", "closes-before-it-opens")]);
    })
    .await;
}

#[tokio::test]
async fn rules_that_cannot_be_are_refused_and_change_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let staff = app.staff().await;
        limit(app, mug, 3).await;
        let before = app.books().await;
        let day = "2031-05-01T10:00:00Z";

        for (sale, pointer, code) in [
            (json!({ "opens_at": day, "closes_at": day }), "/closes_at", "closes-before-it-opens"),
            (json!({ "opens_at": "tomorrow" }), "/opens_at", "wrong-format"),
            (json!({ "purchase_limit": { "units": 0 } }), "/purchase_limit/units", "out-of-range"),
            (json!({ "purchase_limit": { "units": -1 } }), "/purchase_limit/units", "out-of-range"),
            (
                json!({ "purchase_limit": { "units": 10_001 } }),
                "/purchase_limit/units",
                "out-of-range",
            ),
            (
                json!({ "purchase_limit": { "units": 1, "window_seconds": 59 } }),
                "/purchase_limit/window_seconds",
                "out-of-range",
            ),
            (
                json!({ "purchase_limit": { "units": 1, "window_seconds": i64::MAX } }),
                "/purchase_limit/window_seconds",
                "out-of-range",
            ),
            (json!({ "discount": 100 }), "/discount", "unknown-field"),
        ] {
            let refused = set_sale(&staff, mug.id, &sale).await;
            refused.assert_problem(422, "invalid-request");
            refused.assert_errors(&[(pointer, code)]);
        }
        let unknown = set_sale(&staff, Uuid::now_v7(), &json!({})).await;
        unknown.assert_problem(404, "variant-not-found");

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn only_staff_set_the_rules_of_a_sale() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let others: [(Client, u16, &str); 3] = [
            (app.anybody(), 401, "unauthenticated"),
            (app.guest().await, 403, "forbidden"),
            (app.customer().await, 403, "forbidden"),
        ];
        let before = app.books().await;

        for (caller, status, code) in others {
            set_sale(&caller, mug.id, &json!({})).await.assert_problem(status, code);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn the_doctor_finds_an_order_that_was_placed_out_of_hours() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let order_id = app.guest().await.order_for(&[(mug, 1)]).await;
        app.settle().await;
        hours(app, mug, None, Some(-1.0)).await;
        app.execute("UPDATE variants SET closes_at = closes_at - interval '1 minute', sale_set_at = now() - interval '1 hour'")
            .await;

        app.ctl(&["doctor"]).await.assert(1, &["sales-keep-their-hours", &order_id.to_string()]);

        hours(app, mug, None, Some(60.0)).await;
        app.ctl(&["doctor"]).await.assert(0, &[]);
    })
    .await;
}
