//! Somebody who guesses passwords, and the owners of the accounts.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use holdfast::{
    identity::{self, Hasher, Password, Role},
    kernel::EmailAddress,
};

use reqwest::Method;
use serde_json::json;

use super::{address, count, from, log_in, login};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client, checkout_body, until},
};

const OWNER: &str = "ada@example.com";
const HOME: &str = "192.0.2.1";
const WRONG: &str = "incorrect horse battery";

/// No more than there are connections to the database, so that nobody waits for one.
const AT_ONCE: usize = 8;

impl TestApp {
    async fn account(&self, email: &str) {
        let (email, password) = (EmailAddress::parse(email), Password::parse(PASSWORD));
        let (email, password) = (email.unwrap(), password.unwrap());
        identity::create_user(&self.db, &Hasher::new(1), email, password, Role::Customer)
            .await
            .unwrap();
    }
}

/// Sends all of them, some at a time. A machine that is too busy for one (503) has told the guesser nothing.
async fn stuff(guesses: impl Iterator<Item = reqwest::RequestBuilder>) -> Vec<Answer> {
    let answers = stream::iter(guesses.map(Answer::to)).buffer_unordered(AT_ONCE);
    let answers: Vec<_> = answers.collect().await;
    for answer in answers.iter().filter(|answer| !matches!(answer.status, 401 | 503)) {
        answer.assert_problem(429, "too-often");
    }
    assert!(count(&answers, 503) < answers.len() / 2);
    answers
}

/// So many were let in to guess. Whoever waited too long for a turn to be hashed was one of the least, and
/// has learnt nothing.
#[track_caller]
fn assert_let_in(answers: &[Answer], allowed: RangeInclusive<usize>) {
    let (guessed, unserved) = (count(answers, 401), count(answers, 503));
    let is_right = guessed <= *allowed.end() && guessed + unserved >= *allowed.start();
    assert!(is_right, "{guessed} have guessed and {unserved} waited in vain, not {allowed:?}");
}

/// Guesses at the owner's password, each time from another address, at each process in turn.
async fn stuff_from_everywhere(apis: &[&Client], first: usize, guesses: usize) -> Vec<Answer> {
    let numbers = first..first + guesses;
    stuff(numbers.map(|n| login(apis[n % apis.len()], &address(n), OWNER, WRONG))).await
}

#[tokio::test]
async fn brute_force_on_one_account_from_a_thousand_addresses_yields_a_few_guesses() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-account:1/s:5";
        let apis = [app.limited(limits).await, app.limited(limits).await];
        let begun = Instant::now();

        let answers = stuff_from_everywhere(&[&apis[0], &apis[1]], 0, 1_000).await;

        // Five, and then one after 1 s, one after 2 s more, and so on: of both processes together, and
        // of each where Redis was too busy to answer in time.
        let slowly = usize::try_from((begun.elapsed().as_secs() + 2).ilog2()).unwrap();
        assert_let_in(&answers, 5..=2 * (5 + slowly));
        // An account that does not exist is guessed at as slowly.
        let nobody =
            stuff((0..100).map(|n| login(&apis[n % 2], &address(n), "nobody@example.com", WRONG)));
        assert_let_in(&nobody.await, 5..=16);
    })
    .await;
}

#[tokio::test]
async fn stuffing_a_thousand_accounts_from_one_address_yields_a_few_guesses() {
    TestApp::run(async |app| {
        let api = app.limited("guess-address:1/s:5").await;
        // Wherever in their network of 64 bits the guesser is.
        for (place, network) in
            [["192.0.2.7"; 3], ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:f::"]]
                .iter()
                .enumerate()
        {
            let begun = Instant::now();

            let guesses = (0..1_000).map(|n| {
                login(&api, network[n % 3], &format!("shopper-{place}-{n}@example.com"), WRONG)
            });
            let answers = stuff(guesses).await;

            let slowly = usize::try_from((begun.elapsed().as_secs() + 2).ilog2()).unwrap();
            assert_let_in(&answers, 5..=5 + slowly);
        }
        log_in(&api, "2001:db8:1:3::1", "shopper@example.com", WRONG).await.assert_status(401);
    })
    .await;
}

#[tokio::test]
async fn the_owner_logs_in_where_they_are_known_while_their_account_is_guessed_at() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-account:1/m:5,guess-all:1/m:10";
        let (api, other) = (app.limited(limits).await, app.limited(limits).await);
        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);

        let apis = [&api, &other];
        let stuffing = stuff_from_everywhere(&apis, 0, 300);
        let owner = async {
            for turn in 0..10 {
                // A machine that is too busy to hash has them come back.
                let answer = until("the owner is served", async || {
                    let answer = log_in(apis[turn % 2], HOME, OWNER, PASSWORD).await;
                    if answer.status == 503 { Err(answer.body) } else { Ok(answer) }
                });
                answer.await.assert_status(200);
            }
        };
        let (answers, ()) = tokio::join!(stuffing, owner);

        // Ten where Redis was too busy to answer in time, and each process counted by itself.
        assert_let_in(&answers, 5..=10);
        // A slip of the owner is no end of it, either.
        log_in(&other, HOME, OWNER, WRONG).await.assert_status(401);
        log_in(&other, HOME, OWNER, PASSWORD).await.assert_status(200);
        // Where nobody knows them they have to queue with the guesser.
        log_in(&api, "192.0.2.99", OWNER, PASSWORD).await.assert_problem(429, "too-often");
    })
    .await;
}

