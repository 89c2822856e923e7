//! Ending sessions: it counts at once, in every process.

use holdfast::{
    identity::{
        Hasher, Password, Role,
        sessions::{self, Ended, SESSIONS_MAX, UserAgent},
        set_role,
    },
    kernel::{EmailAddress, SessionId, UserId},
};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{EMAIL, Held, cookie, log_in, me, user, with_cookie};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

/// The session is over in both processes, which have both seen its token before.
async fn assert_over(held: &Held, apis: &[Client]) {
    for api in apis {
        me(&held.at(api)).await.assert_problem(401, "unauthenticated");
        held.refresh_at(api).await.assert_problem(401, "session-ended");
    }
}

async fn assert_alive(held: &Held, apis: &[Client]) {
    for api in apis {
        me(&held.at(api)).await.assert_status(200);
    }
}

#[tokio::test]
async fn a_logout_counts_at_once_in_every_process() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let stays = log_in(app, EMAIL).await;
        let leaves = log_in(app, EMAIL).await;
        assert_alive(&leaves, &apis).await;

        let path = "/v1/auth/logout";
        let left = with_cookie(&apis[0], Method::POST, path, &leaves.refresh_token).await;

        left.assert_status(204);
        assert_eq!(
            left.header("set-cookie").unwrap(),
            "__Secure-refresh=; Path=/v1/auth; HttpOnly; Secure; SameSite=Strict; Max-Age=0"
        );
        assert_over(&leaves, &apis).await;
        assert_alive(&stays, &apis).await;
        // Whoever is out already is let go again.
        let again = with_cookie(&apis[1], Method::POST, path, &leaves.refresh_token).await;
        again.assert_status(204);
        assert_eq!(cookie(&again).unwrap(), "");
    })
    .await;
}

#[tokio::test]
async fn an_access_token_is_enough_to_log_out() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let held = log_in(app, EMAIL).await;
        assert_alive(&held, &apis).await;

        let log_out = |client: Client| Answer::to(client.request(Method::POST, "/v1/auth/logout"));
        log_out(held.at(&apis[0])).await.assert_status(204);

        assert_over(&held, &apis).await;
        log_out(held.at(&apis[0])).await.assert_problem(401, "unauthenticated");
        log_out(app.anybody()).await.assert_problem(401, "unauthenticated");
        log_out(app.guest().await).await.assert_problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_logout_everywhere_ends_every_session_of_the_user_and_of_nobody_else() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        user(app, "bob@example.com").await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let (one, other) = (log_in(app, EMAIL).await, log_in(app, EMAIL).await);
        let bob = log_in(app, "bob@example.com").await;
        for held in [&one, &other, &bob] {
            assert_alive(held, &apis).await;
        }

        let everywhere = one.at(&apis[0]).request(Method::POST, "/v1/auth/logout-everywhere");
        let left = Answer::to(everywhere).await;

        left.assert_status(204);
        assert_eq!(cookie(&left).unwrap(), "");
        assert_over(&one, &apis).await;
        assert_over(&other, &apis).await;
        assert_alive(&bob, &apis).await;
    })
    .await;
}

async fn end(client: &Client, session_id: &str) -> Answer {
    let path = format!("/v1/auth/sessions/{session_id}");
    Answer::to(client.request(Method::DELETE, &path)).await
}

