//! Every request asks whether its session still stands, and what that costs.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast::{
    context::Context,
    identity::{IdentityError, KeyRing, Role, Session, Tokens, sessions::Standings},
    kernel::{SessionId, UserId},
};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use super::{EMAIL, log_in, me, user};
use crate::{
    slice::statements::Tap,
    support::{
        KEY,
        app::{SEED, TestApp},
    },
};

#[tokio::test]
async fn without_a_database_a_session_is_not_called_over() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let mug = app.product_with_stock(5).await;
        let held = log_in(app, EMAIL).await;
        let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
        let patience = Duration::from_millis(100);
        let db = PgPoolOptions::new().acquire_timeout(patience).connect_lazy(nowhere).unwrap();
        let api = app.another_api(Context { db, ..app.cx.clone() }).await;

        let customer = held.at(&api);
        for answer in [
            me(&customer).await,
            customer.orders().await,
            customer.place_order(KEY, &[(mug, 1)]).await,
            held.refresh_at(&api).await,
        ] {
            answer.assert_problem(503, "temporarily-unavailable");
        }

        // A token that is not ours is refused without asking anybody.
        let forged = api.with_token("a.b.c", None);
        me(&forged).await.assert_problem(401, "unauthenticated");
        // And here, nothing has happened to the session.
        me(&held.at(&app.anybody())).await.assert_status(200);
    })
    .await;
}

fn tokens() -> Tokens {
    Tokens::new(KeyRing::from_seeds(&[("test".to_owned(), SEED)]).unwrap())
}

async fn session(user_id: Uuid, session_id: Uuid, epoch: i32) -> Session {
    let (user_id, session_id) = (UserId::from(user_id), SessionId::from(session_id));
    let token = tokens().issue(user_id, session_id, Role::Customer, epoch).unwrap().token;
    tokens().verify(&token).await.unwrap()
}

#[tokio::test]
async fn requests_that_arrive_together_share_one_question() {
    TestApp::run(async |app| {
        let id = user(app, EMAIL).await;
        log_in(app, EMAIL).await;
        let mine: Uuid = app.scalar("SELECT id FROM sessions").await;
        let tap = Tap::open(app).await;
        let standings = Standings::start(tap.cx.db.clone());
        let (good, bad) = (session(id, mine, 0).await, session(id, Uuid::now_v7(), 0).await);

        let questions = (0..300).map(|n| standings.check(if n % 3 == 0 { bad } else { good }));
        let (answers, statements) = tap.count(join_all(questions)).await;

        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_ok(), n % 3 != 0, "{n}: {answer:?}");
        }
        // All of them wait when the task first looks: 200 and 100.
        assert!(statements <= 3, "{statements}");
    })
    .await;
}

#[tokio::test]
async fn a_session_stands_only_as_its_token_says() {
    TestApp::run(async |app| {
        let (ada, bob) = (user(app, EMAIL).await, user(app, "bob@example.com").await);
        log_in(app, EMAIL).await;
        let adas: Uuid = app.scalar("SELECT id FROM sessions").await;
        let standings = Standings::start(app.db.clone());

        assert!(standings.check(session(ada, adas, 0).await).await.is_ok());
        for other in [
            session(bob, adas, 0).await,
            session(ada, adas, 1).await,
            session(ada, Uuid::now_v7(), 0).await,
            session(Uuid::now_v7(), adas, 0).await,
        ] {
            let answer = standings.check(other).await;
            assert!(matches!(answer, Err(IdentityError::Unauthenticated)), "{answer:?}");
        }
    })
    .await;
}
