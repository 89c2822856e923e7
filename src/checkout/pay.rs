//! Opening a payment: the attempt is committed here before its provider hears of it, and the
//! provider is asked outside every transaction.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use super::{
    CheckoutError,
    events::settle_news,
    withdraw::{Withdrawal, give_up, unanswered, withdraw},
};
use crate::{
    clients::CallError,
    context::Context,
    idempotency::{self, ClaimKey, Fingerprint, Key, KeyError, NewRecord},
    kernel::{OrderId, OwnerId, PaymentId, failpoint, rerun},
    orders::{self, Order, Status},
    payments::{
        self, Payment, PaymentError, Provider,
        gateway::{self, Handover},
        store::NewPayment,
    },
};

/// Who has less than this of the hold left could not pay in time.
const HOLD_LEFT_MIN: Duration = Duration::from_secs(30);

/// How long the providers of earlier attempts are waited for, and how long the one of this attempt:
/// together less than the edge waits.
const WITHDRAW_MAX: Duration = Duration::from_secs(4);
const OPEN_MAX: Duration = Duration::from_secs(9);

/// How many attempts of other tabs are withdrawn for this one, before they are left to each other.
const ROUNDS_MAX: usize = 3;

/// A shopper's wish to pay an order.
#[derive(Debug, Clone)]
pub struct OpenPayment {
    pub order_id: OrderId,
    pub owner_id: OwnerId,
    pub provider: Provider,
    pub key: Key,
}

impl OpenPayment {
    const OPERATION: &'static str = "openPayment";

    fn claim(&self) -> ClaimKey<'_> {
        ClaimKey { owner_id: self.owner_id, operation: Self::OPERATION, key: &self.key }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(format!("{} {}", self.order_id, self.provider.name()).as_bytes())
    }
}

/// An attempt to pay, as the order's owner may see it.
#[derive(Debug)]
pub struct Attempt {
    pub payment: Payment,
    pub order_status: Status,
    pub expires_at: OffsetDateTime,
    /// Zero when the order's deadline has passed.
    pub expires_in: Duration,
    /// Only where the provider was asked and the shopper can pay.
    pub handover: Option<Handover>,
    /// The attempt was there already: the request was a repeat.
    pub replayed: bool,
}

/// Opens an attempt to pay the order, and returns what the shopper's browser needs to go on.
///
/// The order has one attempt under way: an earlier one is withdrawn first, or given up where its
/// provider does not answer. A repeat with the same key goes on with the same attempt, under the same
/// name at the provider, so that whatever failed before, one thing is there to be paid.
pub async fn open_payment(cx: &Context, wish: &OpenPayment) -> Result<Attempt, CheckoutError> {
    let livemode = gateway::livemode(cx, wish.provider)?;
    let (order, _) = orders::find_order(&cx.db, wish.order_id, wish.owner_id).await?;
    let new = NewPayment {
        id: PaymentId::generate(),
        order_id: order.id,
        provider: wish.provider,
        livemode,
        amount: order.totals.total,
    };
    let payment = begin(cx, wish, &order, &new).await?;
    let replayed = payment.id != new.id;
    let attempt = view(cx, payment, None).await?;
    if !is_wanted(&attempt)? {
        return Ok(Attempt { replayed, ..attempt });
    }
    failpoint::pass("pay.before-call");
    let opened = timeout(OPEN_MAX, gateway::ensure(cx, &attempt.payment, &order.number)).await;
    let opened = match opened.unwrap_or_else(|_| Err(unanswered("it took too long"))) {
        Ok(opened) => opened,
        Err(error) => return Err(refused(cx, &attempt.payment, error).await?),
    };
    failpoint::pass("pay.after-call");
    settle_news(cx, opened.news).await?;
    failpoint::pass("pay.after-commit");

    let payment = payments::store::find(&cx.db, attempt.payment.id).await?;
    let payment = payment.ok_or(CheckoutError::NoSuchPayment)?;
    Ok(Attempt { replayed, ..view(cx, payment, Some(opened.handover)).await? })
}

/// Commits the attempt, or finds the one that the key stands for.
async fn begin(
    cx: &Context,
    wish: &OpenPayment,
    order: &Order,
    new: &NewPayment,
) -> Result<Payment, CheckoutError> {
    let mut silent = None;
    let until = Instant::now() + WITHDRAW_MAX;
    for _ in 0..ROUNDS_MAX {
        let begun = rerun(|| write(cx, wish, new, silent), CheckoutError::database).await?;
        let earlier = match begun {
            Begun::Attempt(payment) => return Ok(payment),
            Begun::InTheWay(earlier) => earlier,
        };
        match withdraw(cx, &earlier, &order.number, until).await? {
            Withdrawal::Over => {}
            Withdrawal::UnderWay => return Err(CheckoutError::PaymentInProgress),
            Withdrawal::Unknown(error) => {
                tracing::warn!(payment.id = %earlier.id, %error, "an attempt is given up unheard");
                silent = Some(earlier.id);
            }
        }
    }
    Err(CheckoutError::PaymentInProgress)
}

/// What a transaction came to.
enum Begun {
    /// The attempt is committed, now or by an earlier request.
    Attempt(Payment),
    /// Nothing was written: this earlier attempt has to be withdrawn first.
    InTheWay(Payment),
}

