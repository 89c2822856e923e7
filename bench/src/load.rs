//! Shoppers, or a provider, at the API's door: a closed loop that asks as fast as it is answered, and
//! an open one that asks at a fixed rate whatever the answers.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::sleep_until,
};
use uuid::Uuid;

use crate::{
    Outcome,
    http::{Answer, Connection, KEY_LENGTH, Request},
    news::News,
    shop::Guests,
    statistics::{Latencies, microseconds, per_second},
};

/// What is not counted: connections, caches and statements are new.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// Longer than the API lets a checkout wait: who gets no answer by then gets none.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// How many connections one client breaks before it gives up.
const CONNECTIONS_MAX: usize = 20;

/// What one order asks for.
#[derive(Debug, Clone)]
pub(crate) struct Basket {
    /// The checkout's body.
    pub(crate) body: Value,
    /// The units of each SKU, by the SKU's place in the scenario's list.
    pub(crate) units: Vec<(usize, i64)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each client sends its next request when it has the answer to the last.
    Closed,
    /// So many requests a second in all, at even distances. Latency counts from the moment at
    /// which a request should have been sent, so that waiting behind slow answers is not hidden.
    Open { per_second: f64 },
}

/// One phase of load.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) callers: Callers,
    pub(crate) pace: Pace,
    /// The status that is counted and timed: 201 where orders are wanted, 409 where refusals are.
    pub(crate) counted: u16,
    pub(crate) window: Duration,
}

/// Who calls, and with what.
#[derive(Debug)]
pub(crate) enum Callers {
    Shoppers {
        clients: usize,
        /// Every order is another guest's: one caller may leave five unpaid.
        guests: Guests,
        baskets: Vec<Basket>,
    },
    /// A provider that has news, over so many connections.
    Provider { connections: usize, news: News },
}

impl Callers {
    fn count(&self) -> usize {
        match self {
            Self::Shoppers { clients, .. } => *clients,
            Self::Provider { connections, .. } => *connections,
        }
    }

    /// The one of them that this client is.
    fn caller(&self, client: usize) -> Caller<'_> {
        match self {
            Self::Shoppers { clients, guests, baskets } => Caller::Shopper {
                requests: requests(&guests.token(), *clients, baskets, client),
                guests,
                key: Key::new(),
            },
            Self::Provider { connections, news } => {
                Caller::Provider { news, client, connections: *connections, request: Vec::new() }
            }
        }
    }
}

/// One client's requests.
enum Caller<'a> {
    Shopper { requests: Vec<(usize, Request)>, guests: &'a Guests, key: Key },
    Provider { news: &'a News, client: usize, connections: usize, request: Vec<u8> },
}

impl Caller<'_> {
    /// The client's next request and the place of its basket, or `None` when it has said everything.
    fn next(&mut self, turn: u32) -> Option<(usize, &[u8])> {
        match self {
            Self::Shopper { requests, guests, key } => {
                let place = turn as usize % requests.len();
                let (basket, request) = &mut requests[place];
                Some((*basket, request.of(&guests.token(), key.next())))
            }
            Self::Provider { news, client, connections, request } => {
                let event = turn as usize * *connections + *client;
                news.write(event, request).then_some((event, request.as_slice()))
            }
        }
    }
}

/// What the clients were answered, in the window and outside it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Every order or event that was acknowledged, with the place of its basket or of the event.
    pub(crate) acknowledged: Vec<(Uuid, usize)>,
    /// The latencies of the answers that count, in microseconds.
    timed: Vec<u32>,
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Requests without an answer: their outcome is unknown.
    pub(crate) unanswered: u64,
}

impl Tally {
    /// Notes an answer; latency is `None` outside the window.
    fn note(&mut self, answer: Answer<'_>, basket: usize, latency: Option<Duration>, counted: u16) {
        *self.answers.entry(answer.status).or_default() += 1;
        if matches!(answer.status, 200 | 201) {
            // An answer without an order is an order that is lost: the nil id is in no table. Events
            // go by their place.
            self.acknowledged.push((order_id(answer.body).unwrap_or_default(), basket));
        }
        if answer.status == counted
            && let Some(latency) = latency
        {
            self.timed.push(microseconds(latency));
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.timed.extend(other.timed);
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        self.unanswered += other.unanswered;
    }

    /// The rate and the latencies of the answers that count.
    pub(crate) fn measured(&self, window: Duration) -> Measured {
        Measured {
            per_second: per_second(self.timed.len(), window),
            latencies: Latencies::new(self.timed.clone()),
        }
    }

    /// How many requests were turned away because the shop was busy.
    pub(crate) fn turned_away(&self) -> u64 {
        self.answers.get(&503).copied().unwrap_or(0)
    }

    /// How many requests had no answer, or one that a good request should never get.
    pub(crate) fn failures(&self) -> u64 {
        let strange: u64 = self
            .answers
            .iter()
            .filter(|(status, _)| !matches!(status, 200 | 201 | 409 | 503))
            .map(|(_, count)| count)
            .sum();
        strange + self.unanswered
    }
}

/// What one phase of one contestant yielded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) latencies: Latencies,
}

