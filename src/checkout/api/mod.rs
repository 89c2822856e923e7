//! The checkout's endpoints.

mod disputes;
mod findings;
mod payments;
mod quarantine;
mod refunds;
mod shipping;

use std::{sync::Arc, time::Duration};

use poem::http::StatusCode;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Header, Path},
    payload::Json,
};
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

pub use disputes::DisputesApi;
pub use findings::FindingsApi;
pub use payments::PaymentsApi;
pub use quarantine::QuarantineApi;
pub use refunds::RefundsApi;
pub use shipping::ShippingApi;

use super::{
    CheckoutError, LINES_MAX, PlaceOrder, Placement, QUANTITY_MAX, RequestedLine, SoldOut,
    cancel_order, place_orders,
};
use crate::{
    context::Context,
    idempotency::{Fingerprint, Key},
    identity::Shopper,
    kernel::{
        Currency, Detail, EmailAddress, OrderId,
        batch::{Batcher, SLICE_MAX},
    },
    orders::{OrderNumber, api::OrderBody, find_order},
    web::{AddressBody, MoneyBody, Problem},
};

/// How many checkouts wait at most: some seconds of work for a small machine, so that the last in
/// the queue is still answered before its shopper gives up.
const QUEUE_DEPTH: usize = 20 * SLICE_MAX;

/// How long a checkout waits at most before its slice starts; whoever waited longer is told to come back.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a slice may take. Statements have limits of their own at the server; a server that is
/// gone without a word keeps none, and the next slice must not wait for what TCP believes.
const SLICE_TIME_MAX: Duration = Duration::from_secs(8);

/// Placing and cancelling orders.
pub struct CheckoutApi {
    cx: Context,
    batcher: Batcher<PlaceOrder, Result<Placement, CheckoutError>>,
}

impl CheckoutApi {
    /// Starts the task that places orders in slices; one per process.
    pub fn new(cx: Context) -> Self {
        let sold_out = Arc::new(SoldOut::default());
        let batcher = Batcher::start(QUEUE_DEPTH, QUEUE_WAIT_MAX, {
            let cx = cx.clone();
            move |slice: Vec<PlaceOrder>| {
                let (cx, sold_out) = (cx.clone(), sold_out.clone());
                async move {
                    let orders = u32::try_from(slice.len()).unwrap_or(u32::MAX);
                    metrics::histogram!("checkout_slice_orders").record(f64::from(orders));
                    let placed = timeout(SLICE_TIME_MAX, place_orders(&cx, &sold_out, &slice));
                    placed.await.unwrap_or_else(|_| {
                        tracing::error!(
                            orders,
                            "a slice of orders was given up: the database is silent"
                        );
                        vec![Err(CheckoutError::OutcomeUnknown); slice.len()]
                    })
                }
            }
        });
        Self { cx, batcher }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Placing and cancelling orders.
    Checkout,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Checkout")]
impl CheckoutApi {
    /// Place an order
    ///
    /// Holds the stock of every line until the order's deadline, or refuses the whole order. Lines of the
    /// same variant count as one. Repeat the request with the same `Idempotency-Key` until it
    /// answers: the order is placed once, and a repeat returns it with `Idempotency-Replayed: true`.
    #[oai(path = "/checkout", method = "post", operation_id = "placeOrder")]
    async fn place_order(
        &self,
        shopper: Shopper,
        /// 20 to 100 visible ASCII characters that name this one intention: a UUID will do.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Json<CheckoutBody>,
    ) -> Result<PlaceOrderResponse, Problem> {
        let key = Key::parse(idempotency_key.0.as_deref())?;
        let order = body.0.parse(shopper.owner_id(), key).map_err(invalid)?;
        let placement = self.batcher.run(order).await.map_err(CheckoutError::from)??;
        Ok(placement.into())
    }

    /// Cancel an order
    ///
    /// Gives up an order and puts its stock back on sale. A payment that was begun is withdrawn at its
    /// provider first; one that is under way there is refused with `payment-in-progress`. The money of an
    /// order that is paid goes back, unless it is under dispute: `order-disputed`. Repeating it changes
    /// nothing.
    #[oai(path = "/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel_order(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
    ) -> Result<Json<OrderBody>, Problem> {
        let (id, owner_id) = (OrderId::from(id.0), shopper.owner_id());
        cancel_order(&self.cx, id, owner_id).await?;
        let (order, timeline) = find_order(&self.cx.db, id, owner_id).await?;
        Ok(Json(OrderBody::with_timeline(order, timeline)))
    }
}

#[derive(ApiResponse)]
enum PlaceOrderResponse {
    /// The order waits for its payment.
    #[oai(status = 201)]
    Placed(
        Json<PlacedOrderBody>,
        /// Where to read the order.
        #[oai(header = "Location")]
        String,
        /// `true` when the order was placed by an earlier request with this key.
        #[oai(header = "Idempotency-Replayed")]
        Option<bool>,
    ),
}

/// What to order, and what the shopper was shown.
#[derive(Debug, Object)]
#[oai(rename = "Checkout", deny_unknown_fields)]
struct CheckoutBody {
    #[oai(validator(min_length = 3, max_length = 254))]
    email: String,
    /// Three capital letters of ISO 4217.
    #[oai(validator(min_length = 3, max_length = 3))]
    currency: String,
    /// The total that the shopper was shown. Another one is refused with the code `total-changed`.
    expected_total: MoneyBody,
    #[oai(validator(min_items = 1, max_items = 50))]
    lines: Vec<CheckoutLineBody>,
    shipping_address: AddressBody,
}

#[derive(Debug, Object)]
#[oai(rename = "CheckoutLine", deny_unknown_fields)]
struct CheckoutLineBody {
    variant_id: Uuid,
    #[oai(validator(minimum(value = "1"), maximum(value = "99")))]
    quantity: i64,
}

/// An order that was placed.
#[derive(Debug, Object)]
#[oai(rename = "PlacedOrder")]
struct PlacedOrderBody {
    order_id: Uuid,
    /// The number to show to people.
    number: String,
    status: String,
    lines: Vec<PlacedLineBody>,
    subtotal: MoneyBody,
    discount: MoneyBody,
    shipping: MoneyBody,
    tax: MoneyBody,
    total: MoneyBody,
    placed_at: OffsetDateTime,
    /// The stock is held until then.
    expires_at: OffsetDateTime,
    /// The same in whole seconds from now, for clients whose clock is wrong.
    expires_in: u64,
}

#[derive(Debug, Object)]
#[oai(rename = "PlacedLine")]
struct PlacedLineBody {
    variant_id: Uuid,
    sku: String,
    title: String,
    quantity: i64,
    unit_price: MoneyBody,
}

impl CheckoutBody {
    /// Reads the wish; all that is wrong with it is named at once.
    fn parse(self, owner_id: crate::kernel::OwnerId, key: Key) -> Result<PlaceOrder, Vec<Detail>> {
        let mut problems = Vec::new();
        let email = EmailAddress::parse(&self.email)
            .map_err(|error| problem("/email", "invalid-email", error.to_string()));
        let email = keep(email, &mut problems);
        let currency = self
            .currency
            .parse::<Currency>()
            .map_err(|error| problem("/currency", "unknown-currency", error.to_string()));
        let currency = keep(currency, &mut problems);
        let expected_total = keep(self.expected_total.parse_at("/expected_total"), &mut problems);
        if let (Some(currency), Some(total)) = (currency, expected_total)
            && total.currency() != currency
        {
            let message = "the total is in another currency than the order".to_owned();
            problems.push(problem("/expected_total/currency", "currencies-differ", message));
        }
        problems.extend(self.shipping_address.problems_at("/shipping_address"));

        let fingerprint = self.fingerprint();
        let shipping_address = serde_json::to_value(&self.shipping_address);
        let (Some(email), Some(currency), Some(expected_total), Ok(shipping_address), true) =
            (email, currency, expected_total, shipping_address, problems.is_empty())
        else {
            return Err(problems);
        };
        debug_assert!(self.lines.len() <= LINES_MAX);
        let lines = self.lines.into_iter().map(RequestedLine::from).collect();
        Ok(PlaceOrder {
            order_id: OrderId::generate(),
            number: OrderNumber::generate(),
            owner_id,
            key,
            fingerprint,
            email,
            shipping_address,
            currency,
            expected_total,
            lines,
        })
    }

