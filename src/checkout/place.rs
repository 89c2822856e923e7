//! Placing orders: a slice of wishes becomes orders with held stock, in one transaction.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jobs::notifications::SendOrderReceived;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    CheckoutError, PlaceOrder, Receipt, ReceiptLine, SoldOut, Unfair,
    allowance::Allowances,
    price::{Offers, Priced, price},
};
use crate::{
    catalog,
    context::Context,
    idempotency::{self, KeyError, NewRecord, Recorded},
    inventory::{
        allocation::{self, Available, Demand, Shortage},
        holds::{self, Account, Cause, Hold, Movement, moved},
    },
    kernel::{CustomerKey, VariantId, database, failpoint, halves::halves, rerun},
    orders::{self, NewOrder, Status},
};

/// The answer to a wish that was granted, now or before.
#[derive(Debug, Clone)]
pub struct Placement {
    pub receipt: Receipt,
    pub status: Status,
    pub expires_at: OffsetDateTime,
    /// Zero when the deadline has passed.
    pub expires_in: Duration,
    /// The order was there already: the request was a repeat.
    pub replayed: bool,
}

type Outcome = Result<Placement, CheckoutError>;

/// Turns each wish into an order that waits for its payment, or says why not, in the order given.
///
/// An order, its held stock, its key and its follow-up work commit together or not at all. A wish
/// whose key was used before for the same request gets that order again and holds nothing more.
/// However many wishes the slice has (at most [`SLICE_MAX`](crate::kernel::batch::SLICE_MAX)), one
/// attempt takes 17 statements at most, `BEGIN` and `COMMIT` included, and one more where a variant is
/// limited to some units a customer.
pub async fn place_orders(cx: &Context, sold_out: &SoldOut, slice: &[PlaceOrder]) -> Vec<Outcome> {
    let (leaders, followers) = same_keys(slice);
    let mut outcomes = HashMap::with_capacity(slice.len());

    let (mut refused, mut open) = (Vec::new(), Vec::new());
    for place in leaders {
        let shortages = sold_out.shortages(&slice[place].demand());
        if shortages.is_empty() {
            open.push(place);
        } else {
            refused.push((place, shortages));
        }
    }
    let wishes: Vec<_> =
        refused.iter().map(|(place, shortages)| (&slice[*place], &**shortages)).collect();
    let answers = refuse_sold_out(cx, &wishes).await;
    outcomes.extend(refused.iter().map(|(place, _)| *place).zip(answers));
    let wishes: Vec<_> = open.iter().map(|&place| &slice[place]).collect();
    outcomes.extend(open.into_iter().zip(place_open(cx, sold_out, &wishes).await));

    for (place, leader) in followers {
        let same = slice[place].fingerprint == slice[leader].fingerprint;
        let outcome = match &outcomes[&leader] {
            Ok(placement) if same => Ok(Placement { replayed: true, ..placement.clone() }),
            Ok(_) => Err(KeyError::Reused.into()),
            Err(error) if same => Err(error.clone()),
            Err(_) => Err(KeyError::InFlight.into()),
        };
        outcomes.insert(place, outcome);
    }
    (0..slice.len())
        .map(|place| outcomes.remove(&place).unwrap_or(Err(CheckoutError::OutcomeUnknown)))
        .collect()
}

/// Splits the places of the slice into those that act and, for equal keys, those that follow one that acts.
fn same_keys(slice: &[PlaceOrder]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let mut leader_of = HashMap::new();
    let (mut leaders, mut followers) = (Vec::with_capacity(slice.len()), Vec::new());
    for (place, wish) in slice.iter().enumerate() {
        let leader = *leader_of.entry(wish.claim()).or_insert(place);
        if leader == place {
            leaders.push(place);
        } else {
            followers.push((place, leader));
        }
    }
    (leaders, followers)
}

/// Answers wishes for what is known to be sold out: with their order if their key has one.
async fn refuse_sold_out(cx: &Context, wishes: &[(&PlaceOrder, &[Shortage])]) -> Vec<Outcome> {
    if wishes.is_empty() {
        return Vec::new();
    }
    let orders: Vec<_> = wishes.iter().map(|(wish, _)| *wish).collect();
    let replays: Result<_, CheckoutError> = async {
        let mut db = cx.db.acquire().await?;
        let claims: Vec<_> = orders.iter().map(|wish| wish.claim()).collect();
        let recorded = idempotency::find(&mut *db, &claims).await?;
        Ok(replays(&mut db, &orders, &recorded).await?)
    }
    .await;
    let mut replays = match replays {
        Ok(replays) => replays,
        Err(error) => return vec![Err(error); wishes.len()],
    };
    let refuse = |(place, (wish, shortages)): (usize, &(&PlaceOrder, &[Shortage]))| {
        replays.remove(&place).unwrap_or_else(|| Err(out_of_stock(wish, shortages)))
    };
    wishes.iter().enumerate().map(refuse).collect()
}

