//! What Stripe told, or tried to tell, by webhook: it lists that for 30 days.

use std::fmt;

use miniserde::json::{self, Value};
use stripe::RequestStrategy;
use stripe_core::event::ListEvent;
use stripe_types::{RangeBoundsTs, RangeQueryTs};
use time::OffsetDateTime;

use super::{Stripe, lean};
use crate::clients::call::CallError;

/// An event shows a whole object, and an answer has its limit.
const PAGE: i64 = 50;

/// A thousand events are a few megabytes.
const PAGES_MAX: usize = 20;

/// An event as its webhook shows it, but for the order of its fields and the white space.
#[derive(Clone)]
pub struct Event {
    pub id: String,
    pub body: Vec<u8>,
}

impl Stripe {
    /// What happened from `from` to `to`, both whole seconds, the oldest first; `None` where that is
    /// more than a thousand events. `kinds` are at most twenty.
    pub async fn events_between(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
        kinds: &[&str],
    ) -> Result<Option<Vec<Event>>, CallError> {
        let created = RangeBoundsTs {
            gte: Some(from.unix_timestamp()),
            lte: Some(to.unix_timestamp()),
            ..RangeBoundsTs::default()
        };
        let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let page = |after| {
            let request = ListEvent::new()
                .created(RangeQueryTs::Bounds(created))
                .types(kinds.clone())
                .limit(PAGE);
            let request = match after {
                Some(after) => request.starting_after(after),
                None => request,
            };
            lean(&request, RequestStrategy::Once)
        };
        let events = self.list("events_between", PAGES_MAX, page, name).await?;
        events.map(|events| events.iter().rev().map(event).collect()).transpose()
    }
}

fn name(event: &Value) -> Option<&str> {
    let Value::Object(fields) = event else { return None };
    let Some(Value::String(id)) = fields.get("id") else { return None };
    Some(id)
}

fn event(event: &Value) -> Result<Event, CallError> {
    let id = name(event).ok_or_else(|| CallError::unknown("an event without a name"))?;
    Ok(Event { id: id.to_owned(), body: json::to_string(event).into_bytes() })
}

/// The body names people, and may hold what a browser pays with.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("id", &self.id).finish_non_exhaustive()
    }
}
