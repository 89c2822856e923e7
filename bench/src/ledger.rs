//! The clients' own ledger of answers, and how it is held against the database.

use std::collections::HashSet;

use holdfast::doctor;
use uuid::Uuid;

use crate::{
    Outcome,
    database::Database,
    load::{Basket, Tally},
    report::Report,
};

/// All that clients were promised in a scenario.
#[derive(Debug)]
pub(crate) struct Ledger {
    variants: Vec<Uuid>,
    orders: Vec<Uuid>,
    /// How many units of each variant were promised.
    units: Vec<i64>,
    turned_away: u64,
    failures: u64,
}

impl Ledger {
    pub(crate) fn new(variants: &[Uuid]) -> Self {
        let units = vec![0; variants.len()];
        Self { variants: variants.to_vec(), orders: Vec::new(), units, turned_away: 0, failures: 0 }
    }

    /// Notes what one phase was answered.
    pub(crate) fn add(&mut self, tally: &Tally, baskets: &[Basket]) {
        for (order, basket) in &tally.acknowledged {
            self.orders.push(*order);
            for (sku, quantity) in &baskets[*basket].units {
                self.units[*sku] += quantity;
            }
        }
        self.turned_away += tally.turned_away();
        self.failures += tally.failures();
    }

    /// Holds every promise against the database: each order exists, and no unit was promised twice.
    pub(crate) async fn verify(&self, database: &Database, report: &mut Report) -> Outcome<()> {
        let distinct: HashSet<_> = self.orders.iter().collect();
        let existing = database.count_existing(&self.orders).await?;
        let lost = self.orders.len() - existing.min(distinct.len());
        let stock = database.stock(&self.variants).await?;
        let oversold: i64 = self
            .units
            .iter()
            .zip(&stock)
            .map(|(units, stock)| (units - stock.on_hand).max(0))
            .sum();
        report.fact("acknowledged", self.orders.len());
        report.fact("lost", lost);
        report.fact("oversold", oversold);
        report.fact("turned_away", self.turned_away);
        report.fact("failed", self.failures);
        report.line(format!(
            "{} orders acknowledged, {lost} lost, {oversold} units oversold",
            self.orders.len(),
        ));
        if self.turned_away > 0 {
            report.line(format!("{} requests were told that the shop is busy", self.turned_away));
        }
        if lost > 0 {
            report.broken(format!("{lost} acknowledged orders do not exist"));
        }
        if oversold > 0 {
            report.broken(format!("{oversold} units were sold twice"));
        }
        if self.failures > 0 {
            report.broken(format!("{} requests failed or had no answer", self.failures));
        }
        Ok(())
    }

    /// Holds the counters against the answers: what was promised is held, and nothing else.
    pub(crate) async fn verify_held(
        &self,
        database: &Database,
        report: &mut Report,
    ) -> Outcome<()> {
        let unheard = database.count_orders(&self.variants).await? - self.orders.len();
        if unheard > 0 {
            report.line(format!("{unheard} orders were placed whose answer nobody got"));
            return Ok(());
        }
        let stock = database.stock(&self.variants).await?;
        let reserved: i64 = stock.iter().map(|stock| stock.reserved).sum();
        let differing =
            self.units.iter().zip(&stock).filter(|(units, stock)| **units != stock.reserved);
        match differing.count() {
            0 => report.line(format!("{reserved} units are held, as the answers say")),
            count => {
                report.broken(format!("{count} variants hold other amounts than the answers say"));
            }
        }
        Ok(())
    }
}

/// Has the doctor look at the database that a scenario leaves.
pub(crate) async fn examine(database: &Database, report: &mut Report) -> Outcome<()> {
    let findings = doctor::examine(&database.pool).await?;
    report.fact("doctor_findings", findings.len());
    if findings.is_empty() {
        report.line("doctor: clean");
    }
    for finding in findings {
        let doctor::Finding { invariant, subject, detail, .. } = finding;
        report.broken(format!("doctor: {invariant}: {subject}: {detail}"));
    }
    Ok(())
}
