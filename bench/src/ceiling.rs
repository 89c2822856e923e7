//! The most that the API could reach: the same use case, called in this process with full slices.

use std::time::{Duration, Instant};

use holdfast::{
    checkout::{PlaceOrder, RequestedLine, SoldOut, place_orders},
    clients::Providers,
    context::{Context, Shop as Name},
    idempotency::{Fingerprint, Key},
    kernel::{Currency, EmailAddress, Money, OrderId, OwnerId, batch::SLICE_MAX},
    orders::OrderNumber,
};
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    Outcome, Settings,
    database::{CURRENCY, PRICE_MINOR},
    load::{Measured, WARM_UP},
    reference::Placed,
    shop::{EMAIL, Shop, address},
    statistics::{Latencies, microseconds, per_second},
};

/// One slice is in flight at a time; the others are for the relay's use.
const CONNECTIONS: u32 = 4;

/// The use case with the world it needs.
pub(crate) struct Ceiling {
    cx: Context,
    sold_out: SoldOut,
}

impl Ceiling {
    pub(crate) async fn new(settings: &Settings, shop: &Shop, hold: Duration) -> Outcome<Self> {
        let cx = Context {
            db: shop.database.connect(CONNECTIONS).await?,
            relay: jobs::Relay::start(&settings.redis_url, &shop.namespace)?,
            hold,
            mailer: None,
            providers: Providers::default(),
            shop: Name { name: "Bench".to_owned(), url: "http://localhost".to_owned() },
        };
        Ok(Self { cx, sold_out: SoldOut::default() })
    }

    /// Places orders of one unit, slice after slice, until the window ends. Latencies are those of slices.
    pub(crate) async fn run(&self, variant: Uuid, window: Duration) -> Outcome<Placed> {
        let mut slices = slices(variant)?;
        let open = Instant::now() + WARM_UP;
        let end = open + window;
        let (mut orders, mut in_window, mut timed) = (0, 0, Vec::new());
        while Instant::now() < end {
            let slice = slices.recv().await.ok_or("no more slices are made")?;
            let start = Instant::now();
            let placed = self.place(&slice).await?;
            let now = Instant::now();
            orders += placed;
            if (open..end).contains(&now) {
                in_window += placed;
                timed.push(microseconds(now - start));
            }
        }
        let per_second = per_second(in_window, window);
        Ok(Placed { orders, measured: Measured { per_second, latencies: Latencies::new(timed) } })
    }

    /// Places so many orders of one unit that all expire at `deadline_s`, by the database's clock.
    pub(crate) async fn place_for(
        &mut self,
        shop: &Shop,
        variant: Uuid,
        orders: usize,
        deadline_s: i64,
    ) -> Outcome<()> {
        let mut slices = slices(variant)?;
        for _ in 0..orders.div_ceil(SLICE_MAX) {
            let left_ms = deadline_s * 1_000 - shop.database.now_ms().await?;
            // Deadlines are rounded up to a whole second: half a second off, all meet in one.
            let hold_ms = u64::try_from(left_ms - 500).map_err(|_| "the deadline came too soon")?;
            self.cx.hold = Duration::from_millis(hold_ms);
            let slice = slices.recv().await.ok_or("no more slices are made")?;
            self.place(&slice).await?;
        }
        Ok(())
    }

    /// Places so many orders of one unit, of each variant in turn.
    pub(crate) async fn place_spread(&self, variants: &[Uuid], orders: usize) -> Outcome<()> {
        let wish = wish(variants[0])?;
        let mut wishes = (0..orders).map(|place| {
            let mut wish = again(&wish)?;
            wish.lines[0].variant_id = variants[place % variants.len()].into();
            Some(wish)
        });
        for _ in 0..orders.div_ceil(SLICE_MAX) {
            let slice = wishes.by_ref().take(SLICE_MAX).collect::<Option<Vec<_>>>();
            self.place(&slice.ok_or("a key cannot be made")?).await?;
        }
        Ok(())
    }

    async fn place(&self, slice: &[PlaceOrder]) -> Outcome<usize> {
        let outcomes = place_orders(&self.cx, &self.sold_out, slice).await;
        let count = outcomes.len();
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(count)
    }

    /// Ends the connections.
    pub(crate) async fn close(self) {
        self.cx.db.close().await;
    }
}

/// Makes slices of wishes ahead of their use, as the API does while a slice is in flight.
fn slices(variant: Uuid) -> Outcome<mpsc::Receiver<Vec<PlaceOrder>>> {
    let wish = wish(variant)?;
    let (send, slices) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let slice = (0..SLICE_MAX).map(|_| again(&wish)).collect::<Option<Vec<_>>>();
            let Some(slice) = slice else { return };
            if send.send(slice).await.is_err() {
                return;
            }
        }
    });
    Ok(slices)
}

/// An order of one unit.
fn wish(variant: Uuid) -> Outcome<PlaceOrder> {
    let currency: Currency = CURRENCY.parse()?;
    let shipping_address: Value = address();
    Ok(PlaceOrder {
        order_id: OrderId::generate(),
        number: OrderNumber::generate(),
        owner_id: OwnerId::from(Uuid::now_v7()),
        key: Key::parse(Some(&Uuid::new_v4().simple().to_string()))?,
        fingerprint: Fingerprint::of(shipping_address.to_string().as_bytes()),
        email: EmailAddress::parse(EMAIL)?,
        shipping_address,
        currency,
        expected_total: Money::new(PRICE_MINOR, currency)?,
        lines: vec![RequestedLine { variant_id: variant.into(), quantity: 1 }],
    })
}

/// The same wish as another order.
fn again(wish: &PlaceOrder) -> Option<PlaceOrder> {
    let mut wish = wish.clone();
    wish.order_id = OrderId::generate();
    wish.owner_id = OwnerId::from(Uuid::now_v7());
    wish.number = OrderNumber::generate();
    wish.key = Key::parse(Some(&Uuid::new_v4().simple().to_string())).ok()?;
    Some(wish)
}
