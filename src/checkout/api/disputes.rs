//! What staff see of disputes.

use poem_openapi::{Object, OpenApi, Tags, param::Path, payload::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    checkout::find_disputes,
    context::Context,
    identity::Staff,
    payments::disputes::Dispute,
    web::{MoneyBody, Problem},
};

/// Claims of shoppers' banks.
pub struct DisputesApi {
    cx: Context,
}

impl DisputesApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Claims of shoppers' banks.
    Disputes,
}

#[OpenApi(prefix_path = "/v1/admin/orders", tag = "Tag::Disputes")]
impl DisputesApi {
    /// List an order's disputes
    ///
    /// The oldest first, as their providers last told of them. While one is open, nothing is refunded
    /// without a person, and the order cannot be cancelled.
    #[oai(path = "/:id/disputes", method = "get", operation_id = "listOrderDisputes")]
    async fn list_order_disputes(
        &self,
        _staff: Staff,
        id: Path<Uuid>,
    ) -> Result<Json<DisputesBody>, Problem> {
        let disputes = find_disputes(&self.cx, id.0.into()).await?;
        Ok(Json(DisputesBody { items: disputes.into_iter().map(DisputeBody::from).collect() }))
    }
}

#[derive(Debug, Object)]
#[oai(rename = "Disputes")]
struct DisputesBody {
    items: Vec<DisputeBody>,
}

/// A claim of a shopper's bank against money that paid an order.
#[derive(Debug, Object)]
#[oai(rename = "Dispute")]
struct DisputeBody {
    id: Uuid,
    /// `stripe` or `razorpay`.
    provider: String,
    /// The provider's name for it.
    provider_ref: String,
    /// `open`, `won` (the money is the shop's), `lost`, or `closed` without a verdict.
    state: String,
    /// The provider's own word for where it stands.
    status: String,
    /// The provider's own word for what is claimed.
    reason: Option<String>,
    amount: MoneyBody,
    opened_at: OffsetDateTime,
    /// When the provider last told of it.
    updated_at: OffsetDateTime,
}

impl From<Dispute> for DisputeBody {
    fn from(dispute: Dispute) -> Self {
        Self {
            id: dispute.id,
            provider: dispute.provider.name().to_owned(),
            provider_ref: dispute.provider_ref,
            state: dispute.state.name().to_owned(),
            status: dispute.status,
            reason: dispute.reason,
            amount: MoneyBody { amount: dispute.amount_minor, currency: dispute.currency },
            opened_at: dispute.opened_at,
            updated_at: dispute.updated_at,
        }
    }
}
