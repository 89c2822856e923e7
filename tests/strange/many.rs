//! More connections than there is room for.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{future::join_all, stream};
use holdfast::web::server::{Limits, serve};
use poem::{
    Body, Request, Response,
    endpoint::make,
    http::{StatusCode, uri::Scheme},
};
use tokio::{net::TcpListener, time::interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    process::Api,
    raw::{PATIENCE, PLAIN, Raw},
    steady::Steady,
    support::{app::TestApp, client::until},
};

const SEATS: usize = 20;

/// Its body never comes. Whoever is told to continue knows that it is awaited.
const BEGUN: &str = "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\n\
                     Content-Length: 10\r\n\r\n";

/// A server whose answers take as long as a test wants.
#[derive(Debug)]
struct Slow {
    door: SocketAddr,
    /// The pieces of endless answers that were written so far.
    pieces: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Slow {
    async fn start() -> Self {
        const PIECE: &[u8] = &[b' '; 64 * 1024];
        let pieces = Arc::new(AtomicUsize::new(0));
        let counted = pieces.clone();
        let app = make(move |request: Request| {
            let counted = counted.clone();
            async move {
                match request.uri().path() {
                    "/never" => std::future::pending().await,
                    "/endless" => Body::from_bytes_stream(stream::repeat_with(move || {
                        counted.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, std::io::Error>(PIECE)
                    }))
                    .into(),
                    _ => Response::from(StatusCode::OK),
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = Limits { connections: SEATS, ..Limits::default() };
        tokio::spawn(serve(listener, app, limits, Scheme::HTTP, stop.clone()));
        Self { door, pieces, _stop: stop.drop_guard() }
    }

    /// A connection whose request is being answered.
    async fn busy(&self) -> Raw {
        let mut raw = Raw::kept(self.door).await;
        // What the server has read once, it has read again before it looks at anybody who comes later.
        raw.send("GET /never HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        raw
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_503_and_when_to_come_back() {
    let slow = Slow::start().await;
    let door = slow.door;
    let mut guests = join_all((0..SEATS).map(|_| slow.busy())).await;

    until("there is no room", async || {
        let answer = Raw::connect(door).await.ask(PLAIN).await;
        if answer.status == 503 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    let mut refused = Raw::connect(door).await;
    refused.ask(PLAIN).await.assert_problem(503, "busy").assert_last();
    refused.assert_closed().await;
    // Also whoever talks nonsense, or a lot.
    let nonsense = Raw::connect(door).await.ask("nonsense\r\n\r\n").await;
    nonsense.assert_problem(503, "busy").assert_last();
    let long = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 65536\r\n\r\n".to_owned();
    let long = long + &"x".repeat(64 * 1024);
    Raw::connect(door).await.ask(long).await.assert_problem(503, "busy").assert_last();

    guests.truncate(SEATS / 2);
    until("there is room again", async || {
        let answer = Raw::connect(door).await.ask(PLAIN).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_come_take_no_room_from_those_who_ask() {
    TestApp::run(async |app| {
        let door = app
            .open(app.cx.clone(), |_| {}, Limits { connections: SEATS, ..Limits::default() })
            .await;
        let mut stalled = Vec::new();
        for _ in 0..SEATS {
            let mut raw = Raw::connect(door).await;
            raw.send(BEGUN).await;
            assert_eq!(raw.head().await.unwrap().status, 100);
            stalled.push(raw);
        }
        let begun_at = Instant::now();

        let mut newcomers = Vec::new();
        for _ in 0..SEATS / 4 {
            newcomers.push(Raw::kept(door).await);
        }

        // Long before a body's time is over.
        assert!(begun_at.elapsed() < Duration::from_secs(5), "{:?}", begun_at.elapsed());
        let mut cut = 0;
        for raw in &mut stalled {
            raw.send([b' '; 10]).await;
            match raw.answer().await {
                Some(answer) => assert!([408, 415].contains(&answer.status), "{answer:?}"),
                None => cut += 1,
            }
        }
        assert!(cut >= SEATS / 4, "{cut}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_take_no_room_from_those_who_ask() {
    let slow = Slow::start().await;
    let mut unread = Vec::new();
    for _ in 0..SEATS {
        let mut raw = Raw::kept(slow.door).await;
        raw.send("GET /endless HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        unread.push(raw);
    }
    let mut clock = interval(Duration::from_millis(500));
    let mut before = 0;
    until("nobody takes any more", async || {
        clock.tick().await;
        let now = slow.pieces.load(Ordering::Relaxed);
        let is_still = std::mem::replace(&mut before, now) == now && now >= SEATS;
        if is_still { Ok(()) } else { Err(format!("{now} pieces")) }
    })
    .await;
    let begun_at = Instant::now();

    let mut newcomers = Vec::new();
    for _ in 0..SEATS / 2 {
        newcomers.push(Raw::kept(slow.door).await);
    }

    assert!(begun_at.elapsed() < Duration::from_secs(5), "{:?}", begun_at.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_request_takes_no_room_after_its_answer() {
    const CHUNKED: &str = "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\n\
                           Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    // A machine may stall for as long as the server would listen if it did.
    const STALLS_MAX: usize = 5;
    TestApp::run(async |app| {
        let mut seen = Vec::new();
        for _ in 0..STALLS_MAX {
            let mut raw = Raw::connect(app.address).await;
            raw.ask(CHUNKED).await.assert_last();
            raw.assert_closed().await;
            let begun_at = Instant::now();

            // Whoever is listened to no more learns it by writing.
            let mut clock = interval(Duration::from_millis(50));
            while raw.send("x").await {
                assert!(begun_at.elapsed() < PATIENCE);
                clock.tick().await;
            }

            if begun_at.elapsed() < Duration::from_millis(1_800) {
                return;
            }
            seen.push(begun_at.elapsed());
        }
        panic!("was listened to for {seen:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_take_no_room_from_those_who_ask() {
    TestApp::run(async |app| {
        let door = app
            .open(app.cx.clone(), |_| {}, Limits { connections: SEATS, ..Limits::default() })
            .await;
        let mut idle = Vec::new();
        for _ in 0..SEATS {
            idle.push(Raw::kept(door).await);
        }
        let begun_at = Instant::now();

        let mut newcomers = Vec::new();
        for _ in 0..SEATS / 2 {
            newcomers.push(Raw::kept(door).await);
        }

        let elapsed = begun_at.elapsed();
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        // As many have made room as were needed.
        let mut closed = Vec::new();
        for (place, raw) in idle.iter_mut().enumerate() {
            raw.send(PLAIN).await;
            match raw.answer().await {
                Some(answer) => assert_eq!(answer.status, 200),
                None => closed.push(place),
            }
        }
        assert_eq!(closed.len(), SEATS / 2, "{closed:?}");
        // They are the longest idle ones, but that a slow machine may see a client's end of an answer long
        // before the server's.
        let old = closed.iter().filter(|place| **place < SEATS / 2).count();
        assert!(old >= SEATS / 2 - 2, "{closed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowlorises_take_no_room_from_those_who_ask() {
    TestApp::run(async |app| {
        let door = app
            .open(app.cx.clone(), |_| {}, Limits { connections: SEATS, ..Limits::default() })
            .await;
        let lorises = (0..SEATS).map(async |_| {
            let mut raw = Raw::connect(door).await;
            raw.send("GET /v1/products HTTP/1.1\r\nX-A: ").await;
            raw
        });
        let _lorises = join_all(lorises).await;
        let begun_at = Instant::now();

        let newcomer = Raw::connect(door).await.ask(PLAIN).await;

        assert_eq!(newcomer.status, 200);
        // Long before a head's time is over.
        assert!(begun_at.elapsed() < Duration::from_secs(4), "{:?}", begun_at.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_beyond_the_limit_disturbs_nobody_who_is_served() {
    const RUSH: usize = 1_000;
    let slow = Slow::start().await;
    let door = slow.door;
    let mut served = Raw::kept(door).await;
    let _guests = join_all((1..SEATS).map(|_| slow.busy())).await;

    let rush = join_all((0..RUSH).map(|_| Raw::connect(door)));
    let served = async {
        for _ in 0..20 {
            let begun_at = Instant::now();
            // It has the one seat that may be asked to make room, and then it is a newcomer.
            if !served.send(PLAIN).await || served.answer().await.is_none() {
                served = Raw::connect(door).await;
            }
            assert!(begun_at.elapsed() < Duration::from_secs(10), "{:?}", begun_at.elapsed());
        }
    };
    let (rush, ()) = tokio::join!(rush, served);
    drop(rush);

    until("the rush is over", async || {
        let answer = Raw::connect(door).await.ask(PLAIN).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_cost_little_memory_and_trouble_nobody() {
    const IDLE: usize = 1_000;
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let before = api.memory();
        let steady = Steady::start(api.address);

        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(Raw::kept(api.address).await);
        }
        let mut silent = Vec::new();
        for _ in 0..IDLE {
            silent.push(Raw::connect(api.address).await);
        }

        // Some are in the kernel's queue when their clients believe that they are connected.
        until("all are let in", async || {
            let open = api.descriptors();
            if open > IDLE + IDLE / 2 { Ok(()) } else { Err(open.to_string()) }
        })
        .await;
        let grown = api.memory().saturating_sub(before);
        println!("{IDLE} idle and {IDLE} silent connections: {before} KiB and {grown} KiB more");
        assert!(grown < 64 * 1024, "{grown} KiB");
        for raw in idle.iter_mut().take(10) {
            assert_eq!(raw.ask(PLAIN).await.status, 200);
        }
        steady.assert_untroubled("2,000 idle connections").await;
        drop((idle, silent));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_descriptors_recovers_when_there_are_some() {
    /// Far fewer than the connections that it would let in.
    const CLIENTS: usize = 5;
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let descriptors = api.limit_descriptors(CLIENTS).await;

        let mut crowd = Vec::new();
        for _ in 0..8 * descriptors {
            let mut raw = Raw::connect(api.address).await;
            raw.send(BEGUN).await;
            crowd.push(raw);
        }
        until("its descriptors are used up", async || {
            // Whoever made room for nobody left one.
            let mut raw = Raw::connect(api.address).await;
            raw.send(BEGUN).await;
            crowd.push(raw);
            let used = api.descriptors();
            if used + 1 >= descriptors { Ok(()) } else { Err(used.to_string()) }
        })
        .await;

        until("newcomers are served", async || {
            let mut newcomer = Raw::connect(api.address).await;
            newcomer.send(PLAIN).await;
            match newcomer.answer().await.map(|answer| answer.status) {
                Some(200) => Ok(()),
                status => Err(format!("{status:?}")),
            }
        })
        .await;
        drop(crowd);
        api.terminate().await;
        assert_eq!(api.ended(Duration::from_secs(25)).await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_aborted_before_they_are_accepted_stop_nothing() {
    const ABORTED: usize = 2_000;
    TestApp::run(async |app| {
        let steady = Steady::start(app.address);

        for _ in 0..ABORTED / 100 {
            let aborted = (0..100).map(async |_| {
                let raw = Raw::connect(app.address).await;
                // Closing it is a reset. Linux lets such a connection be accepted all the same.
                raw.stream.set_zero_linger().unwrap();
            });
            join_all(aborted).await;
        }

        assert_eq!(Raw::connect(app.address).await.ask(PLAIN).await.status, 200);
        steady.assert_untroubled("2,000 aborted connections").await;
    })
    .await;
}
