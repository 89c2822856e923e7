//! Another key signs, and no request is refused for it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use holdfast::config::Keys;

use super::{EMAIL, Held, log_in, me, user};
use crate::support::{
    app::{SEED, TestApp},
    client::{Answer, Client, until},
};

const NEXT: [u8; 32] = [9; 32];

const OLD_ALONE: &[(&str, [u8; 32])] = &[("test", SEED)];
const NEXT_PUBLISHED: &[(&str, [u8; 32])] = &[("test", SEED), ("next", NEXT)];
const NEXT_SIGNS: &[(&str, [u8; 32])] = &[("next", NEXT), ("test", SEED)];
const OLD_RETIRED: &[(&str, [u8; 32])] = &[("next", NEXT)];

/// A process of the shop with these keys.
async fn api(app: &TestApp, keys: &[(&str, [u8; 32])]) -> Client {
    let keys = keys.iter().map(|&(name, seed)| (name.to_owned(), seed)).collect();
    app.another_api_with(app.cx.clone(), |settings| settings.token_keys = Keys::new(keys)).await
}

async fn names(api: &Client) -> Vec<String> {
    let keys = api.get("/.well-known/jwks.json").await;
    keys.assert_status(200)
        .assert_header("content-type", "application/jwk-set+json")
        .assert_header("cache-control", "public, max-age=300");
    let keys = keys.at("/keys");
    keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Two processes behind something that sends each request to one of them.
#[derive(Clone)]
struct Balancer {
    apis: Arc<Mutex<[Client; 2]>>,
    turn: Arc<AtomicUsize>,
}

impl Balancer {
    fn next(&self) -> Client {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.apis.lock().unwrap()[turn % 2].clone()
    }

    fn replace(&self, place: usize, api: Client) {
        self.apis.lock().unwrap()[place] = api;
    }
}

/// Browsers that ask and refresh without a pause, and what they have been through.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    rounds: Vec<AtomicUsize>,
    refused: Mutex<Vec<String>>,
}

impl Crowd {
    /// Waits until every browser has begun and ended a round, which refreshes its token.
    async fn until_all_went_round(&self) {
        let rounds = || self.rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst));
        let before: Vec<_> = rounds().collect();
        until("every browser has refreshed", async || {
            // One of the two may have begun before.
            if rounds().zip(&before).all(|(now, before)| now >= before + 2) {
                return Ok(());
            }
            Err(format!("{before:?} {:?}", rounds().collect::<Vec<_>>()))
        })
        .await;
    }

    async fn browse(&self, browser: usize, balancer: &Balancer, mut held: Held) {
        while !self.stop.load(Ordering::SeqCst) {
            for _ in 0..2 {
                self.check(&answered(async || me(&held.at(&balancer.next())).await).await);
            }
            let answer = answered(async || held.refresh_at(&balancer.next()).await).await;
            self.check(&answer);
            if answer.status == 200 {
                held = Held::from(&answer);
            }
            self.rounds[browser].fetch_add(1, Ordering::SeqCst);
        }
    }

    fn check(&self, answer: &Answer) {
        if answer.status != 200 {
            self.refused.lock().unwrap().push(format!("{} {}", answer.status, answer.body));
        }
    }
}

/// Asks until there is an answer: a machine that does other work, too, may say that it is busy.
async fn answered(ask: impl AsyncFn() -> Answer) -> Answer {
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_key_is_rotated_under_load_without_a_rejected_request_and_then_retired() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let start = [api(app, OLD_ALONE).await, api(app, OLD_ALONE).await];
        let balancer =
            Balancer { apis: Arc::new(Mutex::new(start)), turn: Arc::new(AtomicUsize::new(0)) };
        let rounds = (0..6).map(|_| AtomicUsize::new(0)).collect();
        let crowd = Crowd { rounds, ..Crowd::default() };
        let from_before = log_in(app, EMAIL).await;
        let mut logins = Vec::new();
        for _ in 0..crowd.rounds.len() {
            logins.push(log_in(app, EMAIL).await);
        }

        let browsing = logins.into_iter().enumerate();
        let browsing = browsing.map(|(n, held)| crowd.browse(n, &balancer, held));
        let rotation = async {
            crowd.until_all_went_round().await;
            for keys in [NEXT_PUBLISHED, NEXT_SIGNS, OLD_RETIRED] {
                // One process after the other, so that each pair of versions works side by side.
                for place in 0..2 {
                    balancer.replace(place, api(app, keys).await);
                    crowd.until_all_went_round().await;
                }
            }
            crowd.stop.store(true, Ordering::SeqCst);
        };
        tokio::join!(join_all(browsing), rotation);

        let refused = crowd.refused.into_inner().unwrap();
        let requests: usize = crowd.rounds.iter().map(|it| 3 * it.load(Ordering::SeqCst)).sum();
        assert!(refused.is_empty(), "{} of {requests}: {refused:?}", refused.len());
        // What the retired key has signed is worth nothing now, though its time is not over.
        let retired = balancer.next();
        me(&from_before.at(&retired)).await.assert_problem(401, "unauthenticated");
        me(&from_before.at(&app.anybody())).await.assert_status(200);
        // The session itself goes on.
        let held = Held::from(&from_before.refresh_at(&retired).await);
        me(&held.at(&retired)).await.assert_status(200);
        me(&held.at(&app.anybody())).await.assert_problem(401, "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn a_key_is_published_before_it_signs() {
    TestApp::run(async |app| {
        assert_eq!(names(&app.anybody()).await, ["test"]);
        assert_eq!(names(&api(app, NEXT_PUBLISHED).await).await, ["test", "next"]);
        assert_eq!(names(&api(app, OLD_RETIRED).await).await, ["next"]);
        // Nobody needs to prove anything for public keys, and nothing private is among them.
        let keys = app.anybody().get("/.well-known/jwks.json").await;
        let members: Vec<_> = keys.at("/keys/0").as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_refresh_finds_its_successor_while_keys_rotate() {
    TestApp::run(async |app| {
        user(app, EMAIL).await;
        let first = log_in(app, EMAIL).await;
        let published = api(app, NEXT_PUBLISHED).await;
        let signs = api(app, NEXT_SIGNS).await;

        let second = Held::from(&first.refresh_at(&signs).await);
        let again = Held::from(&first.refresh_at(&published).await);

        assert_eq!(again.refresh_token, second.refresh_token);
        assert_eq!(app.count("sessions WHERE revoked_at IS NOT NULL").await, 0);
    })
    .await;
}
