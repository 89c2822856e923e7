//! Money that goes back: what staff decide, and what shoppers see of it.

use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Header, Path},
    payload::Json,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    checkout::{OrderRefund, RefundOrder, order_refunds, refund_order},
    context::Context,
    idempotency::Key,
    identity::{Shopper, Staff},
    kernel::{OrderId, RefundId, UserId, VariantId},
    web::{MoneyBody, Problem, request_id},
};

/// Giving money back.
pub struct RefundsApi {
    cx: Context,
}

impl RefundsApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Giving money back.
    Refunds,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Refunds")]
impl RefundsApi {
    /// Refund an order
    ///
    /// For staff. Gives money back, all that is left of it or a part, and puts the named units on sale
    /// again; without any, stock stays as it is. The answer comes before the provider is asked: how the
    /// refund stands, the list of the order's refunds tells. Repeat the request with the same
    /// `Idempotency-Key` until it answers.
    #[oai(path = "/admin/orders/:id/refunds", method = "post", operation_id = "refundOrder")]
    async fn refund_order(
        &self,
        staff: Staff,
        id: Path<Uuid>,
        /// 20 to 100 visible ASCII characters that name this one intention: a UUID will do.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Json<NewRefundBody>,
    ) -> Result<RefundOrderResponse, Problem> {
        let body = body.0;
        let amount = body.amount.map(|amount| amount.parse_at("/amount")).transpose();
        let wish = RefundOrder {
            refund_id: RefundId::generate(),
            order_id: id.0.into(),
            staff_id: staff.user_id(),
            key: Key::parse(idempotency_key.0.as_deref())?,
            amount: amount.map_err(|problem| super::invalid(vec![problem]))?,
            capture_id: body.capture_id,
            reason: body.reason,
            restock: body.restock.into_iter().map(RestockBody::parse).collect(),
            request_id: request_id::current(),
        };
        let refund = refund_order(&self.cx, &wish).await?;
        let replayed = refund.replayed.then_some(true);
        Ok(RefundOrderResponse::Requested(Json(refund.into()), replayed))
    }

    /// List an order's refunds
    ///
    /// For staff. Every refund of the order, the oldest first, whoever wanted it: also those that were
    /// made in the provider's dashboard.
    #[oai(path = "/admin/orders/:id/refunds", method = "get", operation_id = "listOrderRefunds")]
    async fn list_order_refunds(
        &self,
        _staff: Staff,
        id: Path<Uuid>,
    ) -> Result<Json<StaffRefundsBody>, Problem> {
        let refunds = order_refunds(&self.cx, OrderId::from(id.0), None).await?;
        Ok(Json(StaffRefundsBody { items: refunds.into_iter().map(Into::into).collect() }))
    }

    /// List the refunds of one of my orders
    ///
    /// The oldest first. Money that is `succeeded` is on its way: a bank may take some days.
    #[oai(path = "/orders/:id/refunds", method = "get", operation_id = "listMyRefunds")]
    async fn list_my_refunds(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
    ) -> Result<Json<RefundsBody>, Problem> {
        let refunds = order_refunds(&self.cx, id.0.into(), Some(shopper.owner_id())).await?;
        Ok(Json(RefundsBody { items: refunds.into_iter().map(Into::into).collect() }))
    }
}

#[derive(ApiResponse)]
enum RefundOrderResponse {
    /// The refund is on record, and will be made.
    #[oai(status = 201)]
    Requested(
        Json<StaffRefundBody>,
        /// `true` when an earlier request with this key wanted the refund.
        #[oai(header = "Idempotency-Replayed")]
        Option<bool>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "NewRefund", deny_unknown_fields)]
struct NewRefundBody {
    /// Without it, all that is left goes back.
    amount: Option<MoneyBody>,
    /// The money that is meant, where it is not that which paid the order.
    capture_id: Option<Uuid>,
    /// For colleagues; shoppers do not see it.
    #[oai(validator(min_length = 1, max_length = 500))]
    reason: String,
    /// The units that go back on sale: none, where it is left out.
    #[oai(default, validator(max_items = 50))]
    restock: Vec<RestockBody>,
}

/// Units that go back on sale.
#[derive(Debug, Object)]
#[oai(rename = "Restock", deny_unknown_fields)]
struct RestockBody {
    variant_id: Uuid,
    #[oai(validator(minimum(value = "1"), maximum(value = "4950")))]
    quantity: i64,
}

impl RestockBody {
    fn parse(self) -> (VariantId, i64) {
        (self.variant_id.into(), self.quantity)
    }
}

#[derive(Debug, Object)]
#[oai(rename = "StaffRefunds")]
struct StaffRefundsBody {
    items: Vec<StaffRefundBody>,
}

/// Money that goes back.
#[derive(Debug, Object)]
#[oai(rename = "StaffRefund", skip_serializing_if_is_none)]
struct StaffRefundBody {
    id: Uuid,
    order_id: Uuid,
    /// The money that came in, of which this is a part.
    capture_id: Uuid,
    /// `stripe` or `razorpay`.
    provider: String,
    /// The provider's name for it, once it is known.
    provider_ref: Option<String>,
    amount: MoneyBody,
    /// `requested`, `pending`, `succeeded` or `failed`; also one that succeeded may fail.
    state: String,
    /// `surplus`: the money could not be kept. `cancelled`: the order was given up. `staff`: a person
    /// decided. `provider`: it was made in the provider's dashboard.
    cause: String,
    reason: Option<String>,
    /// Who decided.
    requested_by: Option<Uuid>,
    /// Why it failed, in the provider's words.
    failure: Option<String>,
    /// What went back on sale with it.
    restock: Vec<RestockBody>,
    created_at: OffsetDateTime,
}

#[derive(Debug, Object)]
#[oai(rename = "Refunds")]
struct RefundsBody {
    items: Vec<RefundBody>,
}

/// Money that goes back to the shopper.
#[derive(Debug, Object)]
#[oai(rename = "Refund")]
struct RefundBody {
    id: Uuid,
    amount: MoneyBody,
    /// `requested`, `pending`, `succeeded` or `failed`.
    state: String,
    created_at: OffsetDateTime,
}

impl From<OrderRefund> for StaffRefundBody {
    fn from(of_order: OrderRefund) -> Self {
        let refund = of_order.refund;
        Self {
            id: refund.id.uuid(),
            order_id: refund.order_id.uuid(),
            capture_id: refund.capture_id,
            provider: refund.provider.name().to_owned(),
            provider_ref: refund.provider_ref,
            amount: MoneyBody { amount: refund.amount_minor, currency: refund.currency },
            state: refund.state.name().to_owned(),
            cause: refund.cause.name().to_owned(),
            reason: refund.reason,
            requested_by: refund.requested_by.map(UserId::uuid),
            failure: refund.failure,
            restock: of_order
                .restocked
                .into_iter()
                .map(|units| RestockBody {
                    variant_id: units.variant_id.uuid(),
                    quantity: units.quantity,
                })
                .collect(),
            created_at: refund.created_at,
        }
    }
}

impl From<OrderRefund> for RefundBody {
    fn from(of_order: OrderRefund) -> Self {
        let refund = of_order.refund;
        Self {
            id: refund.id.uuid(),
            amount: MoneyBody { amount: refund.amount_minor, currency: refund.currency },
            state: refund.state.name().to_owned(),
            created_at: refund.created_at,
        }
    }
}
