//! Staff: what they put on sale, and who may.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, Client},
    shop::{PRICE, Variant},
};

fn lamp() -> Value {
    json!({
        "slug": "desk-lamp",
        "title": "Desk lamp",
        "description": "Bright.",
        "variants": [
            { "sku": "LAMP-BLK", "title": "Black", "prices": [{ "amount": PRICE, "currency": "USD" }] },
            { "sku": "LAMP-RED", "title": "Red", "prices": [] },
        ],
    })
}

async fn receive(staff: &Client, variant_id: &str, key: &str, quantity: i64) -> Answer {
    let path = format!("/v1/stock/{variant_id}/receipts");
    let request = staff.request(reqwest::Method::POST, &path).header("Idempotency-Key", key);
    Answer::to(request.json(&json!({ "quantity": quantity }))).await
}

fn variant(product: &Answer, place: usize) -> Variant {
    let id = product.at(&format!("/variants/{place}/id"));
    Variant { id: id.as_str().unwrap().parse().unwrap(), price: PRICE }
}

#[tokio::test]
async fn what_staff_put_on_sale_a_shopper_can_buy() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let created = staff.post("/v1/products", &lamp()).await;
        created.assert_status(201).assert_header("location", "/v1/products/desk-lamp");
        let black = variant(&created, 0);
        receive(&staff, &black.id.to_string(), KEY, 3).await.assert_status(201);

        let shopper = app.guest().await;
        let shown = shopper.get("/v1/products/desk-lamp").await;
        let placed = shopper.place_order(KEY, &[(black, 2)]).await;

        assert_eq!(shown.at("/variants/0/prices/0"), json!({ "amount": PRICE, "currency": "USD" }));
        placed.assert_status(201);
        assert_eq!(placed.at("/lines/0/title"), "Desk lamp · Black");
        assert_eq!(placed.at("/lines/0/sku"), "LAMP-BLK");
        assert_eq!(app.stock_of(black).await, (3, 2));
    })
    .await;
}

#[tokio::test]
async fn a_variant_without_a_price_in_the_currency_is_not_sold_in_it() {
    TestApp::run(async |app| {
        let created = app.staff().await.post("/v1/products", &lamp()).await;
        let red = variant(&created, 1);

        let refusal = app.guest().await.place_order(KEY, &[(red, 1)]).await;

        refusal
            .assert_problem(422, "lines-not-orderable")
            .assert_errors(&[("/lines/0/variant_id", "not-sold-in-currency")]);
    })
    .await;
}

#[tokio::test]
async fn staff_see_the_counters_and_everybody_else_what_is_left() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        guest.order_for(&[(mug, 2)]).await;
        let path = format!("/v1/stock/{}", mug.id);

        let staffs: Value = app.staff().await.get(&path).await.json();
        assert_eq!(staffs["available"], 3);
        assert_eq!((&staffs["on_hand"], &staffs["reserved"]), (&json!(5), &json!(2)));
        for visitor in [app.anybody(), guest, app.customer().await] {
            let answer: Value = visitor.get(&path).await.json();
            assert_eq!(answer, json!({ "variant_id": mug.id, "available": 3 }));
        }
        let unknown = app.anybody().get(&format!("/v1/stock/{}", Uuid::now_v7())).await;
        unknown.assert_problem(404, "variant-not-found");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_receipt_is_booked_once() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(0).await;
        let (staff, id) = (app.staff().await, mug.id.to_string());

        let first = receive(&staff, &id, KEY, 3).await;
        let second = receive(&staff, &id, KEY, 3).await;
        let misuse = receive(&staff, &id, KEY, 4).await;

        first.assert_status(201).assert_header("idempotency-replayed", None);
        second.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(first.json::<Value>(), second.json::<Value>());
        misuse.assert_problem(422, "idempotency-key-reused");
        assert_eq!(app.stock_of(mug).await, (3, 0));
        let colleague = receive(&app.staff().await, &id, KEY, 3).await;
        colleague.assert_status(201).assert_header("idempotency-replayed", None);
        assert_eq!(app.stock_of(mug).await, (6, 0));
    })
    .await;
}

#[tokio::test]
async fn a_receipt_that_cannot_be_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let (staff, id) = (app.staff().await, mug.id.to_string());
        let before = app.books().await;

        for quantity in [0, -1, 1_000_001, i64::MAX] {
            receive(&staff, &id, KEY, quantity)
                .await
                .assert_problem(422, "invalid-request")
                .assert_errors(&[("/quantity", "out-of-range")]);
        }
        let unknown = receive(&staff, &Uuid::now_v7().to_string(), KEY, 1).await;
        unknown.assert_problem(404, "variant-not-found");
        receive(&staff, &id, "short", 1).await.assert_problem(400, "idempotency-key-invalid");
        receive(&staff, "none", KEY, 1).await.assert_problem(422, "invalid-request");

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_taken_slug_or_sku_is_refused_and_adds_nothing() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        staff.post("/v1/products", &lamp()).await.assert_status(201);
        let before = app.books().await;
        let mut other_slug = lamp();
        other_slug["slug"] = json!("other-lamp");
        other_slug["variants"][0]["sku"] = json!("lamp-blk");
        other_slug["variants"][1]["sku"] = json!("LAMP-GRN");

        let same_slug = staff.post("/v1/products", &lamp()).await;
        let same_sku = staff.post("/v1/products", &other_slug).await;

        same_slug.assert_problem(409, "slug-taken").assert_errors(&[("/slug", "slug-taken")]);
        same_sku
            .assert_problem(409, "sku-taken")
            .assert_errors(&[("/variants/0/sku", "sku-taken")]);
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn only_staff_may_do_the_work_of_staff() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let others = [
            (app.anybody(), 401, "unauthenticated"),
            (app.guest().await, 403, "forbidden"),
            (app.customer().await, 403, "forbidden"),
        ];
        let before = app.books().await;

        for (caller, status, code) in others {
            caller.post("/v1/products", &lamp()).await.assert_problem(status, code);
            let receipt = receive(&caller, &mug.id.to_string(), KEY, 1).await;
            receipt.assert_problem(status, code);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_product_is_read_again_only_if_it_has_changed() {
    TestApp::run(async |app| {
        app.staff().await.post("/v1/products", &lamp()).await.assert_status(201);
        let path = "/v1/products/desk-lamp";
        let anybody = app.anybody();
        let ask = |tag: String| {
            let request = anybody.request(reqwest::Method::GET, path);
            Answer::to(request.header("If-None-Match", tag))
        };
        let first = anybody.get(path).await;
        let tag = first.header("etag").unwrap().to_owned();

        let same = ask(tag.clone()).await;
        app.execute("UPDATE products SET title = 'Floor lamp'").await;
        let changed = ask(tag).await;

        assert_eq!((same.status, &*same.body), (304, ""));
        changed.assert_status(200);
        assert_eq!(changed.at("/title"), "Floor lamp");
        anybody.get("/v1/products/none").await.assert_problem(404, "product-not-found");
    })
    .await;
}

#[tokio::test]
async fn products_are_listed_page_by_page() {
    TestApp::run(async |app| {
        for _ in 0..3 {
            app.product_with_stock(1).await;
        }

        let first = app.anybody().get("/v1/products?limit=2").await;
        let link = first.header("link").unwrap();
        let path = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
        let second = app.anybody().get(path).await;

        assert_eq!(first.at("/items").as_array().unwrap().len(), 2);
        assert_eq!(second.at("/items").as_array().unwrap().len(), 1);
        second.assert_header("link", None);
    })
    .await;
}
