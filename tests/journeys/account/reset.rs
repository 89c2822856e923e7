//! Winning an account back.

use futures_util::future::{join, join_all, join3};
use holdfast::identity::Role;
use serde_json::json;

use super::{ADA, templates};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::Answer,
};

const NEW: &str = "a new password";

#[tokio::test]
async fn whoever_reads_the_mail_chooses_another_password_and_everybody_is_logged_out() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let (phone, laptop) = (app.log_in(ADA, PASSWORD).await, app.log_in(ADA, PASSWORD).await);
        phone.get("/v1/auth/me").await.assert_status(200);

        app.forget_password("Ada@Example.com").await.assert_status(202);
        let token = app.token_for(ADA).await;
        app.reset_password(&token, NEW).await.assert_status(204);

        for session in [&phone, &laptop] {
            session.get("/v1/auth/me").await.assert_problem(401, "unauthenticated");
        }
        app.try_login(ADA, PASSWORD).await.assert_problem(401, "invalid-credentials");
        app.log_in(ADA, NEW).await;
        let mails = app.mails_to(ADA).await;
        assert_eq!(templates(&mails), ["reset-password", "password-changed"]);
    })
    .await;
}

#[tokio::test]
async fn every_token_that_was_sent_is_worthless_once_one_was_used() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let first = app.token_for(ADA).await;
        app.forget_password(ADA).await;
        let second = app.token_for(ADA).await;

        app.reset_password(&second, NEW).await.assert_status(204);

        for token in [&first, &second] {
            let refusal = app.reset_password(token, "yet another one").await;
            refusal.assert_problem(422, "invalid-mail-token");
        }
        app.log_in(ADA, NEW).await;
    })
    .await;
}

#[tokio::test]
async fn of_twenty_who_use_a_token_at_once_one_chooses_the_password() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let token = app.token_for(ADA).await;
        let passwords: Vec<_> = (0..20).map(|number| format!("password number {number}")).collect();

        let answers =
            join_all(passwords.iter().map(|password| app.reset_password(&token, password))).await;

        let mut winners = Vec::new();
        for (answer, password) in answers.iter().zip(&passwords) {
            match answer.status {
                204 => winners.push(password),
                // A busy database is nobody's win.
                503 => {}
                _ => {
                    answer.assert_problem(422, "invalid-mail-token");
                }
            }
        }
        assert_eq!(winners.len(), 1);
        app.log_in(ADA, winners[0]).await;
        assert_eq!(templates(&app.mails_to(ADA).await), ["reset-password", "password-changed"]);
    })
    .await;
}

