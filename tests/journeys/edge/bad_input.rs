//! Checkouts that cannot be: each is refused with a stable code and leaves no row behind.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, Client, checkout_body},
    shop::{PRICE, Variant},
};

/// A checkout as it should be, but for one place.
fn with(variant: Variant, pointer: &str, value: Value) -> Value {
    let mut body = checkout_body(&[(variant, 1)]);
    *body.pointer_mut(pointer).unwrap() = value;
    body
}

fn without(variant: Variant, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut body = checkout_body(&[(variant, 1)]);
    let parent = body.pointer_mut(parent).unwrap();
    assert!(parent.as_object_mut().unwrap().remove(name).is_some(), "there is no {pointer}");
    body
}

async fn send(guest: &Client, body: &Value) -> Answer {
    Answer::to(guest.checkout(KEY, body)).await
}

/// Sends what may not even be JSON.
async fn send_text(guest: &Client, body: impl Into<reqwest::Body>) -> Answer {
    let request = guest.request(reqwest::Method::POST, "/v1/checkout").body(body);
    let request = request.header("Idempotency-Key", KEY).header("Content-Type", "application/json");
    Answer::to(request).await
}

/// Refuses each of the bodies, which differ from a good one in one place, for that place alone.
async fn assert_refused(cases: impl Fn(Variant) -> Vec<(Value, &'static str, &'static str)>) {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(200).await;
        let guest = app.guest().await;
        let before = app.books().await;

        for (body, pointer, code) in cases(mug) {
            let refusal = send(&guest, &body).await;
            refusal.assert_problem(422, "invalid-request").assert_errors(&[(pointer, code)]);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_quantity_is_a_whole_number_from_1_to_99() {
    const AT: &str = "/lines/0/quantity";
    assert_refused(|mug| {
        [
            (json!(0), "out-of-range"),
            (json!(-1), "out-of-range"),
            (json!(100), "out-of-range"),
            (json!(i64::MAX), "out-of-range"),
            (json!(i64::MIN), "out-of-range"),
            (json!(u64::MAX), "out-of-range"),
            (json!(1.5), "wrong-type"),
            (json!(1.0), "wrong-type"),
            (json!(1e300), "wrong-type"),
            (json!("1"), "wrong-type"),
            (json!(true), "wrong-type"),
            (json!(null), "wrong-type"),
            (json!([1]), "wrong-type"),
            (json!({}), "wrong-type"),
        ]
        .map(|(quantity, code)| (with(mug, AT, quantity), AT, code))
        .into()
    })
    .await;
}

#[tokio::test]
async fn a_number_beyond_all_numbers_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(200).await;
        let guest = app.guest().await;
        let before = app.books().await;

        for number in
            ["1e999", "123456789012345678901234567890", "-0.0", "1E400", "0x10", "01", "NaN"]
        {
            let body = checkout_body(&[(mug, 1)]).to_string();
            let body = body.replace("\"quantity\":1", &format!("\"quantity\":{number}"));
            assert!(body.contains(number));
            let refusal = send_text(&guest, body).await;
            assert!(matches!(refusal.status, 400 | 422), "{number}: {}", refusal.status);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_order_has_1_to_50_lines() {
    TestApp::run(async |app| {
        let guest = app.guest().await;
        let mut variants = Vec::new();
        for _ in 0..51 {
            variants.push((app.product_with_stock(1).await, 1));
        }
        let before = app.books().await;

        for (lines, code) in [(&variants[..0], "too-few"), (&variants[..], "too-many")] {
            let refusal = guest.place_order(KEY, lines).await;
            refusal.assert_problem(422, "invalid-request").assert_errors(&[("/lines", code)]);
        }
        assert_eq!(app.books().await, before);

        guest.place_order(KEY, &variants[..50]).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_variant_that_does_not_exist_is_named() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let unknown = Variant { id: Uuid::now_v7(), ..mug };
        let guest = app.guest().await;
        let before = app.books().await;

        let refusal = guest.place_order(KEY, &[(mug, 1), (unknown, 1), (unknown, 2)]).await;

        refusal.assert_problem(422, "lines-not-orderable").assert_errors(&[
            ("/lines/1/variant_id", "unknown-variant"),
            ("/lines/2/variant_id", "unknown-variant"),
        ]);
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_currency_that_is_foreign_unknown_or_mixed_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;
        let in_currency = |order: &str, total: &str| {
            let mut body = with(mug, "/currency", json!(order));
            body["expected_total"]["currency"] = json!(total);
            body
        };

        send(&guest, &in_currency("EUR", "EUR"))
            .await
            .assert_problem(422, "lines-not-orderable")
            .assert_errors(&[("/lines/0/variant_id", "not-sold-in-currency")]);
        send(&guest, &in_currency("USD", "EUR"))
            .await
            .assert_problem(422, "invalid-request")
            .assert_errors(&[("/expected_total/currency", "currencies-differ")]);
        for unknown in ["XYZ", "usd", "U$D", "ÜÄÖ"] {
            send(&guest, &in_currency(unknown, unknown))
                .await
                .assert_problem(422, "invalid-request")
                .assert_errors(&[
                    ("/currency", "unknown-currency"),
                    ("/expected_total/currency", "unknown-currency"),
                ]);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_total_that_is_none_or_not_the_right_one_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;

        for (amount, status, code) in [
            (json!(PRICE - 1), 409, "total-changed"),
            (json!(PRICE + 1), 409, "total-changed"),
            (json!(0), 409, "total-changed"),
            (json!(-1), 422, "invalid-request"),
            (json!(i64::MAX), 422, "invalid-request"),
            (json!(u64::MAX), 422, "invalid-request"),
            (json!(12.99), 422, "invalid-request"),
            (json!("1299"), 422, "invalid-request"),
        ] {
            let refusal = send(&guest, &with(mug, "/expected_total/amount", amount)).await;
            refusal.assert_problem(status, code);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_needed_and_has_20_to_100_visible_characters() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let body = checkout_body(&[(mug, 1)]);
        let before = app.books().await;

        let request = guest.request(reqwest::Method::POST, "/v1/checkout").json(&body);
        Answer::to(request).await.assert_problem(400, "idempotency-key-missing");
        for key in [
            "",
            "\"\"",
            "nineteen-characters",
            &"k".repeat(101),
            &"k".repeat(8_000),
            "twenty characters with spaces",
            "one-key-per-int\"ention",
            "one-key-per-int\\ention",
            "one\tkey\tper\tintention\t",
        ] {
            let refusal = Answer::to(guest.checkout(key, &body)).await;
            refusal.assert_problem(400, "idempotency-key-invalid");
        }
        assert_eq!(app.books().await, before);

        let (shortest, longest) = ("k".repeat(20), "k".repeat(100));
        for key in [shortest, longest] {
            Answer::to(guest.checkout(&key, &body)).await.assert_status(201);
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_with_other_letters_than_ascii_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;
        let key = reqwest::header::HeaderValue::from_bytes("ein-schlüssel-je-absicht".as_bytes());

        let request = guest.request(reqwest::Method::POST, "/v1/checkout");
        let request = request.header("Idempotency-Key", key.unwrap());
        let refusal = Answer::to(request.json(&checkout_body(&[(mug, 1)]))).await;

        assert!(matches!(refusal.status, 400 | 422), "{}", refusal.body);
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn every_field_has_its_type_and_its_measure() {
    assert_refused(|mug| {
        let long = |length| json!("x".repeat(length));
        vec![
            (with(mug, "/email", json!("ada")), "/email", "invalid-email"),
            (with(mug, "/email", json!("a@b.c\r\nBcc: x@y.z")), "/email", "invalid-email"),
            (with(mug, "/email", json!(7)), "/email", "wrong-type"),
            (with(mug, "/email", long(255)), "/email", "too-long"),
            (with(mug, "/currency", json!("US")), "/currency", "too-short"),
            (with(mug, "/lines", json!({})), "/lines", "wrong-type"),
            (with(mug, "/lines/0", json!(1)), "/lines/0", "wrong-type"),
            (with(mug, "/lines/0/variant_id", json!("x")), "/lines/0/variant_id", "wrong-format"),
            (with(mug, "/lines/0/variant_id", json!(7)), "/lines/0/variant_id", "wrong-type"),
            (with(mug, "/expected_total", json!(1299)), "/expected_total", "wrong-type"),
            (with(mug, "/shipping_address", json!([])), "/shipping_address", "wrong-type"),
            (with(mug, "/shipping_address/name", json!("")), "/shipping_address/name", "too-short"),
            (with(mug, "/shipping_address/name", long(201)), "/shipping_address/name", "too-long"),
            (
                with(mug, "/shipping_address/name", json!("Ada\nLovelace")),
                "/shipping_address/name",
                "invalid-text",
            ),
            (
                with(mug, "/shipping_address/country", json!("gb")),
                "/shipping_address/country",
                "unknown-country",
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn every_field_that_is_needed_is_missed() {
    assert_refused(|mug| {
        [
            "/email",
            "/currency",
            "/expected_total",
            "/expected_total/amount",
            "/expected_total/currency",
            "/lines",
            "/lines/0/variant_id",
            "/lines/0/quantity",
            "/shipping_address",
            "/shipping_address/name",
            "/shipping_address/line1",
            "/shipping_address/city",
            "/shipping_address/country",
        ]
        .map(|pointer| (without(mug, pointer), pointer, "missing"))
        .into()
    })
    .await;
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_refused_wherever_it_stands() {
    assert_refused(|mug| {
        ["/total", "/lines/0/price", "/expected_total/exponent", "/shipping_address/planet"]
            .map(|pointer| {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                let mut body = checkout_body(&[(mug, 1)]);
                body.pointer_mut(parent).unwrap()[name] = json!(1);
                (body, pointer, "unknown-field")
            })
            .into()
    })
    .await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let mut body = checkout_body(&[(mug, 0), (mug, 100)]);
        body["lines"][1]["variant_id"] = json!("x");
        body["email"] = json!(null);
        body["coupon"] = json!("FREE");

        let refusal = send(&app.guest().await, &body).await;

        refusal.assert_problem(422, "invalid-request").assert_errors(&[
            ("/coupon", "unknown-field"),
            ("/email", "wrong-type"),
            ("/lines/0/quantity", "out-of-range"),
            ("/lines/1/quantity", "out-of-range"),
            ("/lines/1/variant_id", "wrong-format"),
        ]);
    })
    .await;
}

#[tokio::test]
async fn the_character_that_no_table_can_hold_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;

        for pointer in ["/email", "/currency", "/shipping_address/name", "/lines/0/variant_id"] {
            let body = with(mug, pointer, json!("a\u{0}b"));
            assert!(body.to_string().contains("\\u0000"));
            let refusal = send(&guest, &body).await;
            refusal
                .assert_problem(422, "invalid-request")
                .assert_errors(&[(pointer, "nul-character")]);
        }
        let mut body = checkout_body(&[(mug, 1)]);
        body["a\u{0}"] = json!(1);
        send(&guest, &body)
            .await
            .assert_problem(422, "invalid-request")
            .assert_errors(&[("/a\u{0}", "nul-character")]);
        let raw = checkout_body(&[(mug, 1)]).to_string().replace("Lovelace", "Love\0lace");
        send_text(&guest, raw).await.assert_problem(400, "malformed");
        guest.get("/v1/orders?cursor=%00").await.assert_problem(422, "invalid-request");
        assert_eq!(app.books().await, before);

        // A backslash and four zeros are no such character.
        let harmless = with(mug, "/shipping_address/name", json!("a\\u0000b"));
        send(&guest, &harmless).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_deep_or_too_long_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;

        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(5_000), close.repeat(5_000));
            let body = checkout_body(&[(mug, 1)]).to_string();
            let inside = body.replacen("\"ada@example.com\"", &deep, 1);
            send_text(&guest, deep).await.assert_problem(400, "malformed");
            send_text(&guest, inside).await.assert_problem(400, "malformed");
        }
        let long = with(mug, "/shipping_address/name", json!("x".repeat(2 * 1024 * 1024)));
        send(&guest, &long).await.assert_problem(413, "too-large");
        let spaces = format!("{}{}", " ".repeat(2 * 1024 * 1024), checkout_body(&[(mug, 1)]));
        send_text(&guest, spaces).await.assert_problem(413, "too-large");

        assert_eq!(app.books().await, before);
    })
    .await;
}