/// Places the wishes; one that the database refuses does not spoil the others.
async fn place_open(cx: &Context, sold_out: &SoldOut, wishes: &[&PlaceOrder]) -> Vec<Outcome> {
    let placed = halves("orders", wishes, |part| {
        rerun(move || place_together(cx, sold_out, part), CheckoutError::database)
    })
    .await;
    placed.into_iter().map(|outcome| outcome.map_err(number_taken).flatten()).collect()
}

/// A number that another order has is the one thing that a repeat mends.
fn number_taken(error: CheckoutError) -> CheckoutError {
    let constraint = error.database().and_then(database::violated_constraint);
    if constraint == Some("orders_number_unique") { CheckoutError::NumberTaken } else { error }
}

/// One attempt: the whole slice in one transaction.
async fn place_together(
    cx: &Context,
    sold_out: &SoldOut,
    wishes: &[&PlaceOrder],
) -> Result<Vec<Outcome>, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let Attempt { mut outcomes, allocation, written } = match attempt(&mut tx, cx, wishes).await {
        Ok(attempt) => attempt,
        Err(error) => {
            // Not left to the drop, which would keep the keys claimed while the next attempt, or
            // each half of the slice, asks for them.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    let Some(Written { moments, receipts, staged }) = written else {
        tx.rollback().await?;
        allocation.remember(sold_out);
        return Ok(outcomes.finish());
    };

    failpoint::pass("checkout.before-commit");
    tx.commit().await.map_err(CheckoutError::of_commit)?;
    failpoint::pass("checkout.after-commit");

    for (place, receipt) in receipts {
        outcomes.set(place, Ok(placement(receipt, moments, cx.hold)));
    }
    cx.relay.deadline(moments.expires_at.unix_timestamp());
    cx.relay.wake(staged);
    allocation.remember(sold_out);
    Ok(outcomes.finish())
}

/// What an attempt came to before its end.
struct Attempt {
    outcomes: Outcomes,
    allocation: Allocation,
    /// `None` where no wish could be granted.
    written: Option<Written>,
}

/// What was written for the wishes that were granted, with their places.
struct Written {
    moments: orders::store::Placed,
    receipts: Vec<(usize, Receipt)>,
    staged: jobs::Staged,
}

async fn attempt(
    tx: &mut PgConnection,
    cx: &Context,
    wishes: &[&PlaceOrder],
) -> sqlx::Result<Attempt> {
    let mut outcomes = Outcomes::new(wishes.len());
    settle_keys(&mut *tx, wishes, &mut outcomes).await?;
    let priced = price_open(&mut *tx, wishes, &mut outcomes).await?;
    let allocation = allocate_stock(&mut *tx, cx, wishes, &priced, &mut outcomes).await?;
    let winners: Vec<_> = priced.iter().filter(|(place, _)| outcomes.is_open(*place)).collect();
    if winners.is_empty() {
        return Ok(Attempt { outcomes, allocation, written: None });
    }
    let (moments, staged) = write(tx, cx, wishes, &winners, &allocation).await?;
    let receipts = winners
        .into_iter()
        .map(|(place, priced)| (*place, receipt(wishes[*place], priced, moments.placed_at)))
        .collect();
    Ok(Attempt { outcomes, allocation, written: Some(Written { moments, receipts, staged }) })
}

/// Claims the keys and answers the wishes whose key is being worked on or was used before.
async fn settle_keys(
    tx: &mut PgConnection,
    wishes: &[&PlaceOrder],
    outcomes: &mut Outcomes,
) -> sqlx::Result<()> {
    let claims: Vec<_> = wishes.iter().map(|wish| wish.claim()).collect();
    let claimed = idempotency::claim(&mut *tx, &claims).await?;
    // A statement of its own: only one that starts after the claim sees what the last claimant committed.
    let recorded = idempotency::find(&mut *tx, &claims).await?;
    for (place, outcome) in replays(tx, wishes, &recorded).await? {
        outcomes.set(place, outcome);
    }
    for (place, claimed) in claimed.into_iter().enumerate() {
        if !claimed {
            outcomes.set(place, Err(KeyError::InFlight.into()));
        }
    }
    Ok(())
}

