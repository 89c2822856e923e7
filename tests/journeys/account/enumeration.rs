//! Whether an address has an account is told to nobody but its owner.

use std::time::{Duration, Instant};

use holdfast::{
    config::HOLD_DEFAULT,
    identity::{
        Hasher, Password, Role,
        accounts::{ask_reset, register},
        authenticate,
    },
    kernel::EmailAddress,
};
use serde_json::{Value, json};

use super::ADA;
use crate::{
    slice::statements::Tap,
    support::{
        app::{PASSWORD, TestApp},
        client::Answer,
    },
};

/// How often each of two addresses is tried.
const SAMPLES: usize = 200;

/// How often the samples are taken anew, where the machine was busy with something else. What takes longer by
/// itself does so every time.
const ROUNDS: usize = 8;

/// No round begins later than this, so that the last one ends in time.
const ROUNDS_MAX: Duration = Duration::from_mins(2);

/// No difference that can be told from noise: a hash takes 20 ms and more.
const NOISE: Duration = Duration::from_micros(300);

/// 400 passwords are hashed in a round: 16 s of a processor, which a busy machine has not to give.
const TEST_MAX: Duration = Duration::from_mins(4);

/// Everything that an answer says but the request's own name and the moment.
fn said(answer: &Answer) -> (u16, Value, Vec<String>) {
    let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    let body = if answer.body.is_empty() { Value::Null } else { answer.without_request_id() };
    (answer.status, body, names)
}

async fn timed(app: &TestApp, path: &str, body: &Value) -> (Answer, Duration) {
    let start = Instant::now();
    let answer = app.anybody().post(path, body).await;
    (answer, start.elapsed())
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// An address that has an account and one that has none get the same answer, in the same time: the medians of
/// 200 samples each, taken in turn, are within a tenth of each other, or within the noise.
async fn assert_alike(app: &TestApp, path: &str, password: Option<&str>) {
    let body = |email: &str| match password {
        Some(password) => json!({ "email": email, "password": password }),
        None => json!({ "email": email }),
    };
    let (known, unknown) = (body(ADA), body("bob@example.com"));
    let begin = Instant::now();
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for sample in 0..SAMPLES {
            // Both at once, so that what slows the machine down slows both; they take turns in being first.
            let (a, b) = if sample % 2 == 0 {
                tokio::join!(timed(app, path, &known), timed(app, path, &unknown))
            } else {
                let (b, a) = tokio::join!(timed(app, path, &unknown), timed(app, path, &known));
                (a, b)
            };
            assert_eq!(said(&a.0), said(&b.0));
            with.push(a.1);
            without.push(b.1);
        }
        let (with, without) = (median(with), median(without));
        let difference = with.abs_diff(without);
        if difference * 10 < with.max(without) || difference < NOISE {
            return;
        }
        seen.push((with, without));
        if begin.elapsed() > ROUNDS_MAX {
            break;
        }
    }
    panic!("{path}: medians with and without an account: {seen:?}");
}

#[tokio::test]
async fn user_enumeration_a_registration_is_answered_alike_whoever_has_the_address() {
    TestApp::run_within(TEST_MAX, HOLD_DEFAULT, async |app| {
        app.user(ADA, Role::Customer).await;

        assert_alike(app, "/v1/auth/register", Some(PASSWORD)).await;

        app.expect_unfinished_jobs();
    })
    .await;
}

#[tokio::test]
async fn user_enumeration_a_forgotten_password_is_answered_alike_whoever_has_the_address() {
    TestApp::run_within(TEST_MAX, HOLD_DEFAULT, async |app| {
        app.user(ADA, Role::Customer).await;

        assert_alike(app, "/v1/auth/forgot-password", None).await;

        app.expect_unfinished_jobs();
    })
    .await;
}

#[tokio::test]
async fn user_enumeration_a_failed_login_is_answered_alike_whoever_has_the_address() {
    TestApp::run_within(TEST_MAX, HOLD_DEFAULT, async |app| {
        app.user(ADA, Role::Customer).await;

        assert_alike(app, "/v1/auth/login", Some("incorrect horse battery")).await;
    })
    .await;
}

#[tokio::test]
async fn user_enumeration_the_database_is_asked_the_same_whoever_has_the_address() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let tap = Tap::open(app).await;
        let hasher = Hasher::new(1);
        let password = |text| Password::parse(text).unwrap();
        let mut counts = Vec::new();

        for email in [ADA, "bob@example.com"] {
            let email = EmailAddress::parse(email).unwrap();
            let (asked, registering) =
                tap.count(register(&tap.cx, &hasher, &email, password(PASSWORD))).await;
            asked.unwrap();
            let (asked, forgetting) = tap.count(ask_reset(&tap.cx, &email)).await;
            asked.unwrap();
            let wrong = password("incorrect horse battery");
            let (refused, logging_in) =
                tap.count(authenticate(&tap.cx.db, &hasher, &email, wrong)).await;
            refused.unwrap_err();
            counts.push((registering, forgetting, logging_in));
        }

        assert_eq!(counts[0], counts[1]);
        assert!(counts[0].0 > 0 && counts[0].1 > 0 && counts[0].2 > 0, "{counts:?}");
        app.expect_unfinished_jobs();
    })
    .await;
}