/// Runs the plan to its end: on a thread of its own, because one thread that waits for all
/// connections costs least.
pub(crate) async fn run(plan: Plan) -> Outcome<Tally> {
    let (reply, tally) = oneshot::channel();
    thread::Builder::new().name("clients".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tally =
            runtime.map(|runtime| LocalSet::new().block_on(&runtime, call_together(Rc::new(plan))));
        // Nobody waits for it any more when the program was told to stop.
        let _ = reply.send(tally);
    })?;
    Ok(tally.await??)
}

async fn call_together(plan: Rc<Plan>) -> Tally {
    let start = Instant::now() + Duration::from_millis(50);
    let mut clients = JoinSet::new();
    for client in 0..plan.callers.count() {
        clients.spawn_local(call(plan.clone(), client, start));
    }
    let mut tally = Tally::default();
    while let Some(part) = clients.join_next().await {
        tally.merge(part.unwrap_or_default());
    }
    tally
}

/// One client, until the plan ends.
async fn call(plan: Rc<Plan>, client: usize, start: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut line = Line { address: plan.address, connection: None, attempts: 0 };
    let mut caller = plan.callers.caller(client);
    let (open, end) = (start + WARM_UP, start + WARM_UP + plan.window);
    let hopeless = sleep_until((end + ANSWER_WAIT_MAX).into());
    tokio::pin!(hopeless);
    sleep_until(start.into()).await;
    for turn in 0.. {
        let Some(due) = due(&plan, client, turn, start).filter(|due| *due < end) else { break };
        if due > Instant::now() {
            sleep_until(due.into()).await;
        }
        let Some((basket, request)) = caller.next(turn) else { break };
        let answer = tokio::select! {
            biased;
            answer = line.exchange(request) => answer,
            () = &mut hopeless => Err(io::ErrorKind::TimedOut.into()),
        };
        let Ok(answer) = answer else {
            tally.unanswered += 1;
            if hopeless.is_elapsed() || !line.hang_up() {
                break;
            }
            continue;
        };
        let now = Instant::now();
        // An open loop counts what was due in the window, a closed one what was answered in it.
        let moment = if matches!(plan.pace, Pace::Open { .. }) { due } else { now };
        let latency = (open..end).contains(&moment).then(|| now - due);
        tally.note(answer, basket, latency, plan.counted);
    }
    tally
}

/// When the client's next request is due.
fn due(plan: &Plan, client: usize, turn: u32, start: Instant) -> Option<Instant> {
    match plan.pace {
        Pace::Closed => Some(Instant::now()),
        Pace::Open { per_second } => {
            let place = f64::from(turn) * plan.callers.count() as f64 + client as f64;
            start.checked_add(Duration::try_from_secs_f64(place / per_second).ok()?)
        }
    }
}

/// The client's requests, in turn: of many baskets each client has its own share.
fn requests(
    token: &str,
    clients: usize,
    baskets: &[Basket],
    client: usize,
) -> Vec<(usize, Request)> {
    let share = (baskets.len() / clients).max(1);
    (0..share)
        .map(|turn| {
            let basket = (client + turn * clients) % baskets.len();
            (basket, Request::checkout(token, &baskets[basket].body))
        })
        .collect()
}

/// A connection that is opened again after it broke.
struct Line {
    address: SocketAddr,
    connection: Option<Connection>,
    attempts: usize,
}

impl Line {
    async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        self.connection.insert(connection).exchange(request).await
    }

    /// Gives up the connection; `false` when it is no use to open another.
    fn hang_up(&mut self) -> bool {
        self.connection = None;
        self.attempts += 1;
        self.attempts < CONNECTIONS_MAX
    }
}

/// Keys that no other client uses, in this run or another.
struct Key {
    bytes: [u8; KEY_LENGTH],
}

impl Key {
    fn new() -> Self {
        let mut bytes = [b'0'; KEY_LENGTH];
        let name = Uuid::new_v4().simple().to_string();
        bytes[..KEY_LENGTH / 2].copy_from_slice(&name.as_bytes()[..KEY_LENGTH / 2]);
        Self { bytes }
    }

    /// Counts up the decimal number that the key ends with.
    fn next(&mut self) -> &[u8; KEY_LENGTH] {
        for digit in self.bytes[KEY_LENGTH / 2..].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        &self.bytes
    }
}

/// The order that an answer acknowledges.
pub(crate) fn order_id(body: &[u8]) -> Option<Uuid> {
    const NAME: &[u8] = b"\"order_id\":\"";
    let start = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Uuid::try_parse_ascii(body.get(start..start + 36)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_up_and_keep_their_name() {
        let mut key = Key::new();
        let first = *key.next();
        for _ in 0..99 {
            key.next();
        }
        let later = *key.next();

        assert_eq!(first[..16], later[..16]);
        assert!(first.ends_with(b"0001"));
        assert!(later.ends_with(b"0101"));
    }

    #[test]
    fn an_order_is_read_off_its_answer() {
        let id = Uuid::now_v7();
        let body = format!(r#"{{"order_id":"{id}","number":"HF-1"}}"#);

        assert_eq!(order_id(body.as_bytes()), Some(id));
        assert_eq!(order_id(br#"{"order_id":"7"}"#), None);
    }
}