#[tokio::test]
async fn the_owner_logs_in_from_a_new_place_at_the_pace_of_the_account() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        // Doubled six times: 1.3 s.
        let api = app.limited("guess-account:50/s:5").await;
        stuff_from_everywhere(&[&api], 0, 300).await;
        let begun = Instant::now();

        until("the account's turn", async || {
            let answer = log_in(&api, "192.0.2.99", OWNER, PASSWORD).await;
            let Some(wait) = answer.header("retry-after") else { return Ok(answer) };
            assert!(wait.parse::<u64>().unwrap() <= 2, "{wait}");
            Err(format!("wait {wait} s"))
        })
        .await
        .assert_status(200);

        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn right_passwords_use_nothing_up() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-here:1/h:2,guess-address:1/h:2,guess-account:1/h:2,guess-all:1/h:2";
        let api = app.limited(limits).await;

        for number in 0..8 {
            // Each from another place, and each place twice.
            log_in(&api, &address(number / 2), OWNER, PASSWORD).await.assert_status(200);
        }

        log_in(&api, HOME, OWNER, WRONG).await.assert_status(401);
    })
    .await;
}

#[tokio::test]
async fn a_right_password_that_ends_in_a_conflict_uses_nothing_up() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let mug = app.product_with_stock(1).await;
        let limits = "guess-here:1/h:2,guess-address:1/h:2,guess-account:1/h:2,guess-all:1/h:2";
        let api = app.limited(limits).await;
        let owner = log_in(&api, HOME, OWNER, PASSWORD).await;
        let owner = api.with_token(owner.at("/access_token").as_str().unwrap(), None);
        owner.order_for(&[(mug, 1)]).await;
        let staff = app.staff().await;
        let staff = api.with_token(staff.token(), staff.id);
        let erase = async |who: &Client, address: &str, password: &str| {
            let request = from(address, who, Method::DELETE, "/v1/auth/me");
            Answer::to(request.json(&json!({ "password": password }))).await
        };

        for _ in 0..4 {
            erase(&owner, HOME, PASSWORD).await.assert_problem(409, "open-orders");
            erase(&staff, "192.0.2.2", PASSWORD).await.assert_problem(409, "staff-account");
        }

        // A wrong one does.
        for _ in 0..2 {
            erase(&owner, HOME, WRONG).await.assert_problem(403, "wrong-password");
        }
        erase(&owner, HOME, PASSWORD).await.assert_problem(429, "too-often");
    })
    .await;
}

#[tokio::test]
async fn a_right_password_is_an_end_of_the_wrong_ones_at_every_process() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-here:1/h:2";
        let (api, other) = (app.limited(limits).await, app.limited(limits).await);

        for _ in 0..3 {
            // Two slips at one process, and each was made good at the other.
            log_in(&api, HOME, OWNER, WRONG).await.assert_status(401);
            log_in(&other, HOME, OWNER, PASSWORD).await.assert_status(200);
        }

        // Whoever has proven something there is as slow as anybody when they guess.
        for status in [401, 401, 429, 429] {
            log_in(&api, HOME, OWNER, WRONG).await.assert_status(status);
        }
    })
    .await;
}

#[tokio::test]
async fn a_thief_of_a_token_cannot_guess_the_password_by_changing_the_address() {
    TestApp::run(async |app| {
        let owner = app.customer().await;
        let api = app.limited("guess-account:1/h:3").await.with_token(owner.token(), owner.id);
        let change = async |place: usize, password: &str| {
            let request = from(&address(place), &api, Method::POST, "/v1/auth/change-email");
            let body = json!({ "email": "thief@example.com", "password": password });
            Answer::to(request.json(&body)).await
        };

        change(0, PASSWORD).await.assert_status(202);
        for place in 1..4 {
            change(place, WRONG).await.assert_problem(403, "wrong-password");
        }

        // Right or wrong, from wherever.
        change(4, WRONG).await.assert_problem(429, "too-often");
        change(5, PASSWORD).await.assert_problem(429, "too-often");
    })
    .await;
}

