//! Too much at once, a database that does not answer, and clients who do not wait.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use holdfast::{checkout::OPEN_ORDERS_MAX, web::server::Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::support::{
    KEY,
    app::TestApp,
    client::{Client, checkout_body, until},
    shop::Variant,
};

/// How often the crowd comes where the machine is too slow to let it in at once.
const ROUNDS_MAX: usize = 5;

#[tokio::test]
async fn a_shop_whose_database_is_stuck_says_so_and_recovers() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(500).await;
        let guests = join_all((0..450 / OPEN_ORDERS_MAX).map(|_| app.guest())).await;
        let blocker = app.block(mug).await;
        // More than two slices: by the time that the third could start, its shoppers have waited too long.
        let keys: Vec<_> = (0..450).map(|n| format!("one-key-per-intention-{n}")).collect();
        let wishes: Vec<_> =
            guests.iter().flat_map(|guest| [guest; OPEN_ORDERS_MAX]).zip(&keys).collect();
        let place = |(guest, key): &(&Client, &String)| guest.place_order(key, &[(mug, 1)]);

        let mut codes = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let answers = join_all(wishes.iter().map(place)).await;

            // The client asserts of each that it says when to come back.
            assert!(answers.iter().all(|answer| answer.status == 503));
            codes.extend(answers.iter().map(|answer| answer.at("/code").to_string()));
            // A slow machine may let some of them in so late that nobody has to wait behind two slices.
            codes.remove("\"overloaded\"");
            if codes.len() > 1 {
                break;
            }
        }
        assert_eq!(codes, ["\"busy\"", "\"temporarily-unavailable\""].map(str::to_owned).into());
        assert_eq!(app.count("orders").await, 0);

        blocker.rollback().await.unwrap();
        let insist = async |wish| {
            until("it is placed", async || {
                let answer = place(wish).await;
                if answer.status == 503 { Err(answer.body) } else { Ok(answer) }
            })
            .await
        };
        for answer in join_all(wishes[..50].iter().map(insist)).await {
            answer.assert_status(201).assert_header("idempotency-replayed", None);
        }
        assert_eq!(app.stock_of(mug).await, (500, 50));
    })
    .await;
}

#[tokio::test]
async fn a_stuck_checkout_keeps_nobody_from_reading() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 1)]).await;
        let guest = app.another_api(app.patient()).await.with_token(guest.token(), guest.id);
        let blocker = app.block(mug).await;

        let stuck = guest.place_order(KEY, &[(mug, 1)]);
        let reader = async {
            app.until_blocked().await;
            let order = guest.order(id).await;
            blocker.rollback().await.unwrap();
            order
        };
        let (placed, read) = tokio::join!(stuck, reader);

        read.assert_status(200);
        placed.assert_status(201);
    })
    .await;
}

/// A checkout as bytes, to be sent by hand.
fn bytes(guest: &Client, key: &str, lines: &[(Variant, i64)]) -> Vec<u8> {
    let body = checkout_body(lines).to_string();
    let (length, token) = (body.len(), guest.token());
    format!(
        "POST /v1/checkout HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\
         Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_client_who_hangs_up_during_the_request_has_ordered_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let request = bytes(&guest, KEY, &[(mug, 1)]);
        let before = app.books().await;

        for sent in [1, 100, request.len() / 2, request.len() - 1] {
            let mut stream = TcpStream::connect(app.address).await.unwrap();
            stream.write_all(&request[..sent]).await.unwrap();
            stream.shutdown().await.unwrap();
            // The server has seen the end when it closes, too.
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_client_who_hangs_up_before_the_answer_has_ordered_all_or_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let lamp = app.product_with_stock(5).await;
        let door = app.open(app.patient(), |_| {}, Limits::default()).await;
        let api = Client::new(&format!("http://{door}"));
        let (in_flight, queued) = (app.guest().await, app.guest().await);
        let [in_flight, queued] =
            [in_flight, queued].map(|guest| api.with_token(guest.token(), guest.id));
        let blocker = app.block(mug).await;
        let hang_up = async |guest: &Client| {
            let mut stream = TcpStream::connect(door).await.unwrap();
            stream.write_all(&bytes(guest, KEY, &[(mug, 1), (lamp, 2)])).await.unwrap();
            stream
        };

        // The first is at the database, the second waits for the next slice, and both leave.
        let first = hang_up(&in_flight).await;
        app.until_blocked().await;
        let second = hang_up(&queued).await;
        drop((first, second));
        blocker.rollback().await.unwrap();
        until("the first order", async || match app.count("orders").await {
            0 => Err("there is none".to_owned()),
            orders => Ok(orders),
        })
        .await;

        // Whoever asks again with the key finds out, and has ordered once.
        for guest in [&in_flight, &queued] {
            let answer = guest.place_order(KEY, &[(mug, 1), (lamp, 2)]).await;
            answer.assert_status(201);
        }
        let replayed = in_flight.place_order(KEY, &[(mug, 1), (lamp, 2)]).await;
        replayed.assert_header("idempotency-replayed", "true");
        assert_eq!(app.stock_of(mug).await, (5, 2));
        assert_eq!(app.stock_of(lamp).await, (5, 4));
        assert_eq!(app.count("orders").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_shop_without_redis_takes_orders() {
    use holdfast::{
        checkout::{SoldOut, place_orders},
        context::Context,
    };

    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        // Nobody listens there.
        let relay = jobs::Relay::start("redis://127.0.0.1:1", "nobody").unwrap();
        let cx = Context { relay, ..app.cx.clone() };
        let wish = crate::support::shop::wish(Uuid::now_v7(), KEY, &[(mug, 1)]);

        let placed = place_orders(&cx, &SoldOut::default(), &[wish]).await;

        let order_id = placed[0].as_ref().unwrap().receipt.order_id;
        // Nobody was woken for its mail; the reaper notices.
        app.execute("UPDATE job_ledger SET next_push_at = now()").await;
        app.settle().await;
        assert_eq!(app.mails("order-received", order_id).len(), 1);
    })
    .await;
}
