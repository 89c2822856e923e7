//! What is measured: one module a scenario, each on a database and with processes of its own.

pub(crate) mod checkout;
pub(crate) mod flash;
pub(crate) mod latency;
pub(crate) mod overload;
pub(crate) mod reap;
pub(crate) mod soldout;
pub(crate) mod webhooks;

use uuid::Uuid;

use crate::{
    Outcome, Settings,
    load::{self, Basket, Callers, Pace, Plan, Tally},
    shop::{Shop, basket},
};

/// More units than any run sells.
pub(crate) const PLENTY: i64 = 100_000_000;

/// How long orders are held where the deadline is not what is measured: longer than a scenario.
pub(crate) const LONG_HOLD: &str = "15m";

/// One unit of the only SKU that the scenario sells.
pub(crate) fn one_unit(variant: Uuid) -> Vec<Basket> {
    vec![basket(&[variant], &[(0, 1)])]
}

/// Runs the settings' clients at the shop's API for one window.
pub(crate) async fn visit(
    settings: &Settings,
    shop: &Shop,
    baskets: &[Basket],
    pace: Pace,
    counted: u16,
) -> Outcome<Tally> {
    shop.database.settle().await;
    load::run(Plan {
        address: shop.address,
        callers: Callers::Shoppers {
            clients: settings.clients,
            guests: shop.guests.clone(),
            baskets: baskets.to_vec(),
        },
        pace,
        counted,
        window: settings.window,
    })
    .await
}
