//! Paying: attempts, and what the shopper's browser says of them.

use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi, Tags,
    param::{Header, Path},
    payload::Json,
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    checkout::{Attempt, OpenPayment, confirm_payment, find_payment, open_payment},
    context::Context,
    idempotency::Key,
    identity::Shopper,
    orders::Status,
    payments::{
        Provider,
        gateway::{CheckoutProof, Handover},
    },
    web::{MoneyBody, Problem},
};

/// Paying orders.
pub struct PaymentsApi {
    cx: Context,
}

impl PaymentsApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Paying orders.
    Payments,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Payments")]
impl PaymentsApi {
    /// Open a payment
    ///
    /// Begins an attempt to pay the whole order with the provider, and answers with what the browser
    /// needs to go on there. An earlier attempt is withdrawn: an order has one at a time. Repeat the
    /// request with the same `Idempotency-Key` until it answers: the same attempt goes on, and a repeat
    /// has `Idempotency-Replayed: true`. Whether the order is paid, the order tells.
    #[oai(path = "/orders/:id/payments", method = "post", operation_id = "openPayment")]
    async fn open_payment(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
        /// 20 to 100 visible ASCII characters that name this one intention: a UUID will do.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Json<OpenPaymentBody>,
    ) -> Result<OpenPaymentResponse, Problem> {
        let wish = OpenPayment {
            order_id: id.0.into(),
            owner_id: shopper.owner_id(),
            provider: body.0.provider.into(),
            key: Key::parse(idempotency_key.0.as_deref())?,
        };
        let attempt = open_payment(&self.cx, &wish).await?;
        let location = format!("/v1/payments/{}", attempt.payment.id);
        let replayed = attempt.replayed.then_some(true);
        Ok(OpenPaymentResponse::Opened(Json(attempt.into()), location, replayed))
    }

    /// Get one of my payments
    ///
    /// As far as we know; nobody is asked, and nothing to pay with is told.
    #[oai(path = "/payments/:id", method = "get", operation_id = "getPayment")]
    async fn get_payment(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
    ) -> Result<Json<PaymentBody>, Problem> {
        let attempt = find_payment(&self.cx, id.0.into(), shopper.owner_id()).await?;
        Ok(Json(attempt.into()))
    }

    /// Confirm a payment
    ///
    /// To be called when the provider's part in the browser has ended: the provider is asked at once, so
    /// that the shopper need not wait for its webhook. Repeating it changes nothing, and nothing is lost
    /// if it is never called.
    #[oai(path = "/payments/:id/confirm", method = "post", operation_id = "confirmPayment")]
    async fn confirm_payment(
        &self,
        shopper: Shopper,
        id: Path<Uuid>,
        body: Json<ConfirmPaymentBody>,
    ) -> Result<Json<PaymentBody>, Problem> {
        let proof = body.0.razorpay.map(CheckoutProof::from);
        let attempt =
            confirm_payment(&self.cx, id.0.into(), shopper.owner_id(), proof.as_ref()).await?;
        Ok(Json(attempt.into()))
    }
}

#[derive(ApiResponse)]
enum OpenPaymentResponse {
    /// The attempt is open.
    #[oai(status = 201)]
    Opened(
        Json<PaymentBody>,
        /// Where to read the payment.
        #[oai(header = "Location")]
        String,
        /// `true` when the attempt was begun by an earlier request with this key.
        #[oai(header = "Idempotency-Replayed")]
        Option<bool>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "OpenPayment", deny_unknown_fields)]
struct OpenPaymentBody {
    provider: ProviderBody,
}

/// Who collects the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "PaymentProvider", rename_all = "lowercase")]
enum ProviderBody {
    Stripe,
    Razorpay,
}

/// What the provider's part in the browser ended with.
#[derive(Debug, Object)]
#[oai(rename = "ConfirmPayment", deny_unknown_fields)]
struct ConfirmPaymentBody {
    /// What Razorpay's checkout returned; nothing for Stripe.
    razorpay: Option<RazorpayProofBody>,
}

#[derive(Debug, Object)]
#[oai(rename = "RazorpayProof", deny_unknown_fields)]
struct RazorpayProofBody {
    /// `razorpay_payment_id`.
    #[oai(validator(min_length = 1, max_length = 100))]
    payment_id: String,
    /// `razorpay_signature`.
    #[oai(validator(min_length = 1, max_length = 200))]
    signature: String,
}

/// An attempt to pay an order.
#[derive(Debug, Object)]
#[oai(rename = "Payment", skip_serializing_if_is_none)]
struct PaymentBody {
    id: Uuid,
    order_id: Uuid,
    /// The order's status.
    order_status: String,
    provider: ProviderBody,
    /// `creating`, `open`, `processing`, `authorized`, `cancelling`, `captured`, `cancelled` or
    /// `rejected`.
    state: String,
    amount: MoneyBody,
    /// The provider's code for why the last try was declined.
    last_decline: Option<String>,
    /// The order's deadline.
    expires_at: OffsetDateTime,
    /// Whole seconds from now until then; only while the order waits for its payment.
    expires_in: Option<u64>,
    /// What Stripe.js needs; only in the answer to the request that opens the payment.
    stripe: Option<StripeHandoverBody>,
    /// What Razorpay's checkout needs; only in the answer to the request that opens the payment.
    razorpay: Option<RazorpayHandoverBody>,
    created_at: OffsetDateTime,
}

#[derive(Object)]
#[oai(rename = "StripeHandover")]
struct StripeHandoverBody {
    payment_intent_id: String,
    /// To be kept from everybody but the shopper.
    client_secret: String,
}

/// Written without the secret.
impl std::fmt::Debug for StripeHandoverBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripeHandoverBody")
            .field("payment_intent_id", &self.payment_intent_id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Object)]
#[oai(rename = "RazorpayHandover")]
struct RazorpayHandoverBody {
    order_id: String,
    key_id: String,
}

impl From<ProviderBody> for Provider {
    fn from(body: ProviderBody) -> Self {
        match body {
            ProviderBody::Stripe => Self::Stripe,
            ProviderBody::Razorpay => Self::Razorpay,
        }
    }
}

impl From<Provider> for ProviderBody {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Stripe => Self::Stripe,
            Provider::Razorpay => Self::Razorpay,
        }
    }
}

impl From<RazorpayProofBody> for CheckoutProof {
    fn from(body: RazorpayProofBody) -> Self {
        Self { charge_ref: body.payment_id, signature: body.signature }
    }
}

impl From<Attempt> for PaymentBody {
    fn from(attempt: Attempt) -> Self {
        let (mut stripe, mut razorpay) = (None, None);
        match attempt.handover {
            Some(Handover::Stripe { payment_intent_id, client_secret }) => {
                let client_secret = client_secret.expose_secret().to_owned();
                stripe = Some(StripeHandoverBody { payment_intent_id, client_secret });
            }
            Some(Handover::Razorpay { order_id, key_id }) => {
                razorpay = Some(RazorpayHandoverBody { order_id, key_id });
            }
            None => {}
        }
        let waits = attempt.order_status == Status::AwaitingPayment;
        let payment = attempt.payment;
        Self {
            id: payment.id.uuid(),
            order_id: payment.order_id.uuid(),
            order_status: attempt.order_status.name().to_owned(),
            provider: payment.provider.into(),
            state: payment.state.name().to_owned(),
            amount: payment.amount.into(),
            last_decline: payment.last_decline,
            expires_at: attempt.expires_at,
            expires_in: waits.then_some(attempt.expires_in.as_secs()),
            stripe,
            razorpay,
            created_at: payment.created_at,
        }
    }
}
