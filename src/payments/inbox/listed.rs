//! Events that a provider lists: what no webhook has brought is taken in as if one had.

use std::collections::HashSet;

use super::{Receipt, Received, receive, store};
use crate::{context::Context, kernel::batch::SLICE_MAX, payments::PaymentError};

/// Takes in those of Stripe's events that are not in the inbox, and returns how many.
///
/// They came from Stripe itself, over its API: no signature is needed. An event that is known stays as
/// it is, however its body was written.
pub async fn receive_listed(cx: &Context, bodies: Vec<Vec<u8>>) -> Result<usize, PaymentError> {
    let listed: Vec<_> = bodies.into_iter().map(Received::from_stripe).collect();
    let mut new = 0;
    for slice in listed.chunks(SLICE_MAX) {
        let known: HashSet<_> = store::known(&cx.db, slice).await?.into_iter().collect();
        let unknown: Vec<_> =
            slice.iter().filter(|event| !known.contains(&event.event_id)).cloned().collect();
        if unknown.is_empty() {
            continue;
        }
        for receipt in receive(cx, &unknown).await {
            new += usize::from(receipt? == Receipt::New);
        }
    }
    Ok(new)
}