async fn write(
    cx: &Context,
    wish: &OpenPayment,
    new: &NewPayment,
    silent: Option<PaymentId>,
) -> Result<Begun, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match attempt(&mut tx, wish, new, silent).await {
        Ok((begun, staged)) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            cx.relay.wake(staged);
            Ok(begun)
        }
        Err(error) => {
            // Not left to the drop, which would keep the key claimed while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// Writes the attempt within the transaction; the earlier attempt `silent` is given up for it.
async fn attempt(
    tx: &mut PgConnection,
    wish: &OpenPayment,
    new: &NewPayment,
    silent: Option<PaymentId>,
) -> Result<(Begun, jobs::Staged), CheckoutError> {
    let nothing = jobs::Staged::default;
    if let Some(known) = find_by_key(&mut *tx, wish).await? {
        return Ok((Begun::Attempt(known), nothing()));
    }
    orders::store::lock_owned(&mut *tx, wish.order_id, wish.owner_id)
        .await?
        .ok_or(CheckoutError::NoSuchOrder)?;
    let standing = orders::store::standings(&mut *tx, &[wish.order_id]).await?;
    let standing = standing.first().ok_or(CheckoutError::NoSuchOrder)?;
    check_payable(standing.status, left(standing.expires_in_ms))?;
    if new.amount.minor() == 0 {
        return Err(CheckoutError::NothingToPay);
    }
    let earlier = payments::store::open_of(&mut *tx, &[wish.order_id]).await?;
    if let Some(other) = earlier.iter().find(|earlier| Some(earlier.id) != silent) {
        return Ok((Begun::InTheWay(other.clone()), nothing()));
    }
    let staged = give_up(&mut *tx, &earlier).await?;
    payments::store::insert(&mut *tx, new).await?;
    let record = NewRecord {
        claim: wish.claim(),
        fingerprint: wish.fingerprint(),
        subject_id: new.id.uuid(),
        answer: json!({}),
    };
    idempotency::record(&mut *tx, &[record]).await?;
    let written = payments::store::find(tx, new.id).await?;
    Ok((Begun::Attempt(written.ok_or(CheckoutError::NoSuchPayment)?), staged))
}

/// Claims the key and reads which attempt it stands for.
async fn find_by_key(
    tx: &mut PgConnection,
    wish: &OpenPayment,
) -> Result<Option<Payment>, CheckoutError> {
    if idempotency::claim(&mut *tx, &[wish.claim()]).await? != [true] {
        return Err(KeyError::InFlight.into());
    }
    // A statement of its own: only one that starts after the claim sees what the last claimant committed.
    let recorded = idempotency::find(&mut *tx, &[wish.claim()]).await?;
    let Some(recorded) = recorded.into_iter().next().flatten() else { return Ok(None) };
    recorded.check(wish.fingerprint())?;
    let payment = payments::store::find(tx, recorded.subject_id.into()).await?;
    Ok(Some(payment.ok_or(CheckoutError::UnreadableAnswer)?))
}

/// Refuses an attempt that could not end in a paid order.
fn check_payable(status: Status, left: Duration) -> Result<(), CheckoutError> {
    match status {
        Status::AwaitingPayment if left.is_zero() => Err(CheckoutError::HoldExpired),
        Status::AwaitingPayment if left < HOLD_LEFT_MIN => Err(CheckoutError::HoldEnding),
        Status::AwaitingPayment => Ok(()),
        Status::Expired => Err(CheckoutError::HoldExpired),
        Status::Paid | Status::Shipped => Err(CheckoutError::AlreadyPaid),
        Status::Cancelled => Err(CheckoutError::NotPayable(status)),
    }
}

/// Whether the provider is to be asked: not for an attempt that is over. One that the provider may not
/// have yet is begun there only while it can be paid.
fn is_wanted(attempt: &Attempt) -> Result<bool, CheckoutError> {
    if attempt.payment.state == payments::State::Creating {
        check_payable(attempt.order_status, attempt.expires_in)?;
    }
    Ok(attempt.payment.state.is_open() && can_be_paid(attempt))
}

fn can_be_paid(attempt: &Attempt) -> bool {
    attempt.order_status == Status::AwaitingPayment && !attempt.expires_in.is_zero()
}

/// Notes a definite refusal, which frees the order for another attempt.
async fn refused(
    cx: &Context,
    payment: &Payment,
    error: PaymentError,
) -> Result<CheckoutError, CheckoutError> {
    if let PaymentError::Provider(CallError::Rejected { .. } | CallError::Declined { .. }) = error {
        // Our request or our account is at fault, and every shopper will meet it.
        tracing::error!(payment.id = %payment.id, provider = payment.provider.name(), %error, "a provider refused a payment");
        payments::store::reject(&cx.db, payment.id).await?;
    }
    Ok(error.into())
}

/// The attempt as it stands now; `handover` is kept only if the shopper can pay, and pays what we know of.
pub(super) async fn view(
    cx: &Context,
    payment: Payment,
    handover: Option<Handover>,
) -> Result<Attempt, CheckoutError> {
    let standing = orders::store::standings(&cx.db, &[payment.order_id]).await?;
    let standing = standing.first().ok_or(CheckoutError::NoSuchOrder)?;
    let attempt = Attempt {
        order_status: standing.status,
        expires_at: standing.expires_at,
        expires_in: left(standing.expires_in_ms),
        handover: None,
        replayed: false,
        payment,
    };
    let is_known = |handover: &Handover| {
        attempt.payment.provider_ref.as_deref() == Some(handover.provider_ref())
    };
    let can_be_paid = attempt.payment.state.is_open() && can_be_paid(&attempt);
    let handover = handover.filter(|handover| can_be_paid && is_known(handover));
    Ok(Attempt { handover, ..attempt })
}

fn left(expires_in_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(expires_in_ms).unwrap_or(0))
}
