//! Being forgotten.

use std::time::Duration;

use futures_util::future::join;
use holdfast::{identity::Role, privacy::erase_left_over};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Capture, Delivery, Provider};
use sqlx::AssertSqlSafe;
use tokio::time::timeout;
use uuid::Uuid;

use super::{ADA, address, text};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client, checkout_body, until},
};

pub(crate) async fn erase(client: &Client, password: &str) -> Answer {
    let body = json!({ "password": password });
    Answer::to(client.request(Method::DELETE, "/v1/auth/me").json(&body)).await
}

impl TestApp {
    /// The tables in which the text stands somewhere.
    async fn tables_with(&self, text: &str) -> Vec<String> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables
             WHERE table_schema = 'public' ORDER BY table_name",
        )
        .fetch_all(&self.db)
        .await
        .unwrap();
        let mut found = Vec::new();
        for table in tables {
            let sql = format!("SELECT count(*) FROM {table} AS t WHERE t::text LIKE $1");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(format!("%{text}%"))
                .fetch_one(&self.db)
                .await
                .unwrap();
            if rows > 0 {
                found.push(table);
            }
        }
        found
    }
}

/// Opens a payment for the order at Stripe; returns its id and the provider's name for it.
async fn open_payment(client: &Client, order_id: Uuid) -> (String, String) {
    let path = format!("/v1/orders/{order_id}/payments");
    let request =
        client.request(Method::POST, &path).header("Idempotency-Key", Uuid::now_v7().to_string());
    let opened = Answer::to(request.json(&json!({ "provider": "stripe" }))).await;
    opened.assert_status(201);
    (text(&opened.at("/id")), text(&opened.at("/stripe/payment_intent_id")))
}

pub(super) async fn pay(app: &TestApp, client: &Client, order_id: Uuid) {
    let (id, reference) = open_payment(client, order_id).await;
    app.providers.succeed(&reference).unwrap();
    let confirm = client.post(&format!("/v1/payments/{id}/confirm"), &json!({})).await;
    confirm.assert_status(200);
    assert_eq!(app.status_of(order_id).await, "paid");
}

