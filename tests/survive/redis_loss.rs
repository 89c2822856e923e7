//! A Redis that forgets, hangs and goes.

use std::time::Duration;

use holdfast::{
    identity::{self, Hasher, Password, Role},
    kernel::EmailAddress,
};
use reqwest::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    cluster::{Origin, Plan},
    ledger::Answer,
    load::Load,
    process::Signal,
    shop::{Shop, survive},
};

/// Who logs in all the time.
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery";

/// A deadline whose wake-up was lost is noticed by the sweep, which comes every two seconds.
const LATENESS_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_hangs_and_goes_under_load_fails_nobody_and_loses_nothing() {
    let plan = Plan { hold: Duration::from_secs(5), redis: Origin::Own, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let mug = shop.stock(100_000).await;
        let client = shop.client();
        let (email, password) = (EmailAddress::parse(EMAIL), Password::parse(PASSWORD));
        let (email, password, db) = (email.unwrap(), password.unwrap(), &shop.cluster.db);
        let hasher = Hasher::new(1);
        identity::create_user(db, &hasher, email, password, Role::Customer).await.unwrap();
        let closing = CancellationToken::new();
        let logins = tokio::spawn(log_in_again_and_again(client.clone(), closing.clone()));
        let load = Load::start(&client, 6, mug);

        shop.until_placed(30).await;
        for _ in 0..3 {
            flush(shop).await;
            shop.until_placed(30).await;
        }
        let redis = shop.cluster.redis.as_mut().unwrap();
        redis.process.signal(Signal::Freeze);
        shop.until_placed(60).await;
        let redis = shop.cluster.redis.as_mut().unwrap();
        redis.process.signal(Signal::Thaw);
        for signal in [Signal::Kill, Signal::Terminate] {
            shop.until_placed(30).await;
            shop.cluster.redis.as_mut().unwrap().stop(signal).await;
            shop.until_placed(100).await;
            shop.cluster.redis.as_mut().unwrap().start_again().await;
        }
        shop.until_placed(30).await;
        flush(shop).await;
        load.stop().await;
        closing.cancel();

        shop.all_work_ends().await;
        shop.ledger.assert_served(shop.ledger.answers());
        assert_eq!(shop.ledger.count(|answer| matches!(answer, Answer::Lost(_))), 0);
        let logins = logins.await.unwrap();
        assert!(
            logins.len() > 5 && logins.iter().all(|status| *status == StatusCode::OK),
            "{logins:?}"
        );
        let lateness = shop.lateness_max().await;
        println!("at most {lateness:?} late, {} logins", logins.len());
        assert!(lateness <= LATENESS_MAX, "{lateness:?} late");
    })
    .await;
}

async fn flush(shop: &Shop) {
    let redis = redis::Client::open(shop.cluster.redis_url.as_str()).unwrap();
    let mut connection = redis.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
}

/// Logs in with an account until the shop closes, and returns what every login was answered.
async fn log_in_again_and_again(client: Client, closing: CancellationToken) -> Vec<StatusCode> {
    let credentials = json!({ "email": EMAIL, "password": PASSWORD });
    let mut answers = Vec::new();
    while !closing.is_cancelled() {
        answers.push(client.post("/v1/auth/login", &credentials).await);
        // A login is a hash, of which a machine has not many to give.
        let _ = tokio::time::timeout(Duration::from_millis(200), closing.cancelled()).await;
    }
    answers
}
