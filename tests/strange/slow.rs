//! Clients that take their time, so that ours runs out.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast::web::server::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{interval, timeout},
};

use crate::{
    raw::{PATIENCE, Raw, assert_only_problem},
    steady::Steady,
    support::app::TestApp,
};

const SHORT: Duration = Duration::from_secs(1);

/// A client that sends the bytes one at a time, until it is answered, and says what it was told.
async fn drip(mut raw: Raw, bytes: &[u8], every: Duration) -> Vec<crate::raw::Answer> {
    let mut clock = interval(every);
    let mut bytes = bytes.iter().cycle();
    loop {
        clock.tick().await;
        let mut peeked = [0];
        let is_answered = timeout(Duration::ZERO, raw.stream.peek(&mut peeked)).await.is_ok();
        if is_answered || !raw.send([*bytes.next().unwrap()]).await {
            return raw.answers().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowloris_is_told_408_and_nobody_else_notices() {
    const LORISES: usize = 200;
    TestApp::run(async |app| {
        let limits = Limits { head: SHORT, ..Limits::default() };
        let door = app.open(app.cx.clone(), |_| {}, limits).await;
        let steady = Steady::start(door);
        let begun_at = Instant::now();

        let lorises = (0..LORISES).map(async |_| {
            let mut raw = Raw::connect(door).await;
            raw.send("GET /v1/products HTTP/1.1\r\nHost: shop\r\nX-A: ").await;
            drip(raw, b"b", Duration::from_millis(250)).await
        });
        for answers in join_all(lorises).await {
            assert_only_problem(&answers, 408, "request-timeout");
        }

        let elapsed = begun_at.elapsed();
        assert!(elapsed >= SHORT && elapsed < 6 * SHORT, "{elapsed:?}");
        steady.assert_untroubled("200 slowlorises").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_drips_is_told_408_and_nobody_else_notices() {
    const DRIPS: usize = 100;
    TestApp::run(async |app| {
        let steady = Steady::start(app.address);
        let begun_at = Instant::now();

        let drips = (0..DRIPS).map(async |_| {
            let mut raw = Raw::connect(app.address).await;
            raw.send("POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\n")
                .await;
            drip(raw, b"{", Duration::from_millis(500)).await
        });
        for answers in join_all(drips).await {
            assert_only_problem(&answers, 408, "request-timeout");
        }

        assert!(begun_at.elapsed() < Duration::from_secs(20), "{:?}", begun_at.elapsed());
        steady.assert_untroubled("100 dripping bodies").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_drip_without_end_are_told_408() {
    TestApp::run(async |app| {
        let mut raw = Raw::connect(app.address).await;
        raw.send(
            "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;

        let answers = drip(raw, b"1\r\n{\r\n", Duration::from_millis(100)).await;

        assert_only_problem(&answers, 408, "request-timeout");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed_without_a_word() {
    TestApp::run(async |app| {
        let limits = Limits { head: SHORT, ..Limits::default() };
        let door = app.open(app.cx.clone(), |_| {}, limits).await;
        let begun_at = Instant::now();

        Raw::connect(door).await.assert_closed().await;

        let elapsed = begun_at.elapsed();
        assert!(elapsed >= SHORT && elapsed < 6 * SHORT, "{elapsed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_without_a_word_and_not_before_its_time() {
    TestApp::run(async |app| {
        let limits = Limits { head: SHORT, idle: 2 * SHORT, ..Limits::default() };
        let door = app.open(app.cx.clone(), |_| {}, limits).await;
        let begun_at = Instant::now();
        let mut idle = Raw::kept(door).await;

        idle.assert_closed().await;

        let elapsed = begun_at.elapsed();
        assert!(elapsed >= 2 * SHORT && elapsed < 6 * SHORT, "{elapsed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_never_reads_its_answers_is_cut_off() {
    TestApp::run(async |app| {
        let limits = Limits { write: SHORT, ..Limits::default() };
        let door = app.open(app.cx.clone(), |_| {}, limits).await;
        let steady = Steady::start(door);
        let mut raw = Raw::connect(door).await;
        // Each answer is megabytes, more than any buffer on the way.
        let requests = "GET /docs HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(50);
        raw.send(requests).await;

        // Whoever is cut off learns it by writing: nothing is read before.
        let cut = async {
            let mut clock = interval(Duration::from_millis(50));
            while raw.stream.write_all(b"\r\n").await.is_ok() {
                clock.tick().await;
            }
        };
        timeout(PATIENCE, cut).await.expect("the server does not wait for ever");

        steady.assert_untroubled("a client that does not read").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_its_answer_by_the_byte_is_cut_off() {
    TestApp::run(async |app| {
        let limits = Limits { write: SHORT, ..Limits::default() };
        let door = app.open(app.cx.clone(), |_| {}, limits).await;
        let mut raw = Raw::connect(door).await;
        raw.send("GET /docs HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(50)).await;
        let mut clock = interval(Duration::from_millis(10));
        let mut byte = [0];

        let cut = async {
            // Enough to move something every now and then, and never 64 KiB in a second.
            while matches!(raw.stream.read(&mut byte).await, Ok(1)) {
                clock.tick().await;
                if raw.stream.write_all(b"\r\n").await.is_err() {
                    return;
                }
            }
        };

        timeout(PATIENCE, cut).await.expect("the server does not wait for ever");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_connection_is_soon_closed_whole() {
    TestApp::run(async |app| {
        for sent in [
            "",
            "GET /v1/pro",
            "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n{",
            "GET /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
        ] {
            let mut raw = Raw::connect(app.address).await;
            raw.send(sent).await;
            let begun_at = Instant::now();
            raw.stream.shutdown().await.unwrap();

            // Whoever has closed one half counts as gone; it may have been answered before.
            let answers = raw.answers().await;
            assert!(answers.len() <= 1, "{sent}: {answers:?}");
            assert!(begun_at.elapsed() < Duration::from_secs(4), "{sent}");
        }
    })
    .await;
}