#[tokio::test]
async fn whoever_is_forgotten_is_named_nowhere_and_the_books_stay() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.providers.set_delivery(Provider::Stripe, Delivery::Lost);
        let mug = app.product_with_stock(9).await;
        let guest = app.guest().await;
        let as_guest = guest.order_for(&[(mug, 1)]).await;
        let ada = app.open_account(ADA).await;
        ada.post("/v1/auth/me/addresses", &address::new("12 Hidden Lane")).await.assert_status(201);
        let name = json!({ "display_name": "Countess" });
        Answer::to(ada.request(Method::PATCH, "/v1/auth/me").json(&name)).await.assert_status(200);
        let paid = ada.order_for(&[(mug, 2)]).await;
        pay(app, &ada, paid).await;
        let mut present = checkout_body(&[(mug, 1)]);
        present["email"] = json!("friend@example.com");
        let key = Uuid::now_v7().to_string();
        let present = Answer::to(ada.checkout(&key, &present)).await.order_id();
        app.settle().await;
        for order in [as_guest, present] {
            ada.cancel(order).await.assert_status(200);
        }
        app.forget_password(ADA).await.assert_status(202);
        app.settle().await;
        let books = async |tables: [&str; 6]| {
            let all = app.books().await;
            tables.map(|table| all[table].clone())
        };
        let kept = ["stock_ledger", "holds", "order_lines", "order_events", "payments", "captures"];
        let before = books(kept).await;
        let total = ada.order(paid).await.at("/total");

        erase(&ada, PASSWORD).await.assert_status(204);

        let words = [
            ADA,
            "friend@example.com",
            "Lovelace",
            "St James",
            "Hidden Lane",
            "Countess",
            "argon2",
        ];
        for word in words {
            assert_eq!(app.tables_with(word).await, Vec::<String>::new(), "{word}");
        }
        assert_eq!(books(kept).await, before);
        ada.get("/v1/auth/me").await.assert_problem(401, "unauthenticated");
        app.try_login(ADA, PASSWORD).await.assert_problem(401, "invalid-credentials");
        for table in [
            "users",
            "sessions",
            "refresh_tokens",
            "addresses",
            "account_requests",
            "account_tokens",
        ] {
            assert_eq!(app.count(table).await, 0, "{table}");
        }

        // The order is there for staff, for tax and for the guest's token; it names nobody.
        let left = guest.order(as_guest).await;
        left.assert_status(200);
        assert_eq!(left.at("/email"), "erased@erased.invalid");
        assert_eq!(left.at("/shipping_address"), json!({ "country": "GB" }));
        let amount: i64 = app.scalar("SELECT total_minor FROM orders WHERE status = 'paid'").await;
        assert_eq!(total["amount"], amount);
        // The mails stay on record, without their readers.
        assert_eq!(app.count("deliveries WHERE recipient <> 'erased@erased.invalid'").await, 0);
        assert!(app.count("deliveries WHERE sent_at IS NOT NULL").await > 3);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_forgotten_without_their_password() {
    TestApp::run(async |app| {
        let ada = app.customer().await;
        let before = app.books().await;

        for password in ["incorrect horse", "short", ""] {
            erase(&ada, password).await.assert_problem(403, "wrong-password");
        }
        let none = ada.request(Method::DELETE, "/v1/auth/me").json(&json!({}));
        Answer::to(none).await.assert_status(422);

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_forgotten_while_an_order_of_theirs_is_not_settled() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.providers.set_delivery(Provider::Stripe, Delivery::Lost);
        let mug = app.product_with_stock(9).await;
        app.user(ADA, Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;
        let order = ada.order_for(&[(mug, 1)]).await;

        // It waits for its payment.
        erase(&ada, PASSWORD).await.assert_problem(409, "open-orders");
        // Its money is on the way back.
        pay(app, &ada, order).await;
        ada.cancel(order).await.assert_status(200);
        assert_eq!(app.count("refunds WHERE state = 'requested'").await, 1);
        erase(&ada, PASSWORD).await.assert_problem(409, "open-orders");
        assert_eq!(ada.order(order).await.at("/email"), ADA);

        app.settle().await;
        assert_eq!(app.count("refunds WHERE state = 'succeeded'").await, 1);
        erase(&ada, PASSWORD).await.assert_status(204);
        assert_eq!(app.tables_with(ADA).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_mail_under_way_does_not_reach_whoever_was_forgotten() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        app.user(ADA, Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;
        let order = ada.order_for(&[(mug, 1)]).await;
        ada.cancel(order).await.assert_status(200);
        app.forget_password(ADA).await.assert_status(202);

        // No worker has looked at the mails yet.
        erase(&ada, PASSWORD).await.assert_status(204);
        app.settle().await;

        assert_eq!(app.inbox.mails().len(), 0);
        assert_eq!(app.count("deliveries").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_erasure_that_ends_while_a_mail_is_begun_leaves_no_delivery() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let order = app.guest().await.order_for(&[(mug, 1)]).await;
        let mut erasure = app.db.begin().await.unwrap();
        sqlx::query(
            "UPDATE orders
             SET email = 'erased@erased.invalid', shipping_address = '{}', erased_at = now()
             WHERE id = $1",
        )
        .bind(order)
        .execute(&mut *erasure)
        .await
        .unwrap();
        app.start_workers().await;
        // The mailer has seen the order as it was before.
        until("the mailer to wait", async || {
            let waiting = app.count(
                "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            );
            if waiting.await > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
        })
        .await;
        erasure.commit().await.unwrap();
        app.settle().await;

        assert_eq!(app.inbox.mails().len(), 0);
        assert_eq!(app.count("deliveries").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_was_being_placed_meanwhile_is_erased_once_it_is_settled() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        erase(&ada, PASSWORD).await.assert_status(204);
        // As if these checkouts had been let in before the end and had committed after it.
        let (late, later) = (bob.order_for(&[(mug, 1)]).await, bob.order_for(&[(mug, 1)]).await);
        let bobs = bob.order_for(&[(mug, 1)]).await;
        bob.cancel(late).await.assert_status(200);
        app.settle().await;
        sqlx::query("UPDATE orders SET owner_id = $1 WHERE id = ANY($2)")
            .bind(ada.id)
            .bind([late, later])
            .execute(&app.db)
            .await
            .unwrap();

        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 1);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);

        let emails: Vec<(Uuid, String)> =
            sqlx::query_as("SELECT id, email FROM orders ORDER BY id")
                .fetch_all(&app.db)
                .await
                .unwrap();
        let nobody = "erased@erased.invalid".to_owned();
        assert_eq!(emails, [(late, nobody), (later, ADA.to_owned()), (bobs, ADA.to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn members_of_staff_are_not_forgotten_while_they_are_staff() {
    TestApp::run(async |app| {
        let staff = app.staff().await;

        erase(&staff, PASSWORD).await.assert_problem(409, "staff-account");

        staff.get("/v1/auth/me").await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn what_guests_ordered_with_the_address_of_whoever_is_forgotten_is_erased_too() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        app.user(ADA, Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;
        // Logged out, perhaps; and somebody who gives her address by mistake, and has not paid yet.
        let (guest, stranger) = (app.guest().await, app.guest().await);
        let settled = guest.order_for(&[(mug, 1)]).await;
        guest.cancel(settled).await.assert_status(200);
        let open = stranger.order_for(&[(mug, 1)]).await;
        app.user("bob@example.com", Role::Customer).await;
        let bobs = app.log_in("bob@example.com", PASSWORD).await.order_for(&[(mug, 1)]).await;
        app.settle().await;

        let export = ada.get("/v1/auth/me/export").await;
        let listed = export.at("/guest_orders");
        let listed: Vec<_> =
            listed.as_array().unwrap().iter().map(|one| text(&one["id"])).collect();
        assert_eq!(listed, [open, settled].map(|id| id.to_string()));
        assert_eq!(export.at("/orders"), json!([]));

        erase(&ada, PASSWORD).await.assert_status(204);

        let email_of = async |order: Uuid| -> String {
            sqlx::query_scalar("SELECT email FROM orders WHERE id = $1")
                .bind(order)
                .fetch_one(&app.db)
                .await
                .unwrap()
        };
        assert_eq!(email_of(settled).await, "erased@erased.invalid");
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);
        assert_eq!(stranger.order(open).await.at("/email"), ADA);

        // Whoever has the address next has no part in it.
        let next = app.open_account(ADA).await;
        next.order(open).await.assert_problem(404, "order-not-found");
        stranger.cancel(open).await.assert_status(200);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 1);
        assert_eq!(email_of(open).await, "erased@erased.invalid");
        // Another user may have ordered for somebody else.
        assert_eq!(email_of(bobs).await, ADA);
    })
    .await;
}

#[tokio::test]
async fn orders_that_do_not_settle_keep_no_other_from_being_erased_however_late() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(150).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        erase(&ada, PASSWORD).await.assert_status(204);
        let last = bob.order_for(&[(mug, 1)]).await;
        bob.cancel(last).await.assert_status(200);
        app.settle().await;
        // More than one sweep takes, all older, wait for somebody to look at them.
        sqlx::query(
            "WITH copies AS (
                INSERT INTO orders (
                    id, number, owner_id, status, email, shipping_address, currency,
                    subtotal_minor, total_minor, expires_at
                )
                SELECT
                    ('00000000-0000-7000-8000-' || lpad(place::text, 12, '0'))::uuid,
                    'X-' || place, $1, 'cancelled', email, shipping_address, currency,
                    subtotal_minor, subtotal_minor, expires_at
                FROM orders, generate_series(1, 120) AS place
                WHERE orders.id = $2
                RETURNING id
            )
            INSERT INTO findings (id, kind, subject, order_id, detail)
            SELECT gen_random_uuid(), 'refund_failed', id::text, id, '{}' FROM copies",
        )
        .bind(ada.id)
        .bind(last)
        .execute(&app.db)
        .await
        .unwrap();
        sqlx::query("UPDATE orders SET owner_id = $1 WHERE id = $2")
            .bind(ada.id)
            .bind(last)
            .execute(&app.db)
            .await
            .unwrap();
        app.execute("UPDATE erased_accounts SET erased_at = now() - interval '90 days'").await;

        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 1);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);
        assert_eq!(app.count("erased_accounts").await, 1);

        // Somebody has looked at them.
        app.execute("UPDATE findings SET closed_at = now(), note = 'done'").await;
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 100);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 20);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);
        assert_eq!(app.count("orders WHERE erased_at IS NULL").await, 0);
        assert_eq!(app.count("erased_accounts").await, 0);
        // Nobody placed the copies: the books know nothing of them.
        app.execute("DELETE FROM findings").await;
        app.execute("DELETE FROM orders WHERE number LIKE 'X-%'").await;
    })
    .await;
}

