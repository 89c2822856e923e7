//! Clients that want us to keep, to parse or to look for more than anybody needs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use crate::{
    process::Api,
    raw::{PLAIN, Raw, assert_only_problem},
    steady::Steady,
    support::{app::TestApp, client::until},
};

const MIB: usize = 1024 * 1024;

const POST: &str =
    "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n";

/// Sends chunks of 64 KiB until it is answered or has sent so many bytes.
async fn flood(raw: &mut Raw, bytes: usize) {
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(64 * 1024));
    for _ in 0..bytes / (64 * 1024) {
        if !raw.send(&chunk).await {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_64_megabytes_is_a_413_and_costs_little_memory() {
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let before = api.memory();
        let steady = Steady::start(api.address);

        let announced = (0..8).map(async |_| {
            let mut raw = Raw::connect(api.address).await;
            raw.send(format!("{POST}Content-Length: {}\r\n\r\n", 64 * MIB)).await;
            let body = vec![b' '; MIB];
            for _ in 0..64 {
                if !raw.send(&body).await {
                    break;
                }
            }
            raw.answers().await
        });
        // Small enough to be read to its end, so that whoever sends it hears what is wrong.
        let honest = async {
            let mut raw = Raw::connect(api.address).await;
            raw.send(format!("{POST}Content-Length: {}\r\n\r\n", 4 * MIB)).await;
            raw.send(vec![b' '; 4 * MIB]).await;
            raw.answer().await.unwrap().assert_problem(413, "too-large");
        };
        let (announced, ()) = tokio::join!(join_all(announced), honest);

        let told = announced.iter().filter(|answers| {
            assert!(answers.len() <= 1, "{answers:?}");
            answers.first().is_some_and(|answer| answer.status == 413)
        });
        let (told, grown) = (told.count(), api.memory_peak().saturating_sub(before));
        println!("8 bodies of 64 MiB: {told} told, {before} KiB and {grown} KiB more at most");
        assert_eq!(told, 8);
        assert!(grown < 64 * 1024, "{grown} KiB");
        steady.assert_untroubled("bodies of 64 MiB").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_without_end_are_a_413_and_cost_little_memory() {
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let before = api.memory();

        let mut raw = Raw::connect(api.address).await;
        raw.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n")).await;
        flood(&mut raw, 512 * MIB).await;
        let answers = raw.answers().await;

        assert_only_problem(&answers, 413, "too-large");
        let grown = api.memory_peak().saturating_sub(before);
        println!("chunks without end: {before} KiB and {grown} KiB more at most");
        assert!(grown < 32 * 1024, "{grown} KiB");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_bodies_that_stop_short_of_their_end_fill_no_memory() {
    const BODIES: usize = 1_000;
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let before = api.memory();

        // A mebibyte may be sent here; of a thousand there is room for eighty.
        let bodies = (0..BODIES).map(async |_| {
            let mut raw = Raw::connect(api.address).await;
            let head = format!(
                "POST /v1/products HTTP/1.1\r\nHost: shop\r\nContent-Length: {MIB}\r\n\r\n"
            );
            raw.send(head).await;
            raw.send(vec![b' '; MIB - 1]).await;
            raw
        });
        let mut bodies = join_all(bodies).await;
        let steady = Raw::connect(api.address).await.ask(PLAIN).await.status;
        let mut statuses = [0, 0];
        for raw in &mut bodies {
            match raw.answer().await.map(|answer| answer.status) {
                // Whoever was refused and takes too long to look is closed.
                Some(503) | None => statuses[0] += 1,
                Some(408) => statuses[1] += 1,
                Some(other) => panic!("{other}"),
            }
        }

        let grown = api.memory_peak().saturating_sub(before);
        println!(
            "{BODIES} bodies: {statuses:?} (busy, too slow), {before} KiB and {grown} KiB more"
        );
        assert_eq!(steady, 200);
        assert!(statuses[0] > 0 && statuses[1] > 0, "{statuses:?}");
        assert!(grown < 450 * 1024, "{grown} KiB");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_strangers_leave_room_for_checkouts_payments_and_webhooks() {
    const BODIES: usize = 128;
    /// What the longest cart brings.
    const USUAL: usize = 60 * 1024;
    TestApp::run(async |app| {
        let begin = async |path: &str, length, sent| begin(app.address, path, length, sent).await;
        // Half a cart, before the strangers come.
        let mut slow = begin("/v1/checkout", USUAL, USUAL / 2).await;

        // Nobody has a token, and a body is whole before anybody asks for one.
        let large = (0..BODIES).map(|_| begin("/v1/products", MIB, MIB - 1));
        let mut strangers = join_all(large).await;
        until("somebody is told to come back", async || {
            let mut told = 0;
            for stranger in &mut strangers {
                // There was room for eighty; some began first and made it for others.
                let answer = timeout(Duration::from_millis(10), stranger.answer()).await;
                match answer {
                    // This one's time was over before anybody needed its room.
                    Ok(Some(answer)) if answer.status == 408 => {}
                    Ok(Some(answer)) => {
                        answer.assert_problem(503, "busy");
                        told += 1;
                    }
                    Ok(None) | Err(_) => {}
                }
            }
            if told > 0 { Ok(()) } else { Err("nobody was".to_owned()) }
        })
        .await;

        let order = Uuid::now_v7();
        for path in [
            "/v1/checkout".to_owned(),
            format!("/v1/orders/{order}/payments"),
            "/v1/webhooks/stripe".to_owned(),
            "/v1/auth/login".to_owned(),
            "/v1/products".to_owned(),
        ] {
            let answer = begin(&path, USUAL, USUAL).await.answer().await.unwrap();
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        }
        slow.send(vec![b' '; USUAL - USUAL / 2]).await;
        let answer = slow.answer().await.unwrap();
        assert!((400..500).contains(&answer.status), "{answer:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stall_make_room_for_those_that_arrive() {
    /// Of so many there is room for 1,280, in what all share and what is for checkouts alone.
    const CARTS: usize = 1_300;
    const CART: usize = 64 * 1024;
    /// So many have been told by then that those who find no room have come back again and again.
    const FULL: usize = 200;
    /// What is asked beside them, a body in one piece or in two.
    const ASKED: usize = 100;
    /// Below the time after which a body that stalls makes room by itself.
    const ANSWER_MAX: Duration = Duration::from_secs(5);
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let address = api.address;
        let told = Arc::new(AtomicUsize::new(0));
        let mut strangers = JoinSet::new();
        for _ in 0..CARTS {
            strangers.spawn(stall_for_ever(address, CART, told.clone()));
        }
        until("there is no room left", async || {
            let told = told.load(Ordering::Relaxed);
            if told >= FULL { Ok(()) } else { Err(format!("{told} were told")) }
        })
        .await;

        let before = told.load(Ordering::Relaxed);
        let mut worst = Duration::ZERO;
        for (n, length) in (0..ASKED).zip([500, 8 * 1024, CART].into_iter().cycle()) {
            let begun_at = Instant::now();
            let first = if n % 2 == 0 { length } else { length / 2 };
            let mut raw = begin(address, "/v1/checkout", length, first).await;
            raw.send(vec![b' '; length - first]).await;
            let answer = raw.answer().await.unwrap();
            worst = worst.max(begun_at.elapsed());
            assert_eq!(answer.status, 401, "{n}: {answer:?}");
        }

        let told = told.load(Ordering::Relaxed) - before;
        println!("{ASKED} carts among bodies that stall: worst {worst:?}, {told} made room");
        assert!(worst < ANSWER_MAX, "{worst:?}");
        assert!(told > 0);
    })
    .await;
}

/// Begins a request and sends so much of its body.
async fn begin(address: SocketAddr, path: &str, length: usize, sent: usize) -> Raw {
    let mut raw = Raw::connect(address).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n");
    raw.send(head).await;
    raw.send(vec![b' '; sent]).await;
    raw
}

/// Leaves out the last byte of a body, and begins again whenever it is told to leave.
async fn stall_for_ever(address: SocketAddr, length: usize, told: Arc<AtomicUsize>) {
    loop {
        let mut raw = begin(address, "/v1/checkout", length, length - 1).await;
        // Whoever takes too long to look is closed.
        let answer = raw.answer().await;
        if answer.is_some_and(|answer| answer.status == 503) {
            told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_64_kilobytes_are_for_staff_and_providers() {
    TestApp::run(async |app| {
        let order = Uuid::now_v7();
        for (method, path) in [
            ("GET", "/v1/products".to_owned()),
            ("PATCH", "/v1/auth/me".to_owned()),
            ("POST", format!("/v1/orders/{order}/payments")),
            ("POST", "/v1/checkout".to_owned()),
        ] {
            let body = " ".repeat(64 * 1024 + 1);
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n"
            );
            let answer = Raw::connect(app.address).await.ask(request + &body).await;
            answer.assert_problem(413, "too-large");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_100_000_deep_is_a_400_and_no_stack_overflows() {
    const DEPTH: usize = 20_000;
    TestApp::run(async |app| {
        let api = Api::start(app).await;
        let mut raw = Raw::connect(api.address).await;
        // 64 KiB is all that a login may bring; a mebibyte fits in elsewhere.
        for (open, close, depth, path) in [
            ("[", "]", DEPTH, "/v1/auth/login"),
            ("{\"a\":", "}", DEPTH / 2, "/v1/auth/login"),
            ("[", "]", 100_000, "/v1/products"),
            ("{\"a\":", "}", 100_000, "/v1/products"),
            ("[", "", 100_000, "/v1/products"),
        ] {
            let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let length = body.len();
            let staff = app.staff().await;
            let token = staff.token();
            let answer = raw
                .ask(format!(
                    "POST {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;

            answer.assert_problem(400, "malformed");
        }
        assert_eq!(raw.ask(PLAIN).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrestricted_use_nobody_gets_more_of_a_list_than_a_page() {
    TestApp::run(async |app| {
        let anybody = app.anybody();
        let guest = app.guest().await;
        for limit in ["1000000000", "101", "0", "-1", "1e3", "99999999999999999999", ""] {
            for (client, path) in [(&anybody, "/v1/products"), (&guest, "/v1/orders")] {
                let refusal = client.get(&format!("{path}?limit={limit}")).await;
                assert_eq!(refusal.status, 422, "{path}?limit={limit}: {}", refusal.body);
            }
        }
        let forged = [
            "0",
            "-1",
            "AAAA",
            "' OR 1=1 --",
            "%27%3B%20DROP%20TABLE%20orders",
            &"A".repeat(5_000),
        ];
        for cursor in forged {
            for (client, path) in [(&anybody, "/v1/products"), (&guest, "/v1/orders")] {
                let refusal = client.get(&format!("{path}?cursor={cursor}")).await;
                assert_eq!(refusal.status, 422, "{path}?cursor={cursor}: {}", refusal.body);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expensive_search_a_thousand_filters_and_wildcards_cost_no_more_than_none() {
    TestApp::run(async |app| {
        let filters = (0..1_000).map(|n| format!("f{n}=%")).collect::<Vec<_>>().join("&");
        let wildcards = format!("q={}", "%25_*?[a-z]{1,9}(.*)+".repeat(100));
        let begun_at = Instant::now();

        for query in [filters, wildcards] {
            let request = format!("GET /v1/products?{query} HTTP/1.1\r\nHost: shop\r\n\r\n");
            let answer = Raw::connect(app.address).await.ask(request).await;
            assert!(answer.status < 500, "{answer:?}");
        }

        assert!(begun_at.elapsed() < Duration::from_secs(10), "{:?}", begun_at.elapsed());
    })
    .await;
}
