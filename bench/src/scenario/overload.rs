//! Five times as much as the shop can do: how much of what it can do is still done.
//!
//! Four look at a product for one who orders. First everybody asks as fast as they are answered, which
//! gives the peak; then requests are due at five times that rate, whatever the answers, over so many
//! connections that some are always free. Good is what was answered as it should within a second of
//! being due.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::{sleep_until, timeout_at},
};
use uuid::Uuid;

use super::{LONG_HOLD, PLENTY};
use crate::{
    Outcome, Settings,
    http::{Answer, Connection, KEY_LENGTH, Request},
    ledger::{Ledger, examine},
    load::{Basket, Tally, WARM_UP, order_id},
    report::Report,
    shop::{Guests, Shop, basket},
    statistics::{grouped, median, per_second, ratio},
};

const SKUS: usize = 200;

/// How many look for one who orders.
const LOOKS: usize = 4;

/// How much more is asked for than can be done.
const TIMES: f64 = 5.0;

/// Longer than that a person does not look at an empty page.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever finds no connection free so long after their time is not asking any more. They do not queue
/// here: a queue of clients would make every request of the storm an old one.
const LAG_MAX: Duration = Duration::from_millis(100);

/// How many can wait for an answer at a time.
const CONNECTIONS: usize = 1_024;

pub(crate) async fn run(settings: &Settings) -> Outcome<Report> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let variants = shop.database.stock_skus(SKUS, PLENTY).await?;
    let slugs = shop.database.slugs().await?;
    let baskets: Vec<_> = (0..SKUS).map(|sku| basket(&variants, &[(sku, 1)])).collect();
    let mut ledger = Ledger::new(&variants);
    let (mut peaks, mut storms) = (Vec::new(), Vec::new());
    for run in 1..=settings.runs {
        eprintln!("overload: run {run} of {}", settings.runs);
        let mut phase = async |pace: Option<f64>, connections: usize| {
            shop.database.settle().await;
            let plan = Plan {
                address: shop.address,
                requests: requests(&shop, &baskets, &slugs),
                guests: shop.guests.clone(),
                per_second: pace,
                connections,
                window: settings.window,
            };
            let seen = load(plan).await?;
            ledger.add(&seen.tally, &baskets);
            Outcome::Ok(seen)
        };
        let peak = phase(None, settings.clients).await?;
        let rate = TIMES * peak.good(settings.window);
        peaks.push(peak);
        storms.push(phase(Some(rate), CONNECTIONS).await?);
    }
    shop.stop_processes().await?;

    let mut report = Report::new(format!(
        "overload: {LOOKS} looks an order, {TIMES} times the peak over {CONNECTIONS} connections, \
         {} runs of {} s, medians",
        settings.runs,
        settings.window.as_secs(),
    ));
    tell(settings, &peaks, &storms, &mut report);
    ledger.verify(&shop.database, &mut report).await?;
    ledger.verify_held(&shop.database, &mut report).await?;
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}

fn tell(settings: &Settings, peaks: &[Seen], storms: &[Seen], report: &mut Report) {
    let window = settings.window;
    let middle = |all: &[Seen], of: &dyn Fn(&Seen) -> f64| median(all.iter().map(of));
    let good = |all: &[Seen]| middle(all, &|seen| seen.good(window));
    let orders = |all: &[Seen]| middle(all, &|seen| per_second(seen.orders.good, window));
    let looks = |all: &[Seen]| middle(all, &|seen| per_second(seen.looks.good, window));
    let sent = |all: &[Seen]| middle(all, &|seen| per_second(seen.sent(), window));
    for (name, all) in [("peak", peaks), ("storm", storms)] {
        report.line(format!(
            "{name:<6} {:>9} good/s: {:>7} orders/s, {:>7} looks/s; {:>9} asked/s, of which {:>9} \
             sent/s, {:>9} told to come back/s",
            grouped(good(all)),
            grouped(orders(all)),
            grouped(looks(all)),
            grouped(middle(all, &|seen| per_second(seen.asked(), window))),
            grouped(sent(all)),
            grouped(middle(all, &|seen| per_second(seen.orders.shed + seen.looks.shed, window))),
        ));
        report.figure(&format!("{name}_good_per_s"), good(all));
        report.figure(&format!("{name}_orders_per_s"), orders(all));
        report.figure(&format!("{name}_looks_per_s"), looks(all));
        report.figure(&format!("{name}_sent_per_s"), sent(all));
    }
    let kept = ratio(good(storms), good(peaks));
    let kept_orders = ratio(orders(storms), orders(peaks));
    let kept_looks = ratio(looks(storms), looks(peaks));
    report.figure("goodput_kept", kept);
    report.figure("orders_kept", kept_orders);
    report.figure("looks_kept", kept_looks);
    report.bar(format!("{:.0} % of the peak is kept (80 %)", 100.0 * kept), kept >= 0.8);
    report.bar(
        format!(
            "{:.0} % of the orders, {:.0} % of the looks",
            100.0 * kept_orders,
            100.0 * kept_looks
        ),
        kept_orders >= kept_looks && kept_orders >= 0.8,
    );
}

/// One phase of load.
struct Plan {
    address: SocketAddr,
    requests: Vec<Wish>,
    /// Every order is another one's.
    guests: Guests,
    /// As fast as the answers come, where there is no rate.
    per_second: Option<f64>,
    connections: usize,
    window: Duration,
}

/// A request, and the place of its basket where it is an order.
#[derive(Debug, Clone)]
struct Wish {
    request: Request,
    basket: Option<usize>,
}

