//! Opening an account.

use futures_util::future::join_all;
use serde_json::json;

use super::{ADA, templates, token_in};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::statuses,
};

#[tokio::test]
async fn whoever_reads_the_mail_and_knows_the_password_has_an_account_and_is_logged_in() {
    TestApp::run(async |app| {
        let asked = app.register("Ada@Example.com", PASSWORD).await;

        asked.assert_status(202);
        assert_eq!(asked.body, "");
        assert_eq!(app.count("users").await, 0);
        let mails = app.mails_to(ADA).await;
        assert_eq!(templates(&mails), ["verify-email"]);
        let token = token_in(&mails[0].text).unwrap();
        assert!(
            mails[0].text.contains(&format!("https://shop.example/verify-email#token={token}"))
        );

        let opened = app.verify(&token, PASSWORD).await;

        opened.assert_status(201).assert_header("cache-control", "no-store");
        assert!(opened.header("set-cookie").is_some_and(|it| it.starts_with("__Secure-refresh=")));
        let me = app.logged_in(&opened).get("/v1/auth/me").await;
        assert_eq!(me.at("/email"), ADA);
        assert_eq!(me.at("/role"), "customer");
        assert_eq!(me.at("/user_id"), opened.at("/user_id"));
        let stored: String = app.scalar("SELECT password_hash FROM users").await;
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        app.log_in("ADA@example.com", PASSWORD).await;
    })
    .await;
}