    /// Equal requests have equal fingerprints, whatever the order of their JSON's fields.
    fn fingerprint(&self) -> Fingerprint {
        let lines: Vec<_> =
            self.lines.iter().map(|line| (line.variant_id, line.quantity)).collect();
        let total = (self.expected_total.amount, &self.expected_total.currency);
        let request = (&self.email, &self.currency, total, lines, &self.shipping_address);
        let bytes = serde_json::to_vec(&request).expect("plain data always has a JSON form");
        Fingerprint::of(&bytes)
    }
}

fn problem(pointer: &str, code: &'static str, message: String) -> Detail {
    Detail { pointer: pointer.to_owned(), code, message, available: None }
}

fn keep<T>(result: Result<T, Detail>, problems: &mut Vec<Detail>) -> Option<T> {
    result.map_err(|detail| problems.push(detail)).ok()
}

fn invalid(problems: Vec<Detail>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", None).with_errors(problems)
}

impl From<CheckoutLineBody> for RequestedLine {
    fn from(body: CheckoutLineBody) -> Self {
        debug_assert!(body.quantity <= QUANTITY_MAX);
        Self { variant_id: body.variant_id.into(), quantity: body.quantity }
    }
}

impl From<Placement> for PlaceOrderResponse {
    fn from(placement: Placement) -> Self {
        let receipt = placement.receipt;
        let money = |amount| MoneyBody { amount, currency: receipt.currency.clone() };
        let location = format!("/v1/orders/{}", receipt.order_id);
        let body = PlacedOrderBody {
            order_id: receipt.order_id,
            number: receipt.number,
            status: placement.status.name().to_owned(),
            subtotal: money(receipt.subtotal_minor),
            discount: money(receipt.discount_minor),
            shipping: money(receipt.shipping_minor),
            tax: money(receipt.tax_minor),
            total: money(receipt.total_minor),
            lines: receipt
                .lines
                .iter()
                .map(|line| PlacedLineBody {
                    variant_id: line.variant_id,
                    sku: line.sku.clone(),
                    title: line.title.clone(),
                    quantity: line.quantity,
                    unit_price: money(line.unit_price_minor),
                })
                .collect(),
            placed_at: receipt.placed_at,
            expires_at: placement.expires_at,
            expires_in: placement.expires_in.as_secs(),
        };
        Self::Placed(Json(body), location, placement.replayed.then_some(true))
    }
}
