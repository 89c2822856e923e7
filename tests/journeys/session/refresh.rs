//! Going on with a session, and who may not.

use futures_util::future::join_all;
use holdfast::identity::sessions::{AGE_MAX, GRACE, IDLE_MAX};
use jobs::{Job, notifications::SendSessionRevoked};
use reqwest::Method;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{BROWSER, EMAIL, Held, age_uses, cookie, log_in, log_in_answer, me, refresh, user};
use crate::support::{app::TestApp, client::Answer};

#[tokio::test]
async fn a_login_keeps_its_refresh_token_from_scripts_other_sites_and_other_paths() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;

        let answer = log_in_answer(app, EMAIL).await;

        let held = Held::from(&answer);
        assert_eq!(
            answer.header("set-cookie").unwrap(),
            format!(
                "__Secure-refresh={}; Path=/v1/auth; HttpOnly; Secure; SameSite=Strict; Max-Age=2592000",
                held.refresh_token
            )
        );
        assert!(!answer.body.contains(&held.refresh_token));
        assert_eq!(answer.at("/expires_in"), 600);
        let tables: String = app
            .scalar("SELECT string_agg(t::text, '') || (SELECT string_agg(s::text, '') FROM sessions AS s) FROM refresh_tokens AS t")
            .await;
        assert!(!tables.contains(&held.refresh_token["hfr1_".len()..]), "{tables}");
    })
    .await;
}

