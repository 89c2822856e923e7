//! The rules of a variant's sale, as the API says them, and the endpoint that sets them.

use poem_openapi::{Object, OpenApi, Tags, param::Path, payload::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    audit::Actor,
    catalog::{CatalogError, PurchaseLimit, Sale, SetSale, set_sale},
    context::Context,
    identity::Staff,
    kernel::Detail,
    web::{Problem, request_id},
};

/// When variants can be bought, and how many of them.
#[derive(Debug)]
pub struct SalesApi {
    cx: Context,
}

impl SalesApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// When a variant can be bought, and how many of it one customer may have.
    Sales,
}

#[OpenApi(prefix_path = "/v1/admin/variants", tag = "Tag::Sales")]
impl SalesApi {
    /// Set the rules of a variant's sale
    ///
    /// For staff. The rules that are named replace all that the variant had: what is left out is no rule.
    /// They hold for every order from then on; what a customer bought before counts against a new limit,
    /// too. Repeating it changes nothing more.
    #[oai(path = "/:variant_id/sale", method = "put", operation_id = "setSale")]
    async fn set_sale(
        &self,
        staff: Staff,
        variant_id: Path<Uuid>,
        body: Json<SaleBody>,
    ) -> Result<Json<SaleBody>, Problem> {
        let sale = body.0.parse_at("").map_err(|detail| CatalogError::Invalid(vec![detail]))?;
        let wish = SetSale {
            variant_id: variant_id.0.into(),
            sale,
            actor: Actor { id: staff.user_id(), request_id: request_id::current() },
        };
        Ok(Json(set_sale(&self.cx.db, &wish).await?.into()))
    }
}

/// When a variant can be bought, and how many of it one customer may have.
#[derive(Debug, Clone, Copy, Object)]
#[oai(rename = "Sale", deny_unknown_fields, skip_serializing_if_is_none)]
pub(super) struct SaleBody {
    /// It can be bought from this moment on.
    opens_at: Option<OffsetDateTime>,
    /// It can be bought before this moment.
    closes_at: Option<OffsetDateTime>,
    /// Whoever buys what has one needs an account.
    purchase_limit: Option<PurchaseLimitBody>,
}

/// How many units of a variant one customer may have.
#[derive(Debug, Clone, Copy, Object)]
#[oai(rename = "PurchaseLimit", deny_unknown_fields, skip_serializing_if_is_none)]
struct PurchaseLimitBody {
    /// Of all orders together that are paid or wait for their payment.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    units: i64,
    /// An order counts for so many seconds after it was placed, a minute to 366 days; for ever if
    /// this is left out.
    #[oai(validator(minimum(value = "60"), maximum(value = "31622400")))]
    window_seconds: Option<i64>,
}

impl SaleBody {
    /// Reads the rules; `pointer` is where they are in the request.
    pub(super) fn parse_at(self, pointer: &str) -> Result<Sale, Detail> {
        let limit = self.purchase_limit.map(PurchaseLimit::from);
        let sale = Sale::new(self.opens_at, self.closes_at, limit);
        sale.map_err(|detail| Detail { pointer: format!("{pointer}{}", detail.pointer), ..detail })
    }

    /// The rules, if there are any.
    pub(super) fn of(sale: Sale) -> Option<Self> {
        (sale != Sale::default()).then(|| sale.into())
    }
}

impl From<Sale> for SaleBody {
    fn from(sale: Sale) -> Self {
        let limit = |limit: PurchaseLimit| PurchaseLimitBody {
            units: limit.units,
            window_seconds: limit.window_seconds,
        };
        Self {
            opens_at: sale.opens_at,
            closes_at: sale.closes_at,
            purchase_limit: sale.limit.map(limit),
        }
    }
}

impl From<PurchaseLimitBody> for PurchaseLimit {
    fn from(body: PurchaseLimitBody) -> Self {
        Self { units: body.units, window_seconds: body.window_seconds }
    }
}