/// What became of requests of one kind that were due in the window.
#[derive(Debug, Default)]
struct Fates {
    /// Answered as they should within [`PATIENCE`].
    good: usize,
    /// Told to come back.
    shed: usize,
    /// Answered too late or not at all.
    late: usize,
    /// Not sent, because every connection was waiting when its time came.
    unsent: usize,
}

#[derive(Debug, Default)]
struct Seen {
    orders: Fates,
    looks: Fates,
    /// For the ledger: every order that was acknowledged, in the window and outside it.
    tally: Tally,
}

impl Seen {
    fn good(&self, window: Duration) -> f64 {
        per_second(self.orders.good + self.looks.good, window)
    }

    fn asked(&self) -> usize {
        let of = |fates: &Fates| fates.good + fates.shed + fates.late + fates.unsent;
        of(&self.orders) + of(&self.looks)
    }

    fn sent(&self) -> usize {
        self.asked() - self.orders.unsent - self.looks.unsent
    }
}

/// Each SKU's order after some looks, every other of which is a customer's.
fn requests(shop: &Shop, baskets: &[Basket], slugs: &[String]) -> Vec<Wish> {
    let token = shop.guests.token();
    let mut wishes = Vec::with_capacity((LOOKS + 1) * baskets.len());
    for (place, basket) in baskets.iter().enumerate() {
        for look in place * LOOKS..(place + 1) * LOOKS {
            let path = format!("/v1/products/{}", slugs[look % slugs.len()]);
            let request = match shop.customers.get(look / 2 % shop.customers.len().max(1)) {
                Some(customer) if look % 2 == 0 => Request::get_as(customer, &path),
                Some(_) | None => Request::get(&path),
            };
            wishes.push(Wish { request, basket: None });
        }
        let request = Request::checkout(&token, &basket.body);
        wishes.push(Wish { request, basket: Some(place) });
    }
    wishes
}

/// Runs the plan on a thread of its own, because one thread that waits for all connections costs least.
async fn load(plan: Plan) -> Outcome<Seen> {
    let (reply, seen) = oneshot::channel();
    thread::Builder::new().name("clients".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let seen = runtime.map(|runtime| LocalSet::new().block_on(&runtime, all(Rc::new(plan))));
        // Nobody waits for it any more when the program was told to stop.
        let _ = reply.send(seen);
    })?;
    Ok(seen.await??)
}

async fn all(plan: Rc<Plan>) -> Seen {
    let start = Instant::now() + Duration::from_millis(100);
    let turn = Rc::new(Cell::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..plan.connections {
        clients.spawn_local(client(plan.clone(), turn.clone(), start));
    }
    let mut seen = Seen::default();
    while let Some(part) = clients.join_next().await {
        let part = part.unwrap_or_default();
        for (all, own) in [(&mut seen.orders, part.orders), (&mut seen.looks, part.looks)] {
            all.good += own.good;
            all.shed += own.shed;
            all.late += own.late;
            all.unsent += own.unsent;
        }
        seen.tally.merge(part.tally);
    }
    seen
}

/// One connection: takes whatever is due next, until the plan ends.
async fn client(plan: Rc<Plan>, turns: Rc<Cell<usize>>, start: Instant) -> Seen {
    let (open, end) = (start + WARM_UP, start + WARM_UP + plan.window);
    let mut seen = Seen::default();
    let mut connection = None;
    sleep_until(start.into()).await;
    loop {
        let turn = turns.replace(turns.get() + 1);
        let due = match plan.per_second {
            Some(rate) => start + Duration::from_secs_f64(turn as f64 / rate),
            None => Instant::now(),
        };
        if due >= end {
            return seen;
        }
        if due > Instant::now() {
            sleep_until(due.into()).await;
        }
        let wish = &plan.requests[turn % plan.requests.len()];
        let is_counted = due >= open;
        let fates = if wish.basket.is_some() { &mut seen.orders } else { &mut seen.looks };
        if Instant::now() > due + LAG_MAX {
            fates.unsent += usize::from(is_counted);
            continue;
        }
        let exchange = exchange(&plan, &mut connection, wish);
        let Ok(Ok(answer)) = timeout_at((due + 10 * PATIENCE).into(), exchange).await else {
            connection = None;
            fates.late += usize::from(is_counted);
            seen.tally.unanswered += 1;
            continue;
        };
        if is_counted {
            let in_time = due.elapsed() <= PATIENCE;
            match answer.status {
                200 | 201 if in_time => fates.good += 1,
                503 => fates.shed += 1,
                _ => fates.late += 1,
            }
        }
        *seen.tally.answers.entry(answer.status).or_default() += 1;
        if let Some(basket) = wish.basket
            && answer.status == 201
        {
            seen.tally.acknowledged.push((order_id(answer.body).unwrap_or_default(), basket));
        }
    }
}

async fn exchange<'a>(
    plan: &Plan,
    connection: &'a mut Option<Connection>,
    wish: &Wish,
) -> io::Result<Answer<'a>> {
    let open = match connection.take() {
        Some(connection) => connection,
        None => Connection::open(plan.address).await?,
    };
    let open = connection.insert(open);
    if wish.basket.is_none() {
        return open.ask(&wish.request).await;
    }
    let key = Uuid::new_v4().simple().to_string();
    let key = key.as_bytes().first_chunk::<KEY_LENGTH>().ok_or(io::ErrorKind::InvalidData)?;
    open.exchange(wish.request.clone().of(&plan.guests.token(), key)).await
}