#[tokio::test]
async fn a_refresh_token_gets_the_next_access_token_and_its_own_successor() {
    TestApp::run(async |app| {
        let id = user(app, EMAIL).await;
        let first = log_in(app, EMAIL).await;

        let answer = first.refresh_at(&app.anybody()).await;

        let second = Held::from(&answer);
        assert_eq!(answer.at("/user_id"), id.to_string());
        assert_ne!(second.refresh_token, first.refresh_token);
        let third = Held::from(&second.refresh_at(&app.anybody()).await);
        me(&third.at(&app.anybody())).await.assert_status(200);
        assert_eq!(app.count("sessions").await, 1);
        assert_eq!(app.count("refresh_tokens WHERE used_at IS NULL").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_costs_no_session_within_the_grace() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let other_api = app.another_api(app.cx.clone()).await;
        let first = log_in(app, EMAIL).await;
        let second = Held::from(&first.refresh_at(&app.anybody()).await);

        // Within the grace, at another process.
        age_uses(app, i32::try_from(GRACE.as_secs()).unwrap() / 2).await;
        let again = Held::from(&first.refresh_at(&other_api).await);

        assert_eq!(again.refresh_token, second.refresh_token);
        me(&again.at(&app.anybody())).await.assert_status(200);
        // What the session goes on with is given even to who is two steps behind.
        let third = Held::from(&second.refresh_at(&app.anybody()).await);
        let again = Held::from(&first.refresh_at(&app.anybody()).await);
        assert_eq!(again.refresh_token, third.refresh_token);
        assert_eq!(app.count("sessions WHERE revoked_at IS NOT NULL").await, 0);
        assert_eq!(app.count("job_ledger").await, 0);
    })
    .await;
}

#[tokio::test]
async fn refresh_token_reuse_ends_the_session_for_thief_and_victim_and_tells_the_user() {
    TestApp::run(async |app| {
        let id = user(app, EMAIL).await;
        let other_api = app.another_api(app.cx.clone()).await;
        let elsewhere = log_in(app, EMAIL).await;
        let first = log_in(app, EMAIL).await;
        let second = Held::from(&first.refresh_at(&app.anybody()).await);
        me(&second.at(&other_api)).await.assert_status(200);
        age_uses(app, i32::try_from(GRACE.as_secs()).unwrap() + 1).await;

        first.refresh_at(&other_api).await.assert_problem(401, "session-ended");

        second.refresh_at(&app.anybody()).await.assert_problem(401, "session-ended");
        for held in [&first, &second] {
            me(&held.at(&app.anybody())).await.assert_problem(401, "unauthenticated");
            me(&held.at(&other_api)).await.assert_problem(401, "unauthenticated");
        }
        // The user's other session is none of it.
        me(&elsewhere.at(&other_api)).await.assert_status(200);
        Held::from(&elsewhere.refresh_at(&app.anybody()).await);
        // Once more ends nothing more, and tells nobody again.
        first.refresh_at(&app.anybody()).await.assert_problem(401, "session-ended");
        let staged: Vec<(String, serde_json::Value)> =
            sqlx::query_as("SELECT kind, payload FROM job_ledger")
                .fetch_all(&app.db)
                .await
                .unwrap();
        let session: Uuid =
            app.scalar("SELECT id FROM sessions WHERE revoked_for = 'token_reused'").await;
        let payload = json!({ "v": 1, "session_id": session, "user_id": id });
        assert_eq!(staged, [(SendSessionRevoked::KIND.to_owned(), payload)]);
        app.settle().await;
        let mails = app.mails("session-revoked", session);
        assert_eq!(mails.len(), 1);
        assert_eq!(mails[0].to, [EMAIL]);
        assert!(!mails[0].text.contains("hfr1_"));
    })
    .await;
}

#[tokio::test]
async fn two_tabs_at_once_are_one_session_and_nobody_is_locked_out() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let mut held = log_in(app, EMAIL).await;

        for _ in 0..20 {
            let tabs = (0..4).map(|tab| held.refresh_at(&apis[tab % 2]));
            let answers = join_all(tabs).await;

            let successors: Vec<_> =
                answers.iter().map(|it| Held::from(it).refresh_token).collect();
            assert!(successors.iter().all(|it| *it == successors[0]), "{successors:?}");
            held = Held::from(&answers[3]);
        }

        me(&held.at(&apis[1])).await.assert_status(200);
        assert_eq!(app.count("sessions WHERE revoked_at IS NULL").await, 1);
        assert_eq!(app.count("refresh_tokens").await, 21);
        assert_eq!(app.count("job_ledger").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_when_it_is_too_old() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let held = log_in(app, EMAIL).await;
        let ends = async || -> (OffsetDateTime, OffsetDateTime, OffsetDateTime) {
            sqlx::query_as("SELECT created_at, last_used_at, expires_at FROM sessions")
                .fetch_one(&app.db)
                .await
                .unwrap()
        };
        let (_, last_used_at, expires_at) = ends().await;
        assert_eq!(expires_at - last_used_at, IDLE_MAX);

        // A use moves the end on, though never beyond half a year after the login.
        app.execute("UPDATE sessions SET expires_at = now() + interval '1 minute'").await;
        let held = Held::from(&held.refresh_at(&app.anybody()).await);
        let (_, last_used_at, expires_at) = ends().await;
        assert_eq!(expires_at - last_used_at, IDLE_MAX);
        app.execute("UPDATE sessions SET created_at = now() - interval '170 days'").await;
        let held = Held::from(&held.refresh_at(&app.anybody()).await);
        let (created_at, last_used_at, expires_at) = ends().await;
        assert_eq!(expires_at - created_at, AGE_MAX);
        assert!(expires_at - last_used_at < Duration::days(11));

        app.execute("UPDATE sessions SET expires_at = now()").await;
        held.refresh_at(&app.anybody()).await.assert_problem(401, "session-ended");
        me(&held.at(&app.anybody())).await.assert_problem(401, "unauthenticated");
        assert_eq!(app.count("job_ledger").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_refresh_token_opens_nothing() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let held = log_in(app, EMAIL).await;
        let (guest, anybody) = (app.guest().await, app.anybody());
        let random = format!("hfr1_{}", "A".repeat(43));
        let before = app.books().await;

        let bare = Answer::to(anybody.request(Method::POST, "/v1/auth/refresh")).await;
        bare.assert_problem(401, "session-ended");
        assert_eq!(cookie(&bare), None);
        for token in ["", "nonsense", &random, &held.access_token, guest.token()] {
            refresh(&anybody, token).await.assert_problem(401, "session-ended");
        }
        // An access token is no refresh token, wherever it stands; the other way round neither.
        refresh(&held.at(&anybody), "").await.assert_problem(401, "session-ended");
        let as_bearer = anybody.with_token(&held.refresh_token, None);
        me(&as_bearer).await.assert_problem(401, "unauthenticated");
        as_bearer.orders().await.assert_problem(401, "unauthenticated");
        // What a mail carries to reset a password looks like this.
        let from_mail = anybody.with_token(&"A".repeat(43), None);
        me(&from_mail).await.assert_problem(401, "unauthenticated");
        // Two cookies of the name: one was planted.
        let two = format!("__Secure-refresh={random}; __Secure-refresh={}", held.refresh_token);
        let planted = anybody.request(Method::POST, "/v1/auth/refresh").header("cookie", two);
        Answer::to(planted).await.assert_problem(401, "session-ended");

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn the_user_sees_where_they_are_logged_in() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        user(app, "eve@example.com").await;
        log_in(app, "eve@example.com").await;
        let old = log_in(app, EMAIL).await;
        let long = "x".repeat(500);
        let request = app.anybody().request(Method::POST, "/v1/auth/refresh");
        let cookie = format!("__Secure-refresh={}", old.refresh_token);
        let request = request.header("cookie", cookie).header("user-agent", &long);
        let elsewhere = Held::from(&Answer::to(request).await);
        let here = log_in(app, EMAIL).await;

        let listed = here.at(&app.anybody()).get("/v1/auth/sessions").await;

        listed.assert_status(200).assert_header("cache-control", "no-store");
        assert_eq!(listed.at("/sessions").as_array().unwrap().len(), 2);
        assert_eq!(listed.at("/sessions/0/is_current"), true);
        assert_eq!(listed.at("/sessions/0/user_agent"), BROWSER);
        assert_eq!(listed.at("/sessions/1/is_current"), false);
        assert_eq!(listed.at("/sessions/1/user_agent"), long[..200]);
        for moment in ["created_at", "last_used_at", "expires_at"] {
            assert!(listed.at(&format!("/sessions/1/{moment}")).as_str().unwrap().ends_with('Z'));
        }
        let seen_from_there = elsewhere.at(&app.anybody()).get("/v1/auth/sessions").await;
        assert_eq!(seen_from_there.at("/sessions/1/is_current"), true);
        assert!(!listed.body.contains("hfr1_"));
        app.guest().await.get("/v1/auth/sessions").await.assert_problem(403, "forbidden");
    })
    .await;
}