/// The answers to the wishes whose key is recorded, by their place.
async fn replays(
    db: &mut PgConnection,
    wishes: &[&PlaceOrder],
    recorded: &[Option<Recorded>],
) -> sqlx::Result<HashMap<usize, Outcome>> {
    let found: Vec<_> = recorded
        .iter()
        .enumerate()
        .filter_map(|(place, recorded)| Some((place, recorded.as_ref()?)))
        .collect();
    if found.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = found.iter().map(|(_, recorded)| recorded.subject_id.into()).collect();
    let standings = orders::store::standings(db, &ids).await?;
    let replay = |wish: &PlaceOrder, recorded: &Recorded| -> Outcome {
        recorded.check(wish.fingerprint)?;
        let receipt = serde_json::from_value(recorded.answer.clone())
            .map_err(|_| CheckoutError::UnreadableAnswer)?;
        let standing = standings
            .iter()
            .find(|standing| standing.id.uuid() == recorded.subject_id)
            .ok_or(CheckoutError::UnreadableAnswer)?;
        Ok(Placement {
            receipt,
            status: standing.status,
            expires_at: standing.expires_at,
            expires_in: Duration::from_millis(u64::try_from(standing.expires_in_ms).unwrap_or(0)),
            replayed: true,
        })
    };
    Ok(found
        .into_iter()
        .map(|(place, recorded)| (place, replay(wishes[place], recorded)))
        .collect())
}

