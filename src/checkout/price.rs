//! What an order costs, from the offers of the catalogue alone.

use std::collections::HashMap;

use super::{CheckoutError, PlaceOrder, QUANTITY_MAX, error::LineProblem};
use crate::{
    catalog::Offer,
    kernel::{Money, VariantId},
    orders::{OrderLine, Totals},
};

/// The offers of one slice: what each variant is called, and what it costs in each asked currency.
#[derive(Debug, Default)]
pub(super) struct Offers(HashMap<VariantId, Vec<Offer>>);

impl Offers {
    fn find(&self, variant_id: VariantId, currency: &str) -> Result<(&Offer, i64), LineProblem> {
        let offers = self.0.get(&variant_id).ok_or(LineProblem::UnknownVariant(variant_id))?;
        offers
            .iter()
            .filter(|offer| offer.currency.as_deref() == Some(currency))
            .find_map(|offer| Some((offer, offer.amount_minor?)))
            .ok_or(LineProblem::NotSoldInCurrency)
    }
}

impl FromIterator<Offer> for Offers {
    fn from_iter<I: IntoIterator<Item = Offer>>(offers: I) -> Self {
        let mut by_variant = HashMap::<VariantId, Vec<Offer>>::new();
        for offer in offers {
            by_variant.entry(offer.variant_id).or_default().push(offer);
        }
        Self(by_variant)
    }
}

/// A wish with its prices, ready to be written if the stock suffices.
#[derive(Debug)]
pub(super) struct Priced {
    pub(super) lines: Vec<OrderLine>,
    pub(super) totals: Totals,
}

/// Prices the wish; every line that cannot be ordered is named.
pub(super) fn price(request: &PlaceOrder, offers: &Offers) -> Result<Priced, CheckoutError> {
    let demand = request.demand();
    let mut lines = Vec::with_capacity(request.lines.len());
    let mut problems = Vec::new();
    let mut subtotal = Money::zero(request.currency);
    for (place, line) in request.lines.iter().enumerate() {
        if demand.get(&line.variant_id).is_some_and(|sum| *sum > QUANTITY_MAX) {
            problems.push((place, LineProblem::TooMany));
            continue;
        }
        match offers.find(line.variant_id, request.currency.code()) {
            Err(problem) => problems.push((place, problem)),
            Ok((offer, amount_minor)) => {
                let unit_price = Money::new(amount_minor, request.currency)?;
                subtotal = subtotal.add(unit_price.times(line.quantity)?)?;
                lines.push(OrderLine {
                    variant_id: line.variant_id,
                    sku: offer.sku.clone(),
                    title: offer.title.clone(),
                    quantity: line.quantity,
                    unit_price,
                });
            }
        }
    }
    if !problems.is_empty() {
        return Err(CheckoutError::BadLines(problems));
    }
    let zero = Money::zero(request.currency);
    let totals = Totals { subtotal, discount: zero, shipping: zero, tax: zero, total: subtotal };
    if totals.total != request.expected_total {
        return Err(CheckoutError::TotalChanged(totals.total));
    }
    Ok(Priced { lines, totals })
}
