//! The inventory's endpoints.

use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Header, Path},
    payload::Json,
};
use uuid::Uuid;

use super::{InventoryError, ReceiveStock, receive_stock, store};
use crate::{
    context::Context,
    idempotency::Key,
    identity::{Staff, Visitor},
    kernel::VariantId,
    web::{Problem, request_id},
};

#[derive(Debug, Tags)]
enum Tag {
    /// What is left of each variant.
    Stock,
}

/// How much there is of each variant.
#[derive(Debug)]
pub struct StockApi {
    cx: Context,
}

impl StockApi {
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[OpenApi(prefix_path = "/v1/stock", tag = "Tag::Stock")]
impl StockApi {
    /// What is left of a variant
    ///
    /// Units that an order holds past its deadline are available: they go to whoever orders them.
    /// Staff see the counters as well.
    #[oai(path = "/:variant_id", method = "get", operation_id = "getStock")]
    async fn get_stock(
        &self,
        visitor: Visitor,
        variant_id: Path<Uuid>,
    ) -> Result<GetStockResponse, Problem> {
        let variant_id = VariantId::from(variant_id.0);
        let level = store::level(&self.cx.db, variant_id)
            .await
            .map_err(InventoryError::from)?
            .ok_or(InventoryError::UnknownVariant(variant_id))?;
        let counters = match visitor {
            Visitor::Staff(_) => Some((level.on_hand, level.reserved)),
            Visitor::Anyone => None,
        };
        let body = StockBody {
            variant_id: variant_id.uuid(),
            available: level.available,
            on_hand: counters.map(|(on_hand, _)| on_hand),
            reserved: counters.map(|(_, reserved)| reserved),
        };
        Ok(GetStockResponse::Found(Json(body), "no-store".to_owned()))
    }

    /// Receive stock
    ///
    /// Puts units on sale that came in from a supplier. Repeat the request with the same
    /// `Idempotency-Key` until it answers: the units are added once.
    #[oai(path = "/:variant_id/receipts", method = "post", operation_id = "receiveStock")]
    async fn receive_stock(
        &self,
        staff: Staff,
        variant_id: Path<Uuid>,
        /// 20 to 100 visible ASCII characters that name this one receipt: a UUID will do.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Json<NewReceiptBody>,
    ) -> Result<ReceiveStockResponse, Problem> {
        let receipt = ReceiveStock {
            receipt_id: Uuid::now_v7(),
            variant_id: variant_id.0.into(),
            quantity: body.0.quantity,
            staff_id: staff.user_id(),
            key: Key::parse(idempotency_key.0.as_deref())?,
            request_id: request_id::current(),
        };
        let received = receive_stock(&self.cx.db, &receipt).await?;
        let body = ReceiptBody {
            receipt_id: received.receipt_id,
            variant_id: receipt.variant_id.uuid(),
            quantity: receipt.quantity,
        };
        let replayed = received.replayed.then_some(true);
        Ok(ReceiveStockResponse::Booked(Json(body), replayed))
    }
}

#[derive(ApiResponse)]
enum GetStockResponse {
    /// What is left at this moment.
    #[oai(status = 200)]
    Found(Json<StockBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum ReceiveStockResponse {
    /// The units are on sale.
    #[oai(status = 201)]
    Booked(
        Json<ReceiptBody>,
        /// `true` when an earlier request with this key booked the receipt.
        #[oai(header = "Idempotency-Replayed")]
        Option<bool>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "Stock", skip_serializing_if_is_none)]
struct StockBody {
    variant_id: Uuid,
    /// Units that can be ordered now.
    available: i64,
    /// Units in the house that are not sold; for staff.
    on_hand: Option<i64>,
    /// The part of them that orders hold; for staff.
    reserved: Option<i64>,
}

#[derive(Debug, Object)]
#[oai(rename = "NewReceipt", deny_unknown_fields)]
struct NewReceiptBody {
    #[oai(validator(minimum(value = "1"), maximum(value = "1000000")))]
    quantity: i64,
}

/// Units that came in.
#[derive(Debug, Object)]
#[oai(rename = "Receipt")]
struct ReceiptBody {
    receipt_id: Uuid,
    variant_id: Uuid,
    quantity: i64,
}