/// Prices what is still open, by what the catalogue says now.
async fn price_open(
    tx: &mut PgConnection,
    wishes: &[&PlaceOrder],
    outcomes: &mut Outcomes,
) -> sqlx::Result<Vec<(usize, Priced)>> {
    let open = outcomes.open();
    let wanted: BTreeSet<_> = open
        .iter()
        .flat_map(|&place| {
            let wish = wishes[place];
            wish.lines.iter().map(|line| (line.variant_id, wish.currency.code()))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (variant_ids, currencies): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let offers: Offers =
        catalog::store::offers(tx, &variant_ids, &currencies).await?.into_iter().collect();
    let mut priced = Vec::with_capacity(open.len());
    for place in open {
        match price(wishes[place], &offers) {
            Ok(lines) => priced.push((place, lines)),
            Err(error) => outcomes.set(place, Err(error)),
        }
    }
    Ok(priced)
}

/// What came of asking for stock.
#[derive(Debug)]
struct Allocation {
    taken: Vec<Hold>,
    /// What the granted wishes hold from now on, and for which customer.
    holds: Vec<(Hold, Option<CustomerKey>)>,
    /// Variants that have nothing left once this transaction is over, with their next expiry.
    sold_out: Vec<(VariantId, Option<Duration>)>,
    seen_at: Instant,
}

impl Allocation {
    fn none() -> Self {
        Self { taken: Vec::new(), holds: Vec::new(), sold_out: Vec::new(), seen_at: Instant::now() }
    }

    /// Notes when the next units of the variants come back, of which nothing is left now.
    async fn look_ahead(&mut self, tx: &mut PgConnection, empty: &[VariantId]) -> sqlx::Result<()> {
        if empty.is_empty() {
            return Ok(());
        }
        self.seen_at = Instant::now();
        self.sold_out = holds::store::next_expiries(tx, empty)
            .await?
            .into_iter()
            .map(|next| {
                let due_in = next.due_in_ms.map(|ms| u64::try_from(ms).unwrap_or(0));
                (next.variant_id, due_in.map(Duration::from_millis))
            })
            .collect();
        Ok(())
    }

    fn remember(&self, sold_out: &SoldOut) {
        for (variant_id, next_expiry) in &self.sold_out {
            sold_out.remember(*variant_id, self.seen_at, *next_expiry);
        }
    }
}

/// A priced wish that may be granted.
struct Claim<'a> {
    place: usize,
    wish: &'a PlaceOrder,
    demand: Demand,
}

/// Locks the callers and the stock, and serves the priced wishes in their order, each as far as its
/// caller and customer may have so much. Where they are short, expired holds are taken over and
/// everybody is served again from the start.
async fn allocate_stock(
    tx: &mut PgConnection,
    cx: &Context,
    wishes: &[&PlaceOrder],
    priced: &[(usize, Priced)],
    outcomes: &mut Outcomes,
) -> sqlx::Result<Allocation> {
    let mut allocation = Allocation::none();
    if priced.is_empty() {
        return Ok(allocation);
    }
    let claim = |place| Claim { place, wish: wishes[place], demand: wishes[place].demand() };
    let mut claims: Vec<_> = priced.iter().map(|(place, _)| claim(*place)).collect();
    let asking: Vec<_> = claims.iter().map(|claim| claim.wish).collect();
    let limits = priced.iter().flat_map(|(_, priced)| priced.limits.iter().copied()).collect();
    let mut allowances = Allowances::of_callers(&mut *tx, &asking, limits, cx.hold).await?;
    // No stock is locked, and none is taken from anybody, for what cannot be granted anyway.
    outcomes.keep(&mut claims, |claim| allowances.check_caller(claim.wish, &claim.demand));
    if claims.is_empty() {
        return Ok(allocation);
    }

    let mut available = lock_stock(&mut *tx, &claims).await?;
    let asking: Vec<_> = claims.iter().map(|claim| claim.wish).collect();
    allowances.count_purchases(&mut *tx, &asking).await?;
    outcomes.keep(&mut claims, |claim| allowances.check_customer(claim.wish, &claim.demand));

    let shortages = allocation::shortfall(&available, claims.iter().map(|claim| &claim.demand));
    if !shortages.is_empty() {
        allocation.taken = holds::store::take_over(&mut *tx, &shortages, &[]).await?;
        for hold in &allocation.taken {
            *available.entry(hold.variant_id).or_default() += hold.quantity;
        }
    }
    for claim in claims {
        match serve(claim.wish, claim.demand, &mut available, &mut allowances) {
            Ok(holds) => allocation.holds.extend(holds),
            Err(error) => outcomes.set(claim.place, Err(error)),
        }
    }
    let empty: Vec<_> = shortages
        .into_keys()
        .filter(|variant_id| available.get(variant_id).is_none_or(|left| *left == 0))
        .collect();
    allocation.look_ahead(tx, &empty).await?;
    Ok(allocation)
}

/// Locks the stock of all that is claimed.
async fn lock_stock(tx: &mut PgConnection, claims: &[Claim<'_>]) -> sqlx::Result<Available> {
    let variants: BTreeSet<_> = claims.iter().flat_map(|claim| claim.demand.keys()).collect();
    let variants: Vec<_> = variants.into_iter().copied().collect();
    let stock = holds::store::lock_stock(tx, &variants).await?;
    Ok(stock.into_iter().map(|stock| (stock.variant_id, stock.on_hand - stock.reserved)).collect())
}

/// Grants the wish, whole, or says why it cannot be granted now that those before it are served.
fn serve(
    wish: &PlaceOrder,
    demand: Demand,
    available: &mut Available,
    allowances: &mut Allowances,
) -> Result<Vec<(Hold, Option<CustomerKey>)>, CheckoutError> {
    allowances.check_caller(wish, &demand)?;
    allowances.check_customer(wish, &demand)?;
    allocation::serve(available, &demand).map_err(|shortages| out_of_stock(wish, &shortages))?;
    allowances.draw(wish, &demand);
    let customer = allowances.customer(wish);
    let hold =
        |(variant_id, quantity)| (Hold { order_id: wish.order_id, variant_id, quantity }, customer);
    Ok(demand.into_iter().map(hold).collect())
}

/// Writes everything that the granted wishes change, and stages their follow-up work.
async fn write(
    tx: &mut PgConnection,
    cx: &Context,
    wishes: &[&PlaceOrder],
    winners: &[&(usize, Priced)],
    allocation: &Allocation,
) -> sqlx::Result<(orders::store::Placed, jobs::Staged)> {
    let new_orders: Vec<_> =
        winners.iter().map(|(place, priced)| new_order(wishes[*place], priced)).collect();
    let ids: Vec<_> = new_orders.iter().map(|order| order.id).collect();
    let taken = allocation.taken.iter();
    let placed = allocation.holds.iter();
    let movements: Vec<Movement> =
        taken
            .map(|hold| moved(hold, Account::Held, Account::Available, Cause::HoldTaken))
            .chain(placed.map(|(hold, _)| {
                moved(hold, Account::Available, Account::Held, Cause::OrderPlaced)
            }))
            .collect();

    let moments = orders::store::insert(&mut *tx, &new_orders, cx.hold)
        .await?
        .ok_or(sqlx::Error::RowNotFound)?;
    holds::store::change_counters(&mut *tx, &movements).await?;
    holds::store::insert(&mut *tx, &allocation.holds, moments.expires_at).await?;
    holds::store::record_movements(&mut *tx, &movements).await?;
    let records: Vec<_> = winners
        .iter()
        .map(|(place, priced)| record(wishes[*place], priced, moments.placed_at))
        .collect::<Result<_, _>>()
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    idempotency::record(&mut *tx, &records).await?;
    let mails: Vec<_> = ids.iter().map(|id| SendOrderReceived { order_id: id.uuid() }).collect();
    let staged = jobs::stage(&mut *tx, &mails, jobs::Delay::NONE).await?;
    Ok((moments, staged))
}

fn new_order<'a>(wish: &'a PlaceOrder, priced: &'a Priced) -> NewOrder<'a> {
    NewOrder {
        id: wish.order_id,
        number: &wish.number,
        owner_id: wish.owner_id,
        email: wish.email.as_str(),
        shipping_address: &wish.shipping_address,
        lines: &priced.lines,
        totals: priced.totals,
    }
}

fn record<'a>(
    wish: &'a PlaceOrder,
    priced: &Priced,
    placed_at: OffsetDateTime,
) -> serde_json::Result<NewRecord<'a>> {
    Ok(NewRecord {
        claim: wish.claim(),
        fingerprint: wish.fingerprint,
        subject_id: wish.order_id.uuid(),
        answer: serde_json::to_value(receipt(wish, priced, placed_at))?,
    })
}

