//! When a variant can be bought, and how many of it one customer may have.

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{CatalogError, store};
use crate::{
    audit,
    kernel::{Detail, VariantId, rerun},
};

/// The rules of a variant's sale. Without any it can be bought at all times, by anybody, in any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sale {
    /// It can be bought from this moment on.
    pub opens_at: Option<OffsetDateTime>,
    /// It can be bought before this moment.
    pub closes_at: Option<OffsetDateTime>,
    pub limit: Option<PurchaseLimit>,
}

/// How many units of a variant one customer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurchaseLimit {
    /// 1 to [`UNITS_MAX`](Self::UNITS_MAX).
    pub units: i64,
    /// A purchase counts for so many seconds after it was made; for ever where nothing is said.
    pub window_seconds: Option<i64>,
}

impl PurchaseLimit {
    /// Beyond it a limit limits nobody.
    pub const UNITS_MAX: i64 = 10_000;
    /// The clocks of shoppers tell no less.
    pub const WINDOW_SECONDS_MIN: i64 = 60;
    /// A leap year; what is to count longer counts for ever.
    pub const WINDOW_SECONDS_MAX: i64 = 366 * 24 * 60 * 60;
}

/// Where a moment is in a variant's sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Before { opens_at: OffsetDateTime },
    Open,
    After { closes_at: OffsetDateTime },
}

impl Sale {
    /// Puts the rules together as a caller gave them; all that is wrong is named.
    ///
    /// Moments are kept in whole microseconds, as the database has them.
    pub fn new(
        opens_at: Option<OffsetDateTime>,
        closes_at: Option<OffsetDateTime>,
        limit: Option<PurchaseLimit>,
    ) -> Result<Self, Detail> {
        let sale = Self { opens_at: opens_at.map(whole), closes_at: closes_at.map(whole), limit };
        if let (Some(opens_at), Some(closes_at)) = (sale.opens_at, sale.closes_at)
            && opens_at >= closes_at
        {
            return Err(Detail {
                pointer: "/closes_at".to_owned(),
                code: "closes-before-it-opens",
                message: "a sale closes after it has opened".to_owned(),
                available: None,
            });
        }
        Ok(sale)
    }

    pub fn phase(&self, now: OffsetDateTime) -> Phase {
        match (self.opens_at, self.closes_at) {
            (_, Some(closes_at)) if closes_at <= now => Phase::After { closes_at },
            (Some(opens_at), _) if now < opens_at => Phase::Before { opens_at },
            (Some(_) | None, Some(_) | None) => Phase::Open,
        }
    }

    /// In words for the audit log.
    pub(super) fn to_json(self) -> Value {
        let moment = |moment: Option<OffsetDateTime>| moment.and_then(|m| m.format(&Rfc3339).ok());
        json!({
            "opens_at": moment(self.opens_at),
            "closes_at": moment(self.closes_at),
            "purchase_limit": self.limit.map(|limit| {
                json!({ "units": limit.units, "window_seconds": limit.window_seconds })
            }),
        })
    }
}

fn whole(moment: OffsetDateTime) -> OffsetDateTime {
    moment.replace_microsecond(moment.microsecond()).unwrap_or(moment)
}

/// A member of staff's wish for a variant's sale.
#[derive(Debug, Clone)]
pub struct SetSale {
    pub variant_id: VariantId,
    pub sale: Sale,
    pub actor: audit::Actor,
}

impl SetSale {
    const OPERATION: &'static str = "setSale";
}

/// The rules of a sale, before and after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    pub before: Sale,
    pub after: Sale,
}

/// Gives the variant's sale these rules in place of those it had, and notes who did it.
///
/// They hold for every order placed from then on. Orders that were placed stay as they are, and what
/// they hold or bought counts against a new limit, too.
pub async fn set_sale(db: &PgPool, wish: &SetSale) -> Result<Sale, CatalogError> {
    rerun(|| set(db, wish), cause).await
}

fn cause(error: &CatalogError) -> Option<&sqlx::Error> {
    if let CatalogError::Database(error) = error { Some(error) } else { None }
}

async fn set(db: &PgPool, wish: &SetSale) -> Result<Sale, CatalogError> {
    let mut tx = db.begin().await?;
    match change(&mut tx, wish).await {
        Ok(sale) => {
            tx.commit().await?;
            Ok(sale)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn change(tx: &mut PgConnection, wish: &SetSale) -> Result<Sale, CatalogError> {
    let changed = store::set_sale(&mut *tx, wish.variant_id, &wish.sale).await?;
    let Changed { before, after } = changed.ok_or(CatalogError::NoSuchVariant(wish.variant_id))?;
    let entry = audit::Entry {
        actor_id: wish.actor.id,
        action: SetSale::OPERATION.to_owned(),
        subject: format!("variant:{}", wish.variant_id),
        before: Some(before.to_json()),
        after: Some(after.to_json()),
        request_id: wish.actor.request_id.clone(),
    };
    audit::record(tx, &entry).await?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn a_sale_is_open_from_its_first_moment_until_before_its_last() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let tick = Duration::microseconds(1);
        let (opens_at, closes_at) = (now + Duration::HOUR, now + 2 * Duration::HOUR);
        let before = Phase::Before { opens_at };
        let after = Phase::After { closes_at };
        let sale = |opens_at, closes_at| Sale { opens_at, closes_at, limit: None };
        for (sale, moment, phase) in [
            (sale(None, None), now, Phase::Open),
            (sale(Some(opens_at), None), opens_at - tick, before),
            (sale(Some(opens_at), None), opens_at, Phase::Open),
            (sale(None, Some(closes_at)), closes_at - tick, Phase::Open),
            (sale(None, Some(closes_at)), closes_at, after),
            (sale(Some(opens_at), Some(closes_at)), now, before),
            (sale(Some(opens_at), Some(closes_at)), opens_at, Phase::Open),
            (sale(Some(opens_at), Some(closes_at)), closes_at + tick, after),
        ] {
            assert_eq!(sale.phase(moment), phase, "{sale:?} at {moment}");
        }
    }

    #[test]
    fn a_sale_that_closes_before_it_opens_is_none() {
        let now = OffsetDateTime::UNIX_EPOCH;

        for closes_at in [now, now - Duration::SECOND] {
            let refused = Sale::new(Some(now), Some(closes_at), None).unwrap_err();
            assert_eq!((&*refused.pointer, refused.code), ("/closes_at", "closes-before-it-opens"));
        }
        assert!(Sale::new(Some(now), Some(now + Duration::SECOND), None).is_ok());
    }
}
