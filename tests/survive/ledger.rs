//! What clients were told, to be compared with what is true.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// One shopper's wish to order. Every wish has a shopper of its own, so that an order is traced to
/// its wish without asking the server's own bookkeeping of keys.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) owner_id: Uuid,
    pub(crate) token: String,
    pub(crate) key: String,
    pub(crate) email: String,
    /// Variant and units.
    pub(crate) lines: Vec<(Uuid, i64)>,
    pub(crate) total_minor: i64,
}

/// What a client made of one request to order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201.
    Placed(PlacedOrder),
    /// 409: too little is left.
    OutOfStock,
    /// 409: the same key is being worked on; come back.
    InFlight,
    /// 503: come back.
    Unavailable(String),
    /// Anything else: its status and code.
    Refused(u16, String),
    /// No answer came, and the request may have been heard.
    Lost(String),
    /// Nobody listened; the request was never sent.
    Unheard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedOrder {
    pub(crate) id: Uuid,
    pub(crate) placed_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) replayed: bool,
}

impl PlacedOrder {
    /// How long the stock is held. A test that moves time moves both moments.
    fn hold(&self) -> time::Duration {
        self.expires_at - self.placed_at
    }
}

impl Answer {
    /// Whether the client knows what became of the wish.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Placed(_) | Self::OutOfStock | Self::Refused(..))
    }

    pub(crate) fn placed(&self) -> Option<&PlacedOrder> {
        match self {
            Self::Placed(order) => Some(order),
            Self::OutOfStock
            | Self::InFlight
            | Self::Unavailable(_)
            | Self::Refused(..)
            | Self::Lost(_)
            | Self::Unheard => None,
        }
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Refused(status, _) if *status >= 500)
    }
}

/// What a client made of one request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CancelAnswer {
    Cancelled,
    /// 409: too late.
    NotCancellable,
    /// 503, or no answer; come back.
    Unknown(String),
    Refused(u16, String),
}

/// What a client made of one request about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PaymentAnswer {
    /// 200 or 201.
    Told(ToldPayment),
    /// 409 of a request in flight, or 503: come back.
    Later(String),
    /// Anything else: its status and code.
    Refused(u16, String),
    /// No answer came.
    Lost(String),
}

/// A payment as the server told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToldPayment {
    pub(crate) id: Uuid,
    pub(crate) state: String,
    pub(crate) order_status: String,
    /// `pi_…` or `order_…`, where the shopper can pay.
    pub(crate) reference: Option<String>,
}

impl PaymentAnswer {
    /// Whether the client knows what came of the request.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Told(_) | Self::Refused(..))
    }

    pub(crate) fn told(&self) -> Option<&ToldPayment> {
        if let Self::Told(payment) = self { Some(payment) } else { None }
    }
}

#[derive(Debug)]
struct Entry {
    wish: Wish,
    answers: Vec<Answer>,
    cancels: Vec<CancelAnswer>,
    /// With the key, or the id, that the request was about.
    payments: Vec<(String, PaymentAnswer)>,
}

/// Every wish with every answer to it. Clones share it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    entries: Arc<Mutex<HashMap<Uuid, Entry>>>,
    /// What no answer may look like, whatever happens.
    breaches: Arc<Mutex<Vec<String>>>,
}

impl Ledger {
    /// Notes the wish before it is sent: its answer may never come.
    pub(crate) fn open(&self, wish: &Wish) {
        let entry = || Entry {
            wish: wish.clone(),
            answers: Vec::new(),
            cancels: Vec::new(),
            payments: Vec::new(),
        };
        lock(&self.entries).entry(wish.owner_id).or_insert_with(entry);
    }

    pub(crate) fn note(&self, wish: &Wish, answer: &Answer) {
        let mut entries = lock(&self.entries);
        let entry =
            entries.get_mut(&wish.owner_id).expect("a wish is opened before it is answered");
        entry.answers.push(answer.clone());
    }

    pub(crate) fn note_cancel(&self, wish: &Wish, answer: &CancelAnswer) {
        let mut entries = lock(&self.entries);
        let entry =
            entries.get_mut(&wish.owner_id).expect("a wish is opened before it is cancelled");
        entry.cancels.push(answer.clone());
    }

    /// Notes what was said about the payment of that key or id.
    pub(crate) fn note_payment(&self, wish: &Wish, about: &str, answer: &PaymentAnswer) {
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(&wish.owner_id).expect("a wish is opened before it is paid");
        entry.payments.push((about.to_owned(), answer.clone()));
    }

    /// Notes an answer that breaks the API's own rules.
    pub(crate) fn note_breach(&self, breach: String) {
        lock(&self.breaches).push(breach);
    }

