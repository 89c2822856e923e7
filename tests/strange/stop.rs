//! A process that is told to stop while clients are at it.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::{
    process::Api,
    raw::{PLAIN, Raw},
    support::{app::TestApp, client::until},
};

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_answers_what_was_begun() {
    const LOGIN: &str =
        "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n";
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let mut silent = Raw::connect(api.address).await;
        let mut idle = Raw::kept(api.address).await;
        let mut half_head = Raw::kept(api.address).await;
        half_head.send(&PLAIN[..20]).await;
        let mut half_first_head = Raw::connect(api.address).await;
        half_first_head.send(&PLAIN[..20]).await;
        let mut half_body = Raw::kept(api.address).await;
        half_body.send(format!("{LOGIN}Content-Length: 2\r\n\r\n{{")).await;
        let_it_read(&api).await;
        let begun_at = Instant::now();

        api.terminate().await;

        idle.assert_closed().await;
        silent.assert_closed().await;
        let elapsed = begun_at.elapsed();
        assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
        until("nobody is let in", async || match TcpStream::connect(api.address).await {
            Ok(_) => Err("somebody was".to_owned()),
            Err(_) => Ok(()),
        })
        .await;
        for raw in [&mut half_head, &mut half_first_head] {
            let answer = raw.ask(&PLAIN[20..]).await;
            assert_eq!(answer.status, 200);
            answer.assert_last();
            raw.assert_closed().await;
        }
        half_body.ask("}").await.assert_problem(422, "invalid-request").assert_last();
        assert_eq!(api.ended(Duration::from_secs(10)).await, Some(0));
    })
    .await;
}

/// Waits until the process has let in all who came, and has read what they sent. That somebody who came
/// later is answered does not show it: another thread may serve those who came before.
async fn let_it_read(api: &Api) {
    let port = format!(":{:04X}", api.address.port());
    until("the process reads", async || {
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let unread: Vec<_> = sockets
            .lines()
            .filter(|socket| {
                let mut columns = socket.split_whitespace().skip(1);
                let local = columns.next().is_some_and(|local| local.ends_with(&port));
                // Sent and received, and of a socket that listens: those who wait to be let in.
                let queued = columns.nth(2).unwrap_or_default();
                local && !queued.ends_with(":00000000")
            })
            .collect();
        if unread.is_empty() { Ok(()) } else { Err(unread.join("\n")) }
    })
    .await;
    // What it has taken from the kernel, it has still to hand to whom it concerns.
    Raw::kept(api.address).await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_does_not_keep_a_process_from_stopping() {
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let mut slow = Raw::kept(api.address).await;
        slow.send(&PLAIN[..20]).await;
        let_it_read(&api).await;
        let begun_at = Instant::now();

        api.terminate().await;

        slow.answer().await.unwrap().assert_problem(408, "request-timeout").assert_last();
        assert_eq!(api.ended(Duration::from_secs(15)).await, Some(0));
        assert!(begun_at.elapsed() < Duration::from_secs(15), "{:?}", begun_at.elapsed());
    })
    .await;
}
