//! Parcels that leave the house.

use poem_openapi::{OpenApi, Tags, param::Path, payload::Json};
use uuid::Uuid;

use crate::{
    checkout::{ShipOrder, ship_order},
    context::Context,
    identity::Staff,
    orders::{api::OrderBody, find_any_order},
    web::{Problem, request_id},
};

/// Noting what was shipped.
pub struct ShippingApi {
    cx: Context,
}

impl ShippingApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Parcels that leave the house.
    Shipping,
}

#[OpenApi(prefix_path = "/v1/admin/orders", tag = "Tag::Shipping")]
impl ShippingApi {
    /// Ship an order
    ///
    /// For staff: notes that the parcel was handed over. From then on the shopper cannot cancel the order,
    /// and only staff give its money back. Refused where nothing of the money is left: `money-went-back`.
    /// Repeating it changes nothing.
    #[oai(path = "/:id/ship", method = "post", operation_id = "shipOrder")]
    async fn ship_order(&self, staff: Staff, id: Path<Uuid>) -> Result<Json<OrderBody>, Problem> {
        let wish = ShipOrder {
            order_id: id.0.into(),
            staff_id: staff.user_id(),
            request_id: request_id::current(),
        };
        ship_order(&self.cx, &wish).await?;
        Ok(Json(find_any_order(&self.cx.db, wish.order_id).await?.into()))
    }
}