#[tokio::test]
async fn a_token_that_was_revoked_uses_up_nothing_of_its_owner() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let api = app.limited("checkout:1/h:3,guess-account:1/h:2").await;
        let mug = app.product_with_stock(10).await;
        let log_in = async || {
            let answer = log_in(&api, HOME, OWNER, PASSWORD).await;
            api.with_token(answer.at("/access_token").as_str().unwrap(), None)
        };
        let order = async |client: &Client, place: usize| {
            let order = checkout_body(&[(mug, 1)]);
            let order = client.checkout(&uuid::Uuid::now_v7().to_string(), &order);
            Answer::to(order.header("X-Forwarded-For", address(place))).await
        };
        let (lost, kept) = (log_in().await, log_in().await);
        let logout = from(HOME, &lost, Method::POST, "/v1/auth/logout");
        Answer::to(logout).await.assert_status(204);

        // It is nobody's, and counts where it comes from.
        for status in [401, 401, 401, 429, 429] {
            order(&lost, 1).await.assert_status(status);
        }

        order(&lost, 2).await.assert_status(401);
        for status in [201, 201, 201, 429] {
            order(&kept, 3).await.assert_status(status);
        }
        // Nor does whoever guesses with it make the account's guesses slow.
        let change = async |client: &Client, place: usize| {
            let request = from(&address(place), client, Method::POST, "/v1/auth/change-password");
            let body = json!({ "password": WRONG, "new_password": PASSWORD });
            Answer::to(request.json(&body)).await
        };
        for place in 10..14 {
            change(&lost, place).await.assert_status(401);
        }
        for status in [403, 403, 429] {
            change(&kept, 20).await.assert_status(status);
        }
    })
    .await;
}

#[tokio::test]
async fn guesses_that_come_at_once_count_before_they_are_answered() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let api = app.limited("guess-here:1/h:5").await;

        let guesses = (0..40).map(|_| log_in(&api, HOME, OWNER, WRONG));
        let answers = join_all(guesses).await;

        assert_eq!((count(&answers, 401), count(&answers, 429)), (5, 35));
        // Somebody else at home, and the owner elsewhere, are not concerned.
        log_in(&api, HOME, "bob@example.com", WRONG).await.assert_status(401);
        log_in(&api, "192.0.2.2", OWNER, PASSWORD).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_guesser_gains_nothing_by_a_redis_that_forgets_or_goes_away() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-account:1/h:5";
        let (api, gate) = app.limited_behind_a_gate(limits).await;
        let known_to_api = stuff_from_everywhere(&[&api], 0, 50).await;
        assert_eq!(count(&known_to_api, 401), 5);

        app.flush_redis().await;
        let after_flush = stuff_from_everywhere(&[&api], 100, 50).await;
        gate.close();
        let without_redis = stuff_from_everywhere(&[&api], 200, 50).await;

        assert_eq!(count(&after_flush, 401), 0);
        assert_eq!(count(&without_redis, 401), 0);
        // Another account is guarded by this process alone.
        let other = (0..50).map(|n| login(&api, &address(n), "bob@example.com", WRONG));
        assert_eq!(count(&stuff(other).await, 401), 5);
        gate.open();
        until("redis counts again", async || {
            let other = app.limited(limits).await;
            // Whoever comes by another process finds what this one has counted meanwhile.
            let email = format!("{}@example.com", uuid::Uuid::now_v7().simple());
            log_in(&api, HOME, &email, WRONG).await.assert_status(401);
            let answers = stuff((0..20).map(|n| login(&other, &address(n), &email, WRONG))).await;
            match count(&answers, 401) {
                4 => Ok(()),
                guessed => Err(format!("{guessed} guesses")),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_guesser_at_the_owners_gains_nothing_by_a_redis_that_goes_away() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let (api, gate) = app.limited_behind_a_gate("guess-here:1/h:2").await;
        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);
        for status in [401, 401, 429, 429] {
            log_in(&api, HOME, OWNER, WRONG).await.assert_status(status);
        }

        gate.close();

        for status in [429, 429] {
            log_in(&api, HOME, OWNER, WRONG).await.assert_status(status);
        }
    })
    .await;
}

#[tokio::test]
async fn a_neighbours_guesses_keep_nobody_out_who_is_known_there() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let api = app.limited("guess-address:1/h:3").await;
        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);

        for status in [401, 401, 401, 429] {
            log_in(&api, HOME, "bob@example.com", WRONG).await.assert_status(status);
        }

        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn whom_redis_knew_is_known_while_it_is_away() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let limits = "guess-account:1/h:3,guess-all:1/h:3";
        let elsewhere = app.limited(limits).await;
        let (api, gate) = app.limited_behind_a_gate(limits).await;
        log_in(&elsewhere, HOME, OWNER, PASSWORD).await.assert_status(200);
        log_in(&api, HOME, OWNER, WRONG).await.assert_status(401);

        gate.close();
        let answers = stuff_from_everywhere(&[&api], 0, 20).await;

        assert_eq!(count(&answers, 401), 3);
        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_failed_request_of_ours_is_no_failed_guess() {
    TestApp::run(async |app| {
        app.account(OWNER).await;
        let api = app.limited("guess-account:1/h:2,guess-here:1/h:2").await;
        app.execute("ALTER TABLE users RENAME TO users_away").await;
        for _ in 0..6 {
            assert!(log_in(&api, HOME, OWNER, PASSWORD).await.status >= 500);
        }

        app.execute("ALTER TABLE users_away RENAME TO users").await;

        log_in(&api, HOME, OWNER, PASSWORD).await.assert_status(200);
    })
    .await;
}