    /// How many answers there were of a kind.
    pub(crate) fn count(&self, kind: impl Fn(&Answer) -> bool) -> usize {
        let entries = lock(&self.entries);
        entries.values().flat_map(|entry| &entry.answers).filter(|answer| kind(answer)).count()
    }

    /// How many wishes were granted.
    pub(crate) fn placed(&self) -> usize {
        let entries = lock(&self.entries);
        let is_placed =
            |entry: &&Entry| entry.answers.iter().any(|answer| answer.placed().is_some());
        entries.values().filter(is_placed).count()
    }

    /// The wishes whose request failed on its way and whose repeat showed that it had had its effect.
    pub(crate) fn heard_but_unanswered(&self) -> Vec<String> {
        let entries = lock(&self.entries);
        let told = entries.values().filter_map(|entry| {
            let lost = entry.answers.iter().find(|answer| matches!(answer, Answer::Lost(_)))?;
            let replayed =
                entry.answers.iter().filter_map(Answer::placed).any(|order| order.replayed);
            replayed.then(|| format!("{}: {lost:?}", entry.wish.key))
        });
        told.collect()
    }

    /// How many answers there were, to orders and cancellations alike.
    pub(crate) fn answers(&self) -> usize {
        let entries = lock(&self.entries);
        entries.values().map(|entry| entry.answers.len() + entry.cancels.len()).sum()
    }

    /// No server failed. A machine that stalls makes some clients come back: ten, or one in a hundred of so
    /// many answers, are forgiven.
    #[track_caller]
    pub(crate) fn assert_served(&self, answers: usize) {
        let (mut failed, mut put_off) = (Vec::new(), Vec::new());
        for entry in lock(&self.entries).values() {
            for answer in &entry.answers {
                if answer.is_failure() {
                    failed.push(format!("{answer:?}"));
                } else if matches!(answer, Answer::Unavailable(_)) {
                    put_off.push(format!("{answer:?}"));
                }
            }
            for answer in &entry.cancels {
                if matches!(answer, CancelAnswer::Refused(status, _) if *status >= 500) {
                    failed.push(format!("cancel: {answer:?}"));
                } else if matches!(answer, CancelAnswer::Unknown(_)) {
                    put_off.push(format!("cancel: {answer:?}"));
                }
            }
        }
        assert_eq!(failed, Vec::<String>::new(), "{}", self.summary());
        assert!(
            put_off.len() <= answers.div_ceil(100).max(10),
            "{} of {answers} were put off: {put_off:?}",
            put_off.len()
        );
    }

    /// How often each kind of answer was given, for people to read.
    pub(crate) fn summary(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for answer in lock(&self.entries).values().flat_map(|entry| &entry.answers) {
            let kind = match answer {
                Answer::Placed(order) if order.replayed => "placed, replayed".to_owned(),
                Answer::Placed(_) => "placed".to_owned(),
                Answer::OutOfStock => "out of stock".to_owned(),
                Answer::InFlight => "in flight".to_owned(),
                Answer::Unavailable(code) => format!("503 {code}"),
                Answer::Refused(status, code) => format!("{status} {code}"),
                Answer::Lost(_) => "lost".to_owned(),
                Answer::Unheard => "unheard".to_owned(),
            };
            *counts.entry(kind).or_default() += 1;
        }
        listed(counts)
    }

    /// The same of the answers about payments and cancellations.
    pub(crate) fn payment_summary(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for entry in lock(&self.entries).values() {
            for (_, answer) in &entry.payments {
                let kind = match answer {
                    PaymentAnswer::Told(payment) => payment.state.clone(),
                    PaymentAnswer::Later(code) => format!("later {code}"),
                    PaymentAnswer::Refused(status, code) => format!("{status} {code}"),
                    PaymentAnswer::Lost(_) => "lost".to_owned(),
                };
                *counts.entry(kind).or_default() += 1;
            }
            for answer in &entry.cancels {
                let kind = match answer {
                    CancelAnswer::Cancelled => "cancel: done".to_owned(),
                    CancelAnswer::NotCancellable => "cancel: too late".to_owned(),
                    CancelAnswer::Unknown(_) => "cancel: unknown".to_owned(),
                    CancelAnswer::Refused(status, code) => format!("cancel: {status} {code}"),
                };
                *counts.entry(kind).or_default() += 1;
            }
        }
        listed(counts)
    }