#[tokio::test]
async fn an_address_has_one_account_whatever_its_case_and_only_its_owner_is_told() {
    TestApp::run(async |app| {
        let first = app.register(ADA, PASSWORD).await;
        let token = app.token_for(ADA).await;
        app.verify(&token, PASSWORD).await.assert_status(201);

        let second = app.register("ADA@example.COM", "another password").await;

        assert_eq!((second.status, &second.body), (first.status, &first.body));
        let mails = app.mails_to(ADA).await;
        assert_eq!(templates(&mails), ["verify-email", "account-exists"]);
        assert_eq!(token_in(&mails[1].text), None);
        assert_eq!(app.count("users").await, 1);
        app.log_in(ADA, PASSWORD).await;
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_registers_somebody_elses_address_gets_no_account_there() {
    const EVES: &str = "known to eve alone";
    TestApp::run(async |app| {
        app.register(ADA, EVES).await.assert_status(202);
        let eves_token = app.token_for(ADA).await;

        // Ada reads the mail and enters what she would choose.
        app.verify(&eves_token, PASSWORD).await.assert_problem(403, "wrong-password");
        assert_eq!(app.count("users").await, 0);

        // She registers herself: hers opens the account, and Eve's is worthless from then on.
        app.register(ADA, PASSWORD).await.assert_status(202);
        let token = app.token_for(ADA).await;
        app.verify(&token, PASSWORD).await.assert_status(201);
        app.verify(&eves_token, EVES).await.assert_problem(422, "invalid-mail-token");
        app.try_login(ADA, EVES).await.assert_problem(401, "invalid-credentials");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_does_not_use_the_token_up() {
    TestApp::run(async |app| {
        app.register(ADA, PASSWORD).await.assert_status(202);
        let token = app.token_for(ADA).await;

        app.verify(&token, "incorrect horse").await.assert_problem(403, "wrong-password");
        app.verify(&token, "short").await.assert_problem(403, "wrong-password");

        app.verify(&token, PASSWORD).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn of_twenty_who_use_a_token_at_once_one_opens_the_account() {
    TestApp::run(async |app| {
        app.register(ADA, PASSWORD).await.assert_status(202);
        let token = app.token_for(ADA).await;

        let answers = join_all((0..20).map(|_| app.verify(&token, PASSWORD))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        // A busy database or a busy processor is nobody's win.
        let refused = answers.iter().filter(|answer| !matches!(answer.status, 201 | 503));
        for answer in refused {
            answer.assert_problem(422, "invalid-mail-token");
        }
        assert_eq!(app.count("users").await, 1);
        assert_eq!(app.count("sessions").await, 1);
        assert_eq!(statuses([&app.verify(&token, PASSWORD).await]), [422]);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_good_for_a_day_and_for_nothing_else() {
    TestApp::run(async |app| {
        app.register(ADA, PASSWORD).await.assert_status(202);
        let token = app.token_for(ADA).await;
        let left: f64 = app
            .scalar("SELECT extract(epoch FROM expires_at - now())::float8 FROM account_tokens")
            .await;
        assert!((86_000.0..=86_400.0).contains(&left), "{left} s");

        app.reset_password(&token, "another password")
            .await
            .assert_problem(422, "invalid-mail-token");
        app.execute("UPDATE account_tokens SET expires_at = now()").await;

        app.verify(&token, PASSWORD).await.assert_problem(422, "invalid-mail-token");
        assert_eq!(app.count("users").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_secret_of_a_mail_is_nowhere_but_in_the_mail() {
    TestApp::run(async |app| {
        app.register(ADA, PASSWORD).await.assert_status(202);
        app.forget_password(ADA).await.assert_status(202);
        let token = app.token_for(ADA).await;

        let stored: String = app
            .scalar(
                "SELECT concat(
                    (SELECT string_agg(r::text, ' ') FROM account_requests AS r),
                    (SELECT string_agg(t::text, ' ') FROM account_tokens AS t),
                    (SELECT string_agg(d::text, ' ') FROM deliveries AS d),
                    (SELECT string_agg(j::text, ' ') FROM job_ledger AS j))",
            )
            .await;
        let jobs: String = app.scalar("SELECT string_agg(j::text, ' ') FROM job_ledger AS j").await;

        assert!(!stored.contains(&token) && !stored.contains(PASSWORD));
        assert!(!jobs.contains("ada"), "{jobs}");
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_the_server_did_not_take_is_sent_again_and_its_token_works() {
    TestApp::run(async |app| {
        app.inbox.fail_next(simulator::inbox::Fault::TemporaryFailure, 1);
        app.register(ADA, PASSWORD).await.assert_status(202);
        app.settle().await;
        app.hurry().await;

        let token = app.token_for(ADA).await;

        app.verify(&token, PASSWORD).await.assert_status(201);
        assert_eq!(app.count("account_tokens").await, 2);
        assert_eq!(app.mails_to(ADA).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn nobodys_inbox_is_flooded() {
    TestApp::run(async |app| {
        for _ in 0..12 {
            app.forget_password("bob@example.com").await.assert_status(202);
            app.register(ADA, PASSWORD).await.assert_status(202);
        }

        assert_eq!(app.mails_to(ADA).await.len(), 5);
        assert_eq!(app.mails_to("bob@example.com").await.len(), 0);
        let last = app.token_for(ADA).await;
        app.verify(&last, PASSWORD).await.assert_status(201);

        // From now on they are told that there is an account.
        for _ in 0..12 {
            app.register(ADA, PASSWORD).await.assert_status(202);
        }
        assert_eq!(app.mails_to(ADA).await.len(), 5 + 5);
        assert_eq!(app.count("deliveries WHERE sent_at IS NULL").await, 0);
    })
    .await;
}

#[tokio::test]
async fn mails_about_accounts_are_forgotten_after_thirty_days_and_those_about_orders_are_not() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let ada = app.open_account(ADA).await;
        ada.order_for(&[(mug, 1)]).await;
        app.forget_password(ADA).await.assert_status(202);
        app.settle().await;
        app.execute(
            "UPDATE deliveries SET created_at = now() - interval '31 days'
             WHERE template <> 'reset-password'",
        )
        .await;

        assert_eq!(holdfast::notifications::purge(&app.cx.db).await.unwrap(), 1);
        assert_eq!(holdfast::notifications::purge(&app.cx.db).await.unwrap(), 0);

        let left: Vec<String> = sqlx::query_scalar("SELECT template FROM deliveries ORDER BY 1")
            .fetch_all(&app.db)
            .await
            .unwrap();
        assert_eq!(left, ["order-received", "reset-password"]);
    })
    .await;
}

#[tokio::test]
async fn requests_are_forgotten_after_two_days() {
    TestApp::run(async |app| {
        app.register(ADA, PASSWORD).await.assert_status(202);
        app.register("bob@example.com", PASSWORD).await.assert_status(202);
        app.settle().await;
        app.execute(
            "UPDATE account_requests SET requested_at = now() - interval '49 hours'
             WHERE email = 'ada@example.com'",
        )
        .await;

        let forgotten = holdfast::identity::accounts::purge(&app.cx.db).await.unwrap();

        assert_eq!(forgotten, 1);
        assert_eq!(app.count("account_requests").await, 1);
        assert_eq!(app.count("account_tokens").await, 1);
    })
    .await;
}

#[tokio::test]
async fn api3_no_field_of_an_account_can_be_smuggled_in() {
    TestApp::run(async |app| {
        let ada = app.open_account(ADA).await;
        let before = app.books().await;
        let token = "A".repeat(43);
        let bodies = [
            (
                "POST",
                "/v1/auth/register",
                json!({ "email": "eve@example.com", "password": PASSWORD }),
            ),
            ("POST", "/v1/auth/verify-email", json!({ "token": token, "password": PASSWORD })),
            ("POST", "/v1/auth/forgot-password", json!({ "email": ADA })),
            (
                "POST",
                "/v1/auth/reset-password",
                json!({ "token": token, "new_password": PASSWORD }),
            ),
            (
                "POST",
                "/v1/auth/change-password",
                json!({ "password": PASSWORD, "new_password": "another password" }),
            ),
            (
                "POST",
                "/v1/auth/change-email",
                json!({ "email": "b@example.com", "password": PASSWORD }),
            ),
            ("POST", "/v1/auth/confirm-email", json!({ "token": token })),
            ("PATCH", "/v1/auth/me", json!({ "display_name": "Ada" })),
            ("DELETE", "/v1/auth/me", json!({ "password": PASSWORD })),
            ("POST", "/v1/auth/me/addresses", super::address::new("1 Road")),
        ];

        for (method, path, body) in bodies {
            for field in
                ["id", "user_id", "role", "token_epoch", "email_verified", "created_at", "owner_id"]
            {
                let mut body = body.clone();
                body[field] = json!("admin");
                let method = method.parse().unwrap();
                let request = ada.request(method, path).json(&body);
                let refusal = crate::support::client::Answer::to(request).await;
                refusal.assert_problem(422, "invalid-request");
                let pointer = format!("/{field}");
                refusal.assert_errors(&[(pointer.as_str(), "unknown-field")]);
            }
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}