#[tokio::test]
async fn a_user_ends_a_session_of_theirs_and_nobody_elses() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        user(app, "eve@example.com").await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let (here, lost) = (log_in(app, EMAIL).await, log_in(app, EMAIL).await);
        let eve = log_in(app, "eve@example.com").await.at(&apis[0]);
        assert_alive(&lost, &apis).await;
        let here = here.at(&apis[0]);
        let listed = here.get("/v1/auth/sessions").await;
        let lost_id = listed.at("/sessions/0/id").as_str().unwrap().to_owned();
        assert_eq!(listed.at("/sessions/0/is_current"), false);
        let before = app.books().await;

        let foreign = end(&eve, &lost_id).await;
        let unknown = end(&eve, &Uuid::now_v7().to_string()).await;
        foreign.assert_problem(404, "session-not-found");
        assert_eq!(foreign.without_request_id(), unknown.without_request_id());
        end(&app.guest().await, &lost_id).await.assert_problem(403, "forbidden");
        assert_eq!(app.books().await, before);

        end(&here, &lost_id).await.assert_status(204);
        assert_over(&lost, &apis).await;
        end(&here, &lost_id).await.assert_problem(404, "session-not-found");
        me(&here).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_change_of_role_counts_at_once_in_every_process() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let held = log_in(app, EMAIL).await;
        assert_alive(&held, &apis).await;
        let address = EmailAddress::parse(EMAIL).unwrap();

        set_role(&app.db, &address, Role::Staff).await.unwrap();

        for api in &apis {
            me(&held.at(api)).await.assert_problem(401, "unauthenticated");
        }
        // The session goes on, with the new role.
        let held = Held::from(&held.refresh_at(&apis[1]).await);
        for api in &apis {
            assert_eq!(me(&held.at(api)).await.assert_status(200).at("/role"), "staff");
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_of_password_ends_the_other_sessions_at_once_in_every_process() {
    TestApp::run(async |app| {
        let id = UserId::from(user(app, EMAIL).await);
        let apis = [app.anybody(), app.another_api(app.cx.clone()).await];
        let (kept, other) = (log_in(app, EMAIL).await, log_in(app, EMAIL).await);
        assert_alive(&kept, &apis).await;
        assert_alive(&other, &apis).await;
        let kept_id: Uuid = app.scalar("SELECT id FROM sessions ORDER BY id LIMIT 1").await;

        let mut tx = app.db.begin().await.unwrap();
        let kept_id = Some(SessionId::from(kept_id));
        let ended = sessions::revoke_all(&mut tx, id, kept_id, Ended::PasswordChanged).await;
        tx.commit().await.unwrap();

        assert_eq!(ended.unwrap(), 1);
        assert_over(&other, &apis).await;
        assert_alive(&kept, &apis).await;
    })
    .await;
}

#[tokio::test]
async fn an_old_password_opens_nothing_though_it_was_right_when_it_was_checked() {
    TestApp::run(async |app| {
        let id = user(app, EMAIL).await;
        let new = Password::parse("quite another battery").unwrap();
        let new = Hasher::new(1).hash(new).await.unwrap();
        // Changed and not yet committed: a login still finds the old hash, and then has to wait.
        let mut change = app.db.begin().await.unwrap();
        sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(id)
            .bind(new)
            .execute(&mut *change)
            .await
            .unwrap();

        let api = app.another_api(app.patient()).await;
        let credentials = json!({ "email": EMAIL, "password": PASSWORD });

        let (answer, ()) = tokio::join!(api.post("/v1/auth/login", &credentials), async {
            app.until_blocked().await;
            let id = UserId::from(id);
            sessions::revoke_all(&mut change, id, None, Ended::PasswordChanged).await.unwrap();
            change.commit().await.unwrap();
        });

        answer.assert_problem(401, "invalid-credentials");
        assert_eq!(app.count("sessions").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_password_is_hashed_anew_when_more_is_asked_of_hashes() {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

    TestApp::run(async |app| {
        let id = user(app, EMAIL).await;
        let weak = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(8_192, 1, 1, None).unwrap(),
        );
        let weak = weak.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
        assert!(Hasher::is_outdated(&weak));
        sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(id)
            .bind(&weak)
            .execute(&app.db)
            .await
            .unwrap();
        let wrong = json!({ "email": EMAIL, "password": "incorrect horse battery" });
        app.anybody().post("/v1/auth/login", &wrong).await.assert_status(401);
        let stored = async || app.scalar::<String>("SELECT password_hash FROM users").await;
        assert_eq!(stored().await, weak);

        log_in(app, EMAIL).await;

        let better = stored().await;
        assert!(!Hasher::is_outdated(&better), "{better}");
        log_in(app, EMAIL).await;
        assert_eq!(stored().await, better);
    })
    .await;
}

#[tokio::test]
async fn one_login_too_many_ends_the_session_not_used_for_longest() {
    TestApp::run(async |app| {
        let id = UserId::from(user(app, EMAIL).await);
        let forgotten = log_in(app, EMAIL).await;
        let agent = UserAgent::of(None);
        for _ in 1..SESSIONS_MAX {
            let mut tx = app.db.begin().await.unwrap();
            sessions::open(&mut tx, id, &agent).await.unwrap();
            tx.commit().await.unwrap();
        }
        me(&forgotten.at(&app.anybody())).await.assert_status(200);

        let newest = log_in(app, EMAIL).await.at(&app.anybody());

        assert_over(&forgotten, &[app.anybody()]).await;
        let listed = newest.get("/v1/auth/sessions").await;
        assert_eq!(
            i64::try_from(listed.at("/sessions").as_array().unwrap().len()),
            Ok(SESSIONS_MAX)
        );
        assert_eq!(app.count("sessions WHERE revoked_for = 'too_many'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_nobody_needs_of_sessions_any_more_is_forgotten() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let (ended, alive) = (log_in(app, EMAIL).await, log_in(app, EMAIL).await);
        let path = "/v1/auth/logout";
        let ended = with_cookie(&app.anybody(), Method::POST, path, &ended.refresh_token).await;
        ended.assert_status(204);
        let alive = Held::from(&alive.refresh_at(&app.anybody()).await);
        assert_eq!(sessions::purge(&app.db).await.unwrap(), 0);

        app.execute(
            "
            UPDATE sessions
            SET expires_at = expires_at - interval '8 days', revoked_at = revoked_at - interval '8 days'
            WHERE revoked_at IS NOT NULL
            ",
        )
        .await;
        app.execute("UPDATE refresh_tokens SET used_at = used_at - interval '31 days'").await;

        // The ended session with its token, and the token that was used.
        assert_eq!(sessions::purge(&app.db).await.unwrap(), 3);
        assert_eq!(app.count("sessions").await, 1);
        assert_eq!(app.count("refresh_tokens").await, 1);
        Held::from(&alive.refresh_at(&app.anybody()).await);
    })
    .await;
}