    /// Compares every answer with the database and panics with all that disagrees.
    pub(crate) async fn agree(&self, db: &PgPool) {
        let orders = stored_orders(db).await.unwrap();
        let mut wrong = lock(&self.breaches).clone();
        let entries = lock(&self.entries);
        for (owner_id, orders) in &orders {
            if !entries.contains_key(owner_id) {
                wrong.push(format!("nobody asked for the orders {orders:?}"));
            }
        }
        for (owner_id, entry) in entries.iter() {
            let stored = orders.get(owner_id).map(Vec::as_slice).unwrap_or_default();
            let found = disagreements(entry, stored);
            wrong.extend(
                found
                    .into_iter()
                    .map(|what| format!("{what}\n    {entry:?}\n    stored: {stored:?}")),
            );
        }
        assert!(
            wrong.is_empty(),
            "{} answers and the database disagree:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

fn listed(counts: BTreeMap<String, usize>) -> String {
    let mut list = String::new();
    for (kind, count) in counts {
        let _ = write!(list, "{count} {kind}, ");
    }
    list
}

#[derive(Debug)]
struct StoredOrder {
    id: Uuid,
    status: String,
    hold: time::Duration,
    /// Its deadline was moved for a payment under way.
    extended: bool,
    email: String,
    lines: Vec<(Uuid, i64)>,
}

/// Every order in the database, by its owner.
async fn stored_orders(db: &PgPool) -> sqlx::Result<HashMap<Uuid, Vec<StoredOrder>>> {
    type Row =
        (Uuid, Uuid, String, OffsetDateTime, OffsetDateTime, bool, String, Vec<Uuid>, Vec<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "
        SELECT
            orders.owner_id, orders.id, orders.status, orders.placed_at, orders.expires_at,
            orders.extended_at IS NOT NULL, orders.email,
            array_agg(order_lines.variant_id ORDER BY position),
            array_agg(order_lines.quantity ORDER BY position)
        FROM orders
        JOIN order_lines ON order_lines.order_id = orders.id
        GROUP BY orders.id
        ",
    )
    .fetch_all(db)
    .await?;
    let mut orders = HashMap::<Uuid, Vec<StoredOrder>>::new();
    for (owner_id, id, status, placed_at, expires_at, extended, email, variants, quantities) in rows
    {
        let lines = variants.into_iter().zip(quantities).collect();
        let hold = expires_at - placed_at;
        let order = StoredOrder { id, status, hold, extended, email, lines };
        orders.entry(owner_id).or_default().push(order);
    }
    Ok(orders)
}

/// All in which the answers to one wish and its orders differ.
fn disagreements(entry: &Entry, stored: &[StoredOrder]) -> Vec<String> {
    let mut wrong = Vec::new();
    let answers: Vec<_> = entry.answers.iter().filter_map(Answer::placed).collect();
    if stored.len() > 1 {
        wrong.push(format!("one key made {} orders", stored.len()));
    }
    if !entry.answers.iter().any(Answer::is_final) {
        wrong.push("a wish was never answered".to_owned());
    }
    if answers.iter().filter(|order| !order.replayed).count() > 1 {
        wrong.push("an order was announced as new more than once".to_owned());
    }
    match (answers.first(), stored.first()) {
        (None, None) => {}
        (Some(_), None) => wrong.push("an acknowledged order is gone".to_owned()),
        (None, Some(_)) => wrong.push("an order exists whose wish was refused".to_owned()),
        (Some(_), Some(order)) => {
            if answers.iter().any(|answer| answer.id != order.id) {
                wrong.push("an answer named another order".to_owned());
            }
            if !order.extended && answers.iter().any(|answer| answer.hold() != order.hold) {
                wrong.push("an answer promised another deadline".to_owned());
            }
            if order.lines != entry.wish.lines || order.email != entry.wish.email {
                wrong.push("the order is not what was asked for".to_owned());
            }
            wrong.extend(cancel_disagreement(entry, order));
            wrong.extend(payment_disagreements(entry, order));
        }
    }
    wrong
}

fn cancel_disagreement(entry: &Entry, order: &StoredOrder) -> Option<String> {
    let told = |answer: &CancelAnswer| entry.cancels.contains(answer);
    if told(&CancelAnswer::Cancelled) && order.status != "cancelled" {
        return Some("an order that was cancelled is not".to_owned());
    }
    if told(&CancelAnswer::NotCancellable) && order.status == "cancelled" {
        return Some("an order that could not be cancelled is".to_owned());
    }
    if entry.cancels.is_empty() && order.status == "cancelled" {
        return Some("nobody cancelled this order".to_owned());
    }
    None
}

fn payment_disagreements(entry: &Entry, order: &StoredOrder) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ids = HashMap::new();
    for (about, answer) in &entry.payments {
        let Some(payment) = answer.told() else { continue };
        let was_given_up = entry.cancels.contains(&CancelAnswer::Cancelled);
        if payment.order_status == "paid" && order.status != "paid" && !was_given_up {
            wrong.push("an order that was paid is not".to_owned());
        }
        if *ids.entry(about).or_insert(payment.id) != payment.id {
            wrong.push(format!("one key, {about}, opened two payments"));
        }
    }
    wrong
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails holds nothing half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