#[tokio::test]
async fn an_order_left_over_by_whoever_was_forgotten_is_nobodys_to_take_over() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        erase(&ada, PASSWORD).await.assert_status(204);
        let late = bob.order_for(&[(mug, 1)]).await;
        // As if Ada's checkout had been let in before the end and had committed after it; with the address
        // of somebody who is to get it.
        sqlx::query("UPDATE orders SET owner_id = $1, email = 'friend@example.com' WHERE id = $2")
            .bind(ada.id)
            .bind(late)
            .execute(&app.db)
            .await
            .unwrap();

        let friend = app.open_account("friend@example.com").await;

        friend.order(late).await.assert_problem(404, "order-not-found");
        assert_eq!(app.count("orders WHERE adopted_by IS NOT NULL").await, 0);
    })
    .await;
}

#[tokio::test]
async fn whoever_changes_the_address_while_they_are_forgotten_is_forgotten_with_the_new_one() {
    const NEW: &str = "ada@elsewhere.example.com";
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        app.user(ADA, Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;
        let guest = app.guest().await;
        let mut body = checkout_body(&[(mug, 1)]);
        body["email"] = json!(NEW);
        let key = Uuid::now_v7().to_string();
        let order = Answer::to(guest.checkout(&key, &body)).await.order_id();
        guest.cancel(order).await.assert_status(200);
        app.settle().await;
        assert!(!app.tables_with(NEW).await.is_empty());

        // The change commits after the password was checked, while the erasure waits for the user.
        let mut change = app.db.begin().await.unwrap();
        sqlx::query("UPDATE users SET email = $1 WHERE email = $2")
            .bind(NEW)
            .bind(ADA)
            .execute(&mut *change)
            .await
            .unwrap();
        let commit = async {
            let waits = "SELECT EXISTS (
                SELECT FROM pg_stat_activity
                WHERE datname = current_database()
                    AND wait_event_type = 'Lock'
                    AND query LIKE '%FROM users%FOR UPDATE%'
            )";
            while !app.scalar::<bool>(waits).await {
                tokio::task::yield_now().await;
            }
            change.commit().await.unwrap();
        };
        let both = join(erase(&ada, PASSWORD), commit);
        let (erased, ()) = timeout(Duration::from_secs(20), both).await.unwrap();

        erased.assert_status(204);
        assert_eq!(app.tables_with(NEW).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn whoever_comes_back_is_a_stranger_and_is_forgotten_for_good_a_day_later() {
    TestApp::run(async |app| {
        let ada = app.open_account(ADA).await;
        erase(&ada, PASSWORD).await.assert_status(204);

        let again = app.open_account(ADA).await;

        assert_ne!(again.id, ada.id);
        assert_eq!(again.get("/v1/auth/me").await.at("/display_name"), Value::Null);
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);
        assert_eq!(app.count("erased_accounts").await, 1);
        app.execute("UPDATE erased_accounts SET erased_at = now() - interval '25 hours'").await;
        assert_eq!(erase_left_over(&app.cx).await.unwrap(), 0);
        assert_eq!(app.count("erased_accounts").await, 0);
    })
    .await;
}
