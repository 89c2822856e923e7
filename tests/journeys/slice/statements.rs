//! How many statements a slice takes, counted on the wire between us and the database.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use holdfast::{
    checkout::{PlaceOrder, SoldOut, place_orders},
    context::Context,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use super::summary;
use crate::support::{
    KEY,
    app::TestApp,
    client::until,
    shop::{strangers_wish, wish},
};

/// What docs/architecture.md promises.
const STATEMENTS_MAX: usize = 17;

/// A way to the database on which every statement is counted.
pub(crate) struct Tap {
    pub(crate) cx: Context,
    statements: Arc<AtomicUsize>,
}

impl Tap {
    /// Opens one connection through the tap.
    pub(crate) async fn open(app: &TestApp) -> Self {
        let options: PgConnectOptions = app.database_url.parse().unwrap();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let statements = Arc::new(AtomicUsize::new(0));
        let counter = statements.clone();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            // Both ends close with the test.
            let _ = relay(client, server, &counter).await;
        });
        let options = options.host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable);
        let db = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        Self { cx: Context { db, ..app.cx.clone() }, statements }
    }

    /// Places the slice, as a process does that remembers nothing; returns what came of it and how
    /// many statements it took.
    async fn place(&self, slice: &[PlaceOrder]) -> (Vec<&'static str>, usize) {
        self.place_remembering(&SoldOut::default(), slice).await
    }

    async fn place_remembering(
        &self,
        sold_out: &SoldOut,
        slice: &[PlaceOrder],
    ) -> (Vec<&'static str>, usize) {
        let (outcomes, statements) = self.count(place_orders(&self.cx, sold_out, slice)).await;
        (summary(&outcomes), statements)
    }

    /// Does the work; returns what came of it and how many statements it took.
    pub(crate) async fn count<T>(&self, work: impl Future<Output = T>) -> (T, usize) {
        let before = self.statements.load(Ordering::SeqCst);
        let outcome = work.await;
        // What was left to be said on return to the pool is said before this is.
        self.cx.db.acquire().await.unwrap();
        (outcome, self.statements.load(Ordering::SeqCst) - before)
    }
}

/// Passes everything on, and counts the client's messages that execute a statement.
async fn relay(client: TcpStream, server: TcpStream, statements: &AtomicUsize) -> io::Result<()> {
    // A message is passed on in parts, none of which may wait for the next.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    let questions = async {
        // The first message has no type, all others begin with one.
        let length = from_client.read_u32().await?;
        to_server.write_u32(length).await?;
        pass_on(&mut from_client, &mut to_server, length).await?;
        loop {
            let kind = from_client.read_u8().await?;
            // Q is a simple query, E executes a prepared one.
            if matches!(kind, b'Q' | b'E') {
                statements.fetch_add(1, Ordering::SeqCst);
            }
            let length = from_client.read_u32().await?;
            to_server.write_u8(kind).await?;
            to_server.write_u32(length).await?;
            pass_on(&mut from_client, &mut to_server, length).await?;
        }
    };
    tokio::select! {
        ended = answers => ended.map(drop),
        ended = questions => ended,
    }
}

/// Passes on the rest of a message; its length counts itself.
async fn pass_on(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    length: u32,
) -> io::Result<()> {
    let rest = u64::from(length) - 4;
    tokio::io::copy(&mut from.take(rest), to).await?;
    Ok(())
}

#[tokio::test]
async fn a_slice_takes_the_same_statements_whatever_its_size() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(1_000).await;
        let tap = Tap::open(app).await;
        let one = [strangers_wish(&[(mug, 1)])];
        let many: Vec<_> = (0..200).map(|_| strangers_wish(&[(mug, 1)])).collect();

        let (small, of_one) = tap.place(&one).await;
        let (large, of_many) = tap.place(&many).await;

        assert_eq!(small, ["placed"]);
        assert_eq!(large, ["placed"; 200]);
        assert_eq!(of_one, of_many);
        assert!(of_many <= STATEMENTS_MAX, "{of_many} statements");
    })
    .await;
}

