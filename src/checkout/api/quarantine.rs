//! Money that is not what was asked for: staff decide what becomes of it.

use poem::http::Uri;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi, Tags,
    param::{Header, Path, Query},
    payload::Json,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{invalid, problem};
use crate::{
    checkout::{Resolution, ResolveQuarantined, Resolved, list_quarantined, resolve_quarantined},
    context::Context,
    idempotency::Key,
    identity::Staff,
    payments::store::Capture,
    web::{
        MoneyBody, Problem,
        page::{self, Limit},
        request_id,
    },
};

/// Deciding about quarantined money.
pub struct QuarantineApi {
    cx: Context,
}

impl QuarantineApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

/// Names the list in cursors, with the version of its position.
const LIST: &str = "quarantine.1";

#[derive(Debug, Tags)]
enum Tag {
    /// Money that is not what was asked for.
    Quarantine,
}

#[OpenApi(prefix_path = "/v1/admin/quarantine", tag = "Tag::Quarantine")]
impl QuarantineApi {
    /// List quarantined money
    ///
    /// For staff. Money of another amount, currency or object than was asked for, which waits for a
    /// decision; the newest first.
    #[oai(path = "/", method = "get", operation_id = "listQuarantined")]
    async fn list_quarantined(
        &self,
        _staff: Staff,
        uri: &Uri,
        /// 1 to 100; 20 if left out.
        limit: Query<Option<u32>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<ListQuarantinedResponse, Problem> {
        let limit = Limit::new(limit.0)?;
        let before = cursor.0.map(|cursor| page::position::<Uuid>(LIST, &cursor)).transpose()?;
        let mut captures = list_quarantined(&self.cx, before, limit.rows()).await?;
        let has_more = captures.len() > limit.get();
        captures.truncate(limit.get());
        let last = captures.last().filter(|_| has_more);
        let next_cursor = last.map(|capture| page::cursor(LIST, &capture.id));
        let link = next_cursor.as_ref().map(|cursor| page::next_link(uri, cursor));
        let items = captures.into_iter().map(CaptureBody::from).collect();
        Ok(ListQuarantinedResponse::Page(Json(CapturePageBody { items, next_cursor }), link))
    }

    /// Decide about quarantined money
    ///
    /// For staff, once for each. `accept`: it pays its order, even if it is more or less than was asked
    /// for, if every unit can be had. `refund`: it goes back in full. `attach`: it pays the order that is
    /// named, which must cost just as much and wait for its payment, or be late. Repeat the request with
    /// the same `Idempotency-Key` until it answers.
    #[oai(path = "/:capture_id/resolve", method = "post", operation_id = "resolveQuarantined")]
    async fn resolve_quarantined(
        &self,
        staff: Staff,
        capture_id: Path<Uuid>,
        /// 20 to 100 visible ASCII characters that name this one intention: a UUID will do.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Json<ResolveBody>,
    ) -> Result<ResolveResponse, Problem> {
        let key = Key::parse(idempotency_key.0.as_deref())?;
        let wish = ResolveQuarantined {
            capture_id: capture_id.0,
            staff_id: staff.user_id(),
            key,
            resolution: body.0.resolution()?,
            note: body.0.note,
            request_id: request_id::current(),
        };
        let Resolved { capture, replayed } = resolve_quarantined(&self.cx, &wish).await?;
        Ok(ResolveResponse::Resolved(Json(capture.into()), replayed.then_some(true)))
    }
}

#[derive(ApiResponse)]
enum ListQuarantinedResponse {
    /// A page of money.
    #[oai(status = 200)]
    Page(
        Json<CapturePageBody>,
        /// `rel="next"`, unless this is the last page.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum ResolveResponse {
    /// It is decided.
    #[oai(status = 200)]
    Resolved(
        Json<CaptureBody>,
        /// `true` when an earlier request with this key decided.
        #[oai(header = "Idempotency-Replayed")]
        Option<bool>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "ResolveQuarantined", deny_unknown_fields)]
struct ResolveBody {
    action: ActionBody,
    /// The order that is to be paid; with `attach` alone.
    order_id: Option<Uuid>,
    /// Why, for colleagues; shoppers do not see it.
    #[oai(validator(min_length = 1, max_length = 500))]
    note: String,
}

/// What becomes of quarantined money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "QuarantineAction", rename_all = "lowercase")]
enum ActionBody {
    Accept,
    Refund,
    Attach,
}

impl ResolveBody {
    fn resolution(&self) -> Result<Resolution, Problem> {
        match (self.action, self.order_id) {
            (ActionBody::Accept, None) => Ok(Resolution::Accept),
            (ActionBody::Refund, None) => Ok(Resolution::Refund),
            (ActionBody::Attach, Some(id)) => Ok(Resolution::Attach(id.into())),
            (ActionBody::Attach, None) | (ActionBody::Accept | ActionBody::Refund, Some(_)) => {
                let message = "an order is named with `attach`, and only then".to_owned();
                Err(invalid(vec![problem("/order_id", "order-id-misplaced", message)]))
            }
        }
    }
}

#[derive(Debug, Object)]
#[oai(rename = "CapturePage")]
struct CapturePageBody {
    items: Vec<CaptureBody>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

/// Money that came in.
#[derive(Debug, Object)]
#[oai(rename = "Capture", skip_serializing_if_is_none)]
struct CaptureBody {
    id: Uuid,
    order_id: Uuid,
    payment_id: Uuid,
    /// `stripe` or `razorpay`.
    provider: String,
    /// The provider's name for it.
    provider_ref: String,
    amount: MoneyBody,
    /// `quarantined`, `accepted` (it paid its order) or `refund_due` (it goes back).
    fate: String,
    /// `wrong_amount`, `wrong_currency` or `foreign_object`; left out once it paid an order.
    reason: Option<String>,
    captured_at: OffsetDateTime,
}

impl From<Capture> for CaptureBody {
    fn from(capture: Capture) -> Self {
        Self {
            id: capture.id,
            order_id: capture.order_id.uuid(),
            payment_id: capture.payment_id.uuid(),
            provider: capture.provider.name().to_owned(),
            provider_ref: capture.charge_ref,
            amount: MoneyBody { amount: capture.amount_minor, currency: capture.currency },
            fate: capture.fate.name().to_owned(),
            reason: capture.fate.reason().map(str::to_owned),
            captured_at: capture.captured_at,
        }
    }
}
