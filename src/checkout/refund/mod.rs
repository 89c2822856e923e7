//! Giving money back. A refund is committed before its provider hears of it; what the provider says of
//! one, here or by webhook, goes through [`settle_refund`].

mod make;
mod news;
mod review;
mod staff;

use jobs::{Delay, Staged, checkout::RefundPayment};
pub(super) use make::look;
pub use make::refund_payment;
pub use news::{Heard, settle_refund};
pub use review::{review_refund, review_refunds_of};
use serde_json::{Value, json};
use sqlx::PgConnection;
pub(super) use staff::still_sold;
pub use staff::{OrderRefund, RefundOrder, order_refunds, refund_order};

use super::CheckoutError;
use crate::{
    orders::{self, Note, store::Entry},
    payments::{
        disputes,
        refunds::{Refund, store, store::NewRefund},
        store::Capture,
    },
};

/// Writes refunds that are to be made, and stages the jobs that make them. The orders are locked, and
/// the captures have that much left.
pub(super) async fn request(tx: &mut PgConnection, new: &[NewRefund]) -> sqlx::Result<Staged> {
    if new.is_empty() {
        return Ok(Staged::default());
    }
    store::insert(&mut *tx, new).await?;
    let entries: Vec<_> = new
        .iter()
        .map(|refund| {
            let detail = detail_of_new(refund);
            Entry { order_id: refund.order_id, note: Note::RefundRequested, detail }
        })
        .collect();
    orders::store::record_events(&mut *tx, &entries).await?;
    let work: Vec<_> =
        new.iter().map(|refund| RefundPayment { refund_id: refund.id.uuid() }).collect();
    jobs::stage(tx, &work, Delay::NONE).await
}

/// What of the capture's money no refund speaks for; `refunds` are all of its order.
pub(super) fn refundable(capture: &Capture, refunds: &[Refund]) -> i64 {
    let of_capture: Vec<_> =
        refunds.iter().filter(|refund| refund.capture_id == capture.id).cloned().collect();
    crate::payments::refunds::refundable(capture.amount_minor, &of_capture)
}

/// Whether one of the disputes is under way that is about the capture.
fn is_disputed(disputes: &[disputes::Dispute], capture_id: uuid::Uuid) -> bool {
    disputes
        .iter()
        .any(|dispute| dispute.capture_id == capture_id && dispute.state == disputes::State::Open)
}

/// What a timeline says of a refund that is about to be written.
pub(super) fn detail_of_new(refund: &NewRefund) -> Value {
    json!({
        "refund_id": refund.id.uuid(),
        "provider": refund.provider.name(),
        "amount": refund.amount_minor,
        "currency": refund.currency,
        "cause": refund.cause.name(),
    })
}

/// The same of one that is written.
fn detail(refund: &Refund) -> Value {
    json!({
        "refund_id": refund.id.uuid(),
        "provider": refund.provider.name(),
        "amount": refund.amount_minor,
        "currency": refund.currency,
        "cause": refund.cause.name(),
    })
}
