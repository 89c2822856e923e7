//! What an order costs, from the offers of the catalogue alone.

use std::collections::HashMap;

use super::{CheckoutError, Opening, PlaceOrder, QUANTITY_MAX, Unfair, error::LineProblem};
use crate::{
    catalog::{Offer, Phase, PurchaseLimit},
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
    /// The variants of which one customer may not have any number.
    pub(super) limits: Vec<(VariantId, PurchaseLimit)>,
}

/// Prices the wish; every line that cannot be ordered, or not now, is named.
pub(super) fn price(request: &PlaceOrder, offers: &Offers) -> Result<Priced, CheckoutError> {
    let demand = request.demand();
    let mut lines = Vec::with_capacity(request.lines.len());
    let (mut problems, mut closed, mut unopened) = (Vec::new(), Vec::new(), Vec::new());
    let mut limits = Vec::new();
    let mut subtotal = Money::zero(request.currency);
    for (place, line) in request.lines.iter().enumerate() {
        if demand.get(&line.variant_id).is_some_and(|sum| *sum > QUANTITY_MAX) {
            problems.push((place, LineProblem::TooMany));
            continue;
        }
        match offers.find(line.variant_id, request.currency.code()) {
            Err(problem) => problems.push((place, problem)),
            Ok((offer, amount_minor)) => {
                match offer.sale.phase(offer.asked_at) {
                    Phase::Before { opens_at } => {
                        unopened.push((place, Opening { opens_at, asked_at: offer.asked_at }));
                    }
                    Phase::Open => {}
                    Phase::After { closes_at } => closed.push((place, closes_at)),
                }
                limits.extend(offer.sale.limit.map(|limit| (line.variant_id, limit)));
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
    if !closed.is_empty() {
        return Err(Unfair::Closed(closed).into());
    }
    if !unopened.is_empty() {
        return Err(Unfair::NotOpen(unopened).into());
    }
    let zero = Money::zero(request.currency);
    let totals = Totals { subtotal, discount: zero, shipping: zero, tax: zero, total: subtotal };
    if totals.total != request.expected_total {
        return Err(CheckoutError::TotalChanged(totals.total));
    }
    Ok(Priced { lines, totals, limits })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        catalog::Sale,
        checkout::RequestedLine,
        idempotency::{Fingerprint, Key},
        kernel::{EmailAddress, OrderId, OwnerId},
        orders::OrderNumber,
    };

    /// The wish for so many units of variants at these prices, for the total that the shopper was shown.
    fn wish(lines: &[(i64, i64)], expected_minor: i64) -> (PlaceOrder, Offers) {
        let currency = "USD".parse().unwrap();
        let mut offers = Vec::new();
        let mut requested = Vec::new();
        for &(amount_minor, quantity) in lines {
            let variant_id = VariantId::generate();
            requested.push(RequestedLine { variant_id, quantity });
            offers.push(Offer {
                variant_id,
                sku: "MUG".to_owned(),
                title: "Mug".to_owned(),
                currency: Some("USD".to_owned()),
                amount_minor: Some(amount_minor),
                sale: Sale::default(),
                asked_at: OffsetDateTime::UNIX_EPOCH,
            });
        }
        let wish = PlaceOrder {
            order_id: OrderId::generate(),
            number: OrderNumber::generate(),
            owner_id: OwnerId::from(uuid::Uuid::nil()),
            key: Key::parse(Some("one-key-per-intention")).unwrap(),
            fingerprint: Fingerprint::of(b"wish"),
            email: EmailAddress::parse("ada@example.com").unwrap(),
            shipping_address: Value::Null,
            currency,
            expected_total: Money::new(expected_minor, currency).unwrap(),
            lines: requested,
        };
        (wish, offers.into_iter().collect())
    }

    proptest! {
        #[test]
        fn quantity_times_price_is_exact_or_refused_and_never_overflows(
            lines in prop::collection::vec((0..=Money::MINOR_MAX, 1..=QUANTITY_MAX), 1..=50),
            small in prop::bool::ANY,
        ) {
            let scale = if small { 1_000_000_000 } else { 1 };
            let lines: Vec<_> = lines.into_iter().map(|(price, units)| (price / scale, units)).collect();
            let exact: i128 = lines.iter().map(|&(price, units)| i128::from(price) * i128::from(units)).sum();
            let shown = i64::try_from(exact).unwrap_or(i64::MAX).min(Money::MINOR_MAX);
            let (wish, offers) = wish(&lines, shown);

            match price(&wish, &offers) {
                Ok(priced) => prop_assert_eq!(i128::from(priced.totals.total.minor()), exact),
                Err(error) => {
                    prop_assert!(exact > i128::from(Money::MINOR_MAX), "{}", error);
                    prop_assert!(matches!(error, CheckoutError::Amount(_)), "{}", error);
                }
            }
        }

        #[test]
        fn tampering_with_the_total_is_refused(price in 1..1_000_000_i64, units in 1..=QUANTITY_MAX, shown in 0..1_000_000_i64) {
            prop_assume!(shown != price * units);
            let (wish, offers) = wish(&[(price, units)], shown);

            let refused = super::price(&wish, &offers);

            let is_told = matches!(&refused, Err(CheckoutError::TotalChanged(total)) if total.minor() == price * units);
            prop_assert!(is_told, "{:?}", refused);
        }
    }
}
