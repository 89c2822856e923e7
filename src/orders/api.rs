//! A shopper's own orders.

use poem::http::Uri;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Path, Query},
    payload::Json,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Order, Status, TimelineEntry, find_order, list_orders};
use crate::{
    context::Context,
    identity::Shopper,
    kernel::OrderId,
    web::{
        MoneyBody, Problem,
        page::{self, Limit},
    },
};

/// The orders of whoever asks.
pub struct OrdersApi {
    cx: Context,
}

impl OrdersApi {
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }
}

/// Names the list in cursors, with the version of its position.
const LIST: &str = "orders.1";

#[derive(Debug, Tags)]
enum Tag {
    /// A shopper's own orders.
    Orders,
}

#[OpenApi(prefix_path = "/v1/orders", tag = "Tag::Orders")]
impl OrdersApi {
    /// List my orders
    ///
    /// The newest first, without their timelines.
    #[oai(path = "/", method = "get", operation_id = "listOrders")]
    async fn list_orders(
        &self,
        shopper: Shopper,
        uri: &Uri,
        /// 1 to 100; 20 if left out.
        limit: Query<Option<u32>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<ListOrdersResponse, Problem> {
        let limit = Limit::new(limit.0)?;
        let before = cursor.0.map(|cursor| page::position::<Uuid>(LIST, &cursor)).transpose()?;
        let mut orders =
            list_orders(&self.cx.db, shopper.owner_id(), before.map(OrderId::from), limit.rows())
                .await?;
        let has_more = orders.len() > limit.get();
        orders.truncate(limit.get());
        let last = orders.last().filter(|_| has_more);
        let next_cursor = last.map(|order| page::cursor(LIST, &order.id.uuid()));
        let link = next_cursor.as_ref().map(|cursor| page::next_link(uri, cursor));
        let items = orders.into_iter().map(OrderBody::from).collect();
        Ok(ListOrdersResponse::Page(Json(OrderPageBody { items, next_cursor }), link))
    }

    /// Get one of my orders
    ///
    /// With its timeline: everything that happened to it, the oldest first.
    #[oai(path = "/:id", method = "get", operation_id = "getOrder")]
    async fn get_order(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
    ) -> Result<Json<OrderBody>, Problem> {
        let (order, timeline) = find_order(&self.cx.db, id.0.into(), shopper.owner_id()).await?;
        Ok(Json(OrderBody::with_timeline(order, timeline)))
    }
}

#[derive(ApiResponse)]
enum ListOrdersResponse {
    /// A page of orders.
    #[oai(status = 200)]
    Page(
        Json<OrderPageBody>,
        /// `rel="next"`, unless this is the last page.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "OrderPage")]
struct OrderPageBody {
    items: Vec<OrderBody>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

/// An order as its owner sees it.
#[derive(Debug, Object)]
#[oai(rename = "Order")]
pub struct OrderBody {
    id: Uuid,
    /// The number to show to people.
    number: String,
    /// `awaiting_payment`, `paid`, `shipped`, `cancelled` or `expired`.
    status: String,
    email: String,
    shipping_address: Value,
    lines: Vec<OrderLineBody>,
    subtotal: MoneyBody,
    discount: MoneyBody,
    shipping: MoneyBody,
    tax: MoneyBody,
    total: MoneyBody,
    placed_at: OffsetDateTime,
    /// The stock is held until then, while the order waits for its payment.
    expires_at: OffsetDateTime,
    /// Whole seconds from now until then; only while the order waits for its payment.
    expires_in: Option<u64>,
    /// Left out in lists.
    #[oai(skip_serializing_if_is_none)]
    timeline: Option<Vec<TimelineEntryBody>>,
}

#[derive(Debug, Object)]
#[oai(rename = "OrderLine")]
struct OrderLineBody {
    variant_id: Uuid,
    sku: String,
    title: String,
    quantity: i64,
    unit_price: MoneyBody,
}

#[derive(Debug, Object)]
#[oai(rename = "TimelineEntry")]
struct TimelineEntryBody {
    /// `placed`, `cancelled`, `cancelled_after_payment`, `deadline_passed`, `deadline_extended`,
    /// `payment_failed`, `payment_settled`, `payment_authorized_too_late`, `payment_not_collected`,
    /// `payment_refund_due`, `payment_quarantined`, `quarantine_resolved`, `refund_requested`, `refund_succeeded`,
    /// `refund_failed`, `refund_withheld` or `disputed`.
    kind: String,
    /// The order's status after it.
    status: String,
    detail: Value,
    at: OffsetDateTime,
}

impl OrderBody {
    pub fn with_timeline(order: Order, timeline: Vec<TimelineEntry>) -> Self {
        let timeline = timeline
            .into_iter()
            .map(|entry| TimelineEntryBody {
                kind: entry.kind,
                status: entry.status,
                detail: entry.detail,
                at: entry.recorded_at,
            })
            .collect();
        Self { timeline: Some(timeline), ..order.into() }
    }
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> Self {
        let waits = order.status == Status::AwaitingPayment;
        Self {
            id: order.id.uuid(),
            number: order.number,
            status: order.status.name().to_owned(),
            email: order.email,
            shipping_address: order.shipping_address,
            lines: order
                .lines
                .into_iter()
                .map(|line| OrderLineBody {
                    variant_id: line.variant_id.uuid(),
                    sku: line.sku,
                    title: line.title,
                    quantity: line.quantity,
                    unit_price: line.unit_price.into(),
                })
                .collect(),
            subtotal: order.totals.subtotal.into(),
            discount: order.totals.discount.into(),
            shipping: order.totals.shipping.into(),
            tax: order.totals.tax.into(),
            total: order.totals.total.into(),
            placed_at: order.placed_at,
            expires_at: order.expires_at,
            expires_in: waits.then_some(order.expires_in.as_secs()),
            timeline: None,
        }
    }
}