#[tokio::test]
async fn replays_takeovers_and_refusals_in_a_slice_take_no_more_than_promised() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(1_000).await;
        let tap = Tap::open(app).await;
        let ada = Uuid::now_v7();
        tap.place(&[wish(ada, KEY, &[(mug, 1)])]).await;

        let mut counts = Vec::new();
        for plain in [1, 197] {
            let lamp = app.product_with_stock(2).await;
            let late = app.guest().await.order_for(&[(lamp, 2)]).await;
            app.age(late, 17).await;
            let mut slice = vec![
                wish(ada, KEY, &[(mug, 1)]),
                strangers_wish(&[(lamp, 2), (mug, 1)]),
                strangers_wish(&[(lamp, 1)]),
            ];
            slice.extend((0..plain).map(|_| strangers_wish(&[(mug, 1)])));

            let (outcomes, statements) = tap.place(&slice).await;

            assert_eq!(outcomes[..3], ["replayed", "placed", "out-of-stock"]);
            assert!(outcomes[3..].iter().all(|outcome| *outcome == "placed"));
            assert_eq!(app.hold_of(late, lamp).await, "taken");
            counts.push(statements);
        }

        assert_eq!(counts[0], counts[1]);
        assert!(counts[0] <= STATEMENTS_MAX, "{} statements", counts[0]);
    })
    .await;
}

#[tokio::test]
async fn a_limit_for_each_customer_takes_one_statement_more_whatever_the_size_of_the_slice() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(1_000).await;
        let lamp = app.product_with_stock(2).await;
        let late = app.guest().await.order_for(&[(lamp, 2)]).await;
        app.age(late, 17).await;
        let tap = Tap::open(app).await;
        let (ada, bob) = (app.customer().await.id.unwrap(), app.customer().await.id.unwrap());
        let any_key = || Uuid::now_v7().to_string();
        let one = |owner| [wish(owner, &any_key(), &[(mug, 1)])];
        let many: Vec<_> = (0..100).flat_map(|_| [ada, bob]).flat_map(one).collect();
        let (_, unlimited) = tap.place(&one(ada)).await;
        app.execute("UPDATE variants SET purchase_limit = 4").await;

        let (small, of_one) = tap.place(&one(ada)).await;
        let (large, of_many) = tap.place(&many).await;
        let cem = app.customer().await.id.unwrap();
        tap.place(&[wish(cem, KEY, &[(mug, 1)])]).await;
        let all_at_once = [
            wish(cem, KEY, &[(mug, 1)]),
            wish(cem, &any_key(), &[(lamp, 2), (mug, 1)]),
            wish(app.customer().await.id.unwrap(), &any_key(), &[(lamp, 1)]),
        ];
        let (outcomes, at_most) = tap.place(&all_at_once).await;

        assert_eq!(small, ["placed"]);
        assert_eq!(large.iter().filter(|outcome| **outcome == "placed").count(), 6);
        assert_eq!((of_one, of_many), (unlimited + 1, unlimited + 1));
        assert_eq!(outcomes, ["replayed", "placed", "out-of-stock"]);
        assert!(at_most <= STATEMENTS_MAX + 1, "{at_most} statements");
    })
    .await;
}

#[tokio::test]
async fn what_is_known_to_be_sold_out_is_refused_without_a_transaction() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let tap = Tap::open(app).await;
        let sold_out = SoldOut::default();
        let many: Vec<_> = (0..200).map(|_| strangers_wish(&[(mug, 1)])).collect();
        let (first, _) = tap.place_remembering(&sold_out, &many[..2]).await;
        assert_eq!(first, ["placed", "out-of-stock"]);

        // The shop remembers for a fifth of a second, which a busy machine may miss.
        until("a refusal out of memory", async || {
            let (refused, statements) = tap.place_remembering(&sold_out, &many[1..]).await;
            assert_eq!(refused.into_iter().collect::<BTreeSet<_>>(), ["out-of-stock"].into());
            // The keys are read, and that is all.
            if statements == 1 { Ok(()) } else { Err(format!("it took {statements} statements")) }
        })
        .await;
    })
    .await;
}
