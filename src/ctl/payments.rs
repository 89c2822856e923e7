use ::jobs::{Delay, checkout::ReviewPayment, stage};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Outcome, entry, store};
use crate::{
    audit,
    kernel::{Money, OrderId},
    orders::{OrderError, find_any_order},
    payments::{
        Payment, Provider,
        disputes::{self, Dispute},
        refunds::{self, Refund},
        store::{Capture, captures_of, find, not_accepted, of_order},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List money that came in and did not pay its order, the oldest first.
    List {
        /// The only list there is: money that has to go back, or waits for a person.
        #[arg(long, required = true)]
        not_accepted: bool,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
    },
    /// Show every attempt to pay an order, all money that came in for it, and all that went or is to go back.
    Show {
        /// An order's number or id, or a payment's id.
        name: String,
    },
    /// Ask the provider how a payment stands and act on the answer, within seconds.
    Review {
        /// stripe or razorpay.
        provider: Provider,
        /// The provider's name for it: `pi_…` or `order_…`.
        provider_ref: String,
    },
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    match command {
        Command::List { not_accepted: _, limit } => {
            let captures = not_accepted(db, limit).await?;
            for capture in &captures {
                println!("order {}  {}", capture.order_id, line(capture));
            }
            println!("{} captures", captures.len());
            Ok(true)
        }
        Command::Show { name } => show(db, &name).await,
        Command::Review { provider, provider_ref } => {
            let provider = provider.name().to_owned();
            // The payment may not be known here, and goes by the provider's name for it.
            let subject = format!("{provider}:{provider_ref}");
            let review = ReviewPayment { provider, provider_ref, event_id: None };
            let mut tx = db.begin().await?;
            stage(&mut tx, &[review], Delay::NONE).await?;
            let entry = entry("reviewPayment", subject, None, json!({}));
            audit::record(&mut *tx, &entry).await?;
            tx.commit().await?;
            // Nobody is woken from here: the reaper sees to it.
            println!("the provider will be asked");
            Ok(true)
        }
    }
}

async fn show(db: &PgPool, name: &str) -> Outcome {
    let order = match find_order(db, name).await? {
        Some(id) => find_any_order(db, id).await,
        None => Err(OrderError::NotFound),
    };
    let order = match order {
        Ok(order) => order,
        Err(OrderError::NotFound) => {
            println!("there is no order or payment {name}");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    println!(
        "order {} ({}): {}, {}, placed {}, to be paid until {}",
        order.number,
        order.id,
        order.status.name(),
        order.totals.total,
        order.placed_at,
        order.expires_at,
    );
    for payment in of_order(db, order.id).await? {
        println!("  {}", attempt(&payment));
    }
    for capture in captures_of(db, &[order.id]).await? {
        println!("  {}", line(&capture));
    }
    for refund in refunds::store::of_orders(db, &[order.id]).await? {
        println!("  {}", refund_line(&refund));
    }
    for dispute in disputes::store::of_orders(db, &[order.id]).await? {
        println!("  {}", dispute_line(&dispute));
    }
    Ok(true)
}

/// The order that is meant by its number, its id or the id of a payment of it.
async fn find_order(db: &PgPool, name: &str) -> sqlx::Result<Option<OrderId>> {
    let Ok(id) = name.parse::<Uuid>() else {
        return store::order_by_number(db, name).await;
    };
    let payment = find(db, id.into()).await?;
    Ok(Some(payment.map_or_else(|| id.into(), |payment| payment.order_id)))
}

fn attempt(payment: &Payment) -> String {
    format!(
        "payment {}  {} {}  {:10}  {}  {}  key {}  {}  created {}",
        payment.id,
        payment.provider.name(),
        if payment.livemode { "live" } else { "test" },
        payment.state.name(),
        payment.amount,
        payment.provider_ref.as_deref().unwrap_or("-"),
        payment.key_generation,
        payment.last_decline.as_deref().unwrap_or("not declined"),
        payment.created_at,
    )
}

fn line(capture: &Capture) -> String {
    format!(
        "capture {} ({})  {}  {}  {}{}  of payment {}  at {}",
        capture.charge_ref,
        capture.id,
        capture.provider.name(),
        amount(capture.amount_minor, &capture.currency),
        capture.fate.name(),
        capture.fate.reason().map(|reason| format!(" ({reason})")).unwrap_or_default(),
        capture.payment_id,
        capture.captured_at,
    )
}

fn refund_line(refund: &Refund) -> String {
    format!(
        "refund {}  {}  {}  {:9}  {} ({})  {}  of capture {}  asked for at {}",
        refund.id,
        refund.provider.name(),
        amount(refund.amount_minor, &refund.currency),
        refund.state.name(),
        refund.provider_ref.as_deref().unwrap_or("-"),
        refund.cause.name(),
        refund.failure.as_deref().unwrap_or("no failure"),
        refund.capture_id,
        refund.created_at,
    )
}

fn dispute_line(dispute: &Dispute) -> String {
    format!(
        "dispute {}  {}  {}  {} ({})  {}  of capture {}  opened {}",
        dispute.provider_ref,
        dispute.provider.name(),
        amount(dispute.amount_minor, &dispute.currency),
        dispute.state.name(),
        dispute.status,
        dispute.reason.as_deref().unwrap_or("-"),
        dispute.capture_id,
        dispute.opened_at,
    )
}

/// The amount as people read it, or as the provider wrote it where it is no money that we know.
fn amount(minor: i64, currency: &str) -> String {
    let money = currency.parse().and_then(|currency| Money::new(minor, currency));
    money.map_or_else(|_| format!("{minor} minor units of {currency}"), |money| money.to_string())
}