fn receipt(wish: &PlaceOrder, priced: &Priced, placed_at: OffsetDateTime) -> Receipt {
    let totals = priced.totals;
    Receipt {
        order_id: wish.order_id.uuid(),
        number: wish.number.to_string(),
        currency: wish.currency.code().to_owned(),
        subtotal_minor: totals.subtotal.minor(),
        discount_minor: totals.discount.minor(),
        shipping_minor: totals.shipping.minor(),
        tax_minor: totals.tax.minor(),
        total_minor: totals.total.minor(),
        lines: priced
            .lines
            .iter()
            .map(|line| ReceiptLine {
                variant_id: line.variant_id.uuid(),
                sku: line.sku.clone(),
                title: line.title.clone(),
                quantity: line.quantity,
                unit_price_minor: line.unit_price.minor(),
            })
            .collect(),
        placed_at,
    }
}

fn placement(receipt: Receipt, moments: orders::store::Placed, hold: Duration) -> Placement {
    let expires_in = moments.expires_at - moments.placed_at;
    Placement {
        receipt,
        status: Status::AwaitingPayment,
        expires_at: moments.expires_at,
        expires_in: expires_in.try_into().unwrap_or(hold),
        replayed: false,
    }
}

/// Names the request's lines of every variant that was short.
fn out_of_stock(wish: &PlaceOrder, shortages: &[Shortage]) -> CheckoutError {
    let lines = wish
        .lines
        .iter()
        .enumerate()
        .filter_map(|(place, line)| {
            let shortage = shortages.iter().find(|short| short.variant_id == line.variant_id)?;
            Some((place, *shortage))
        })
        .collect();
    CheckoutError::OutOfStock(lines)
}

/// The answers found so far; a place without one is open.
struct Outcomes(Vec<Option<Outcome>>);

impl Outcomes {
    fn new(wishes: usize) -> Self {
        Self((0..wishes).map(|_| None).collect())
    }

    fn set(&mut self, place: usize, outcome: Outcome) {
        self.0[place] = Some(outcome);
    }

    /// Keeps the claims that pass, and answers the others.
    fn keep(
        &mut self,
        claims: &mut Vec<Claim<'_>>,
        check: impl Fn(&Claim<'_>) -> Result<(), Unfair>,
    ) {
        claims.retain(|claim| match check(claim) {
            Ok(()) => true,
            Err(error) => {
                self.set(claim.place, Err(error.into()));
                false
            }
        });
    }

    fn is_open(&self, place: usize) -> bool {
        self.0[place].is_none()
    }

    fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|&place| self.is_open(place)).collect()
    }

    fn finish(self) -> Vec<Outcome> {
        self.0
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(CheckoutError::OutcomeUnknown)))
            .collect()
    }
}
