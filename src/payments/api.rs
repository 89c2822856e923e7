//! The endpoints that payment providers call.

use std::time::Duration;

use poem::{FromRequest, Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi, Tags,
    param::Header,
    payload::Json,
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef},
};
use tokio::time::timeout;

use super::{
    PaymentError, Provider,
    inbox::{
        Receipt, Received, receive,
        signature::{Distrust, verify_razorpay, verify_stripe},
    },
};
use crate::{
    context::Context,
    kernel::{
        batch::{Batcher, SLICE_MAX},
        time,
    },
    web::Problem,
};

/// How many webhooks wait at most. Only providers get this far, whose bodies are of some 5 KiB: if
/// every one was of the 256 KiB that are read, a full queue would take 200 MiB.
const QUEUE_DEPTH: usize = 4 * SLICE_MAX;

/// How long a webhook waits at most before its slice starts, and how long its slice may take. Razorpay
/// takes no answer after 5 s for a no, and an answer of ours says when to come back.
const QUEUE_WAIT_MAX: Duration = Duration::from_millis(1_500);
const SLICE_TIME_MAX: Duration = Duration::from_secs(3);

/// Taking the providers' news in.
pub struct WebhooksApi {
    cx: Context,
    batcher: Batcher<Received, Result<Receipt, PaymentError>>,
}

impl WebhooksApi {
    /// Starts the task that stores webhooks in slices; one per process.
    pub fn new(cx: Context) -> Self {
        let batcher = Batcher::start(QUEUE_DEPTH, QUEUE_WAIT_MAX, {
            let cx = cx.clone();
            move |slice: Vec<Received>| {
                let cx = cx.clone();
                async move {
                    let received = timeout(SLICE_TIME_MAX, receive(&cx, &slice));
                    received.await.unwrap_or_else(|_| {
                        let webhooks = slice.len();
                        tracing::error!(webhooks, "webhooks were given up: the database is silent");
                        vec![Err(PaymentError::OutcomeUnknown); webhooks]
                    })
                }
            }
        });
        Self { cx, batcher }
    }

    async fn take(&self, webhook: Received) -> Result<Json<TakenBody>, Problem> {
        let provider = webhook.provider();
        let receipt = self.batcher.run(webhook).await.map_err(PaymentError::from)??;
        let labels = [("provider", provider.name()), ("outcome", receipt.name())];
        metrics::counter!("webhooks_received_total", &labels).increment(1);
        Ok(Json(TakenBody { received: true }))
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// What payment providers call.
    Webhooks,
}

#[OpenApi(prefix_path = "/v1/webhooks", tag = "Tag::Webhooks")]
impl WebhooksApi {
    /// Take an event of Stripe
    ///
    /// Keeps an event that Stripe has signed, and says so before acting on it. The same event is kept
    /// once, however often it comes.
    #[oai(path = "/stripe", method = "post", operation_id = "takeStripeEvent")]
    async fn take_stripe_event(
        &self,
        /// The time of the signature and the signature of both: `t=…,v1=…`.
        #[oai(name = "Stripe-Signature")]
        signature: Header<Option<String>>,
        body: Signed,
    ) -> Result<Json<TakenBody>, Problem> {
        let stripe = self.cx.providers.stripe.as_ref().ok_or(PaymentError::NoAccount)?;
        let (header, now) = (signature.0.as_deref(), time::now().unix_timestamp());
        let verdict = verify_stripe(&body.0, header, stripe.webhook_secrets(), now);
        trust(Provider::Stripe, verdict)?;
        self.take(Received::from_stripe(body.0)).await
    }

    /// Take an event of Razorpay
    ///
    /// Keeps an event that Razorpay has signed, and says so before acting on it. The same event is
    /// kept once, however often it comes and whatever it is called.
    #[oai(path = "/razorpay", method = "post", operation_id = "takeRazorpayEvent")]
    async fn take_razorpay_event(
        &self,
        /// The signature of the body.
        #[oai(name = "X-Razorpay-Signature")]
        signature: Header<Option<String>>,
        /// The event's name.
        #[oai(name = "X-Razorpay-Event-Id")]
        event_id: Header<Option<String>>,
        body: Signed,
    ) -> Result<Json<TakenBody>, Problem> {
        let razorpay = self.cx.providers.razorpay.as_ref().ok_or(PaymentError::NoAccount)?;
        let header = signature.0.as_deref();
        let verdict = verify_razorpay(&body.0, header, razorpay.webhook_secrets());
        trust(Provider::Razorpay, verdict)?;
        self.take(Received::from_razorpay(event_id.0.as_deref(), body.0)).await
    }
}

/// Refuses a webhook whose signature proves nothing, and tells us when an old secret is still in use.
fn trust(provider: Provider, verdict: Result<usize, Distrust>) -> Result<(), PaymentError> {
    let provider = provider.name();
    match verdict {
        Ok(0) => Ok(()),
        Ok(secret) => {
            metrics::counter!("webhooks_old_secret_total", "provider" => provider).increment(1);
            tracing::info!(provider, secret, "a webhook was signed with an older secret");
            Ok(())
        }
        Err(distrust) => {
            let reason = distrust.name();
            let labels = [("provider", provider), ("reason", reason)];
            metrics::counter!("webhooks_refused_total", &labels).increment(1);
            tracing::warn!(provider, reason, "a webhook was refused");
            Err(PaymentError::BadSignature)
        }
    }
}

#[derive(Debug, Object)]
#[oai(rename = "TakenEvent")]
struct TakenBody {
    /// The event need not be sent again.
    received: bool,
}

/// A body as it was sent, of whatever type it claims to be: it counts only what was signed.
struct Signed(Vec<u8>);

impl<'a> ApiExtractor<'a> for Signed {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType {
            content_type: "application/json",
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("object"))),
        }];
        Some(MetaRequest { description: Some("The event."), content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(<Vec<u8> as FromRequest>::from_request(request, body).await?))
    }
}