#[tokio::test]
async fn resets_and_changes_of_one_password_at_once_wait_for_one_another_and_fail_nobody() {
    TestApp::run(async |app| {
        for round in 0..8 {
            let email = format!("ada{round}@example.com");
            app.user(&email, Role::Customer).await;
            let session = app.log_in(&email, PASSWORD).await;
            app.forget_password(&email).await;
            let first = app.token_for(&email).await;
            app.forget_password(&email).await;
            let second = app.token_for(&email).await;
            let change = json!({ "password": PASSWORD, "new_password": "of the session" });

            let (one, other, changed) = join3(
                app.reset_password(&first, "of the first mail"),
                app.reset_password(&second, "of the second mail"),
                session.post("/v1/auth/change-password", &change),
            )
            .await;

            for answer in [&one, &other, &changed] {
                assert!(answer.status < 500, "{} {}", answer.status, answer.body);
            }
            // One of them has it; or the session first and no mail after it.
            let winners = [&one, &other, &changed].iter().filter(|one| one.status == 204).count();
            assert_eq!(winners, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn two_mails_of_one_account_used_at_once_never_wait_for_each_other_in_a_circle() {
    TestApp::run(async |app| {
        for round in 0..12 {
            let email = format!("ada{round}@example.com");
            app.user(&email, Role::Customer).await;
            app.forget_password(&email).await;
            let first = app.token_for(&email).await;
            app.forget_password(&email).await;
            let second = app.token_for(&email).await;

            let (one, other) = join(
                app.reset_password(&first, "of the first mail"),
                app.reset_password(&second, "of the second mail"),
            )
            .await;

            let mut statuses = [one.status, other.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [204, 422], "{} {}", one.body, other.body);
        }
    })
    .await;
}

/// Has the request wait for its user in vain once, and returns its answer. Where the machine stalls for
/// longer than a request is patient, it is made again.
async fn held_up(app: &TestApp, request: impl AsyncFn() -> Answer) -> Answer {
    const STALLS_MAX: usize = 5;
    for _ in 0..STALLS_MAX {
        let mut holder = app.db.begin().await.unwrap();
        sqlx::query("SELECT id FROM users FOR NO KEY UPDATE").execute(&mut *holder).await.unwrap();
        match app.hold_up(holder, request()).await {
            Some(answer) if answer.status != 503 => return answer,
            _ => {}
        }
    }
    panic!("it was given up every time");
}

#[tokio::test]
async fn a_change_of_password_that_waited_too_long_for_its_user_is_done_again() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let token = app.token_for(ADA).await;

        let reset = held_up(app, async || app.reset_password(&token, NEW).await).await;
        reset.assert_status(204);

        let session = app.log_in(ADA, NEW).await;
        let change = json!({ "password": NEW, "new_password": PASSWORD });
        let path = "/v1/auth/change-password";
        let changed = held_up(app, async || session.post(path, &change).await).await;
        changed.assert_status(204);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_good_for_half_an_hour() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let token = app.token_for(ADA).await;
        let left: f64 = app
            .scalar("SELECT extract(epoch FROM expires_at - now())::float8 FROM account_tokens")
            .await;
        assert!((1_700.0..=1_800.0).contains(&left), "{left} s");

        app.execute("UPDATE account_tokens SET expires_at = expires_at - interval '30 minutes'")
            .await;

        let refusal = app.reset_password(&token, NEW).await;
        refusal.assert_problem(422, "invalid-mail-token");
        app.log_in(ADA, PASSWORD).await;
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_never_stops_asking_does_not_keep_the_owner_out() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        for _ in 0..12 {
            app.register(ADA, PASSWORD).await.assert_status(202);
        }
        app.settle().await;
        for _ in 0..12 {
            app.forget_password(ADA).await.assert_status(202);
        }
        let resets = async || {
            let mails = app.mails_to(ADA).await;
            templates(&mails).into_iter().filter(|template| *template == "reset-password").count()
        };
        // No more than are useful: each of them works.
        assert_eq!(resets().await, 5);
        let last = app.token_for(ADA).await;

        // None of them works for much longer.
        app.execute("UPDATE account_tokens SET expires_at = now() + interval '4 minutes'").await;
        app.forget_password(ADA).await.assert_status(202);

        assert_eq!(resets().await, 6);
        let token = app.token_for(ADA).await;
        assert_ne!(token, last);
        app.reset_password(&token, NEW).await.assert_status(204);
        app.log_in(ADA, NEW).await;
    })
    .await;
}

#[tokio::test]
async fn a_token_of_no_mail_opens_nothing_and_a_bad_password_is_told_first() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let token = app.token_for(ADA).await;
        let before = app.books().await;

        for token in ["", "nonsense", &"A".repeat(43), &token[1..], &format!("{token}=")] {
            let refusal = app.reset_password(token, NEW).await;
            refusal.assert_problem(422, "invalid-mail-token");
        }
        let refusal = app.reset_password(&token, "short").await;
        refusal
            .assert_problem(422, "invalid-request")
            .assert_errors(&[("/new_password", "invalid-password")]);

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn neither_a_refresh_token_nor_a_mail_token_is_an_access_token() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.forget_password(ADA).await;
        let mail_token = app.token_for(ADA).await;
        let login = app.try_login(ADA, PASSWORD).await;
        let cookie = login.header("set-cookie").unwrap();
        let refresh_token = cookie.split(['=', ';']).nth(1).unwrap();

        for token in [mail_token.as_str(), refresh_token] {
            let caller = app.anybody().with_token(token, None);
            caller.get("/v1/auth/me").await.assert_problem(401, "unauthenticated");
        }
    })
    .await;
}
