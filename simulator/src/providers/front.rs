//! What both APIs do around a call: read it, recognise its sender and its key, strike it with the
//! fault that is due, and answer.

use std::{future::pending, sync::Arc};

use poem::{
    Endpoint, Request, Response,
    http::{HeaderMap, Method, StatusCode},
    web::RemoteAddr,
};
use reqwest::Url;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    faults::Fault,
    keys::{Claim, Slot},
    operation::Provider,
    razorpay, stripe,
    wire::Connections,
    world::Shared,
};

/// Far more than any call of the two APIs has.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A request that has been read.
pub(super) struct Call {
    client: RemoteAddr,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Call {
    async fn read(mut request: Request) -> poem::Result<Self> {
        let body = request.take_body().into_bytes_limit(BODY_BYTES_MAX).await?;
        Ok(Self {
            client: request.remote_addr().clone(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: pairs(request.uri().query().unwrap_or_default()),
            headers: request.headers().clone(),
            body: body.into(),
        })
    }

    /// The path's words after `/v1`; empty for a path of another version.
    pub(super) fn words(&self) -> Vec<&str> {
        let words = self.path.strip_prefix("/v1/").unwrap_or_default();
        words.split('/').filter(|word| !word.is_empty()).collect()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Decodes what a form or a query says; a name may come more than once.
pub(super) fn pairs(encoded: &str) -> Vec<(String, String)> {
    let mut url = Url::parse("http://form/").expect("it is a URL");
    url.set_query(Some(encoded));
    url.query_pairs().into_owned().collect()
}

/// What a call is answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Whether the call got past the check of its parameters: only then its key remembers it.
    pub(super) executed: bool,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: &Value, executed: bool) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, body: body.to_string(), headers, executed }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn bad_gateway() -> Self {
        let body = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
        Self {
            status: StatusCode::BAD_GATEWAY,
            body: body.to_owned(),
            headers: vec![("content-type", "text/html".to_owned())],
            executed: false,
        }
    }

    fn broken_off(mut self) -> Self {
        let middle = (0..=self.body.len() / 2).rev().find(|&at| self.body.is_char_boundary(at));
        self.body.truncate(middle.unwrap_or_default());
        self
    }

    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(self.body)
    }
}

/// What goes wrong after the effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aftermath {
    None,
    Error,
    Hang,
    Reset,
    Malformed,
    BadGateway,
}

/// One provider's API on its port.
pub(super) struct Front {
    pub(super) provider: Provider,
    pub(super) shared: Arc<Shared>,
    pub(super) connections: Connections,
}

impl Endpoint for Front {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let call = Call::read(request).await?;
        if let Some(answer) = self.answer(&call).await {
            return Ok(answer.into_response());
        }
        self.connections.reset(&call.client);
        // Whatever is written now is what breaks the connection.
        Ok(Response::default())
    }
}

impl Front {
    /// The answer to `call`; `None` where the connection is to be reset.
    async fn answer(&self, call: &Call) -> Option<Answer> {
        if !self.knows_sender(call) {
            return Some(self.unauthenticated());
        }
        let operation = match self.provider {
            Provider::Stripe => stripe::operation(call),
            Provider::Razorpay => razorpay::operation(call),
        };
        let Some(operation) = operation else {
            return Some(self.unknown_path(call));
        };
        self.shared.count(operation);
        let fault = self.shared.faults().take(operation);
        match fault {
            Some(Fault::RateLimited) => return Some(self.rate_limited()),
            Some(Fault::ResetBefore) => return None,
            Some(Fault::BadGatewayBefore) => return Some(Answer::bad_gateway()),
            Some(
                Fault::ErrorBefore
                | Fault::ErrorAfter
                | Fault::HangBefore
                | Fault::HangAfter
                | Fault::ResetAfter
                | Fault::MalformedAnswer
                | Fault::BadGatewayAfter
                | Fault::Slow(_),
            )
            | None => {}
        }
        let key = match self.provider {
            Provider::Stripe => stripe::key(call),
            Provider::Razorpay => match razorpay::key(call, operation) {
                Ok(key) => key,
                Err(refused) => return Some(refused),
            },
        };
        match key.map(|key| self.keys().claim(key, &call.path, &call.body)) {
            None => self.execute(call, None, fault).await,
            Some(Claim::First(slot)) => self.execute(call, Some(slot), fault).await,
            Some(Claim::Repeat(answer)) => {
                spoil(answer.with_header("idempotent-replayed", "true"), aftermath(fault)).await
            }
            Some(Claim::Running) => Some(self.key_in_use()),
            Some(Claim::OtherPath) => Some(self.key_misused("endpoint")),
            Some(Claim::OtherBody) => Some(self.key_misused("parameters")),
        }
    }

    /// Does what the call asks for, and remembers the answer under its key.
    async fn execute(
        &self,
        call: &Call,
        slot: Option<Slot<'_>>,
        fault: Option<Fault>,
    ) -> Option<Answer> {
        if fault == Some(Fault::HangBefore) {
            self.connections.left(&call.client).await;
            return None;
        }
        if let Some(Fault::Slow(delay)) = fault {
            sleep(delay).await;
        }
        let mut answer = match (fault, self.provider) {
            (Some(Fault::ErrorBefore), _) => self.internal_error(),
            (_, Provider::Stripe) => {
                self.shared.change(|world| stripe::execute(world, &self.shared.post, call))
            }
            (_, Provider::Razorpay) => {
                self.shared.change(|world| razorpay::execute(&mut world.razorpay, call))
            }
        };
        if fault == Some(Fault::ErrorAfter) && answer.executed {
            answer = self.internal_error();
        }
        let kept = match self.provider {
            Provider::Stripe => answer.executed,
            // Nothing says that Razorpay keeps failures, and its guides say to retry them.
            Provider::Razorpay => answer.status.is_success(),
        };
        if let Some(slot) = slot.filter(|_| kept) {
            slot.keep(answer.clone());
        }
        spoil(answer, aftermath(fault)).await
    }

    fn keys(&self) -> &super::keys::Keys {
        match self.provider {
            Provider::Stripe => &self.shared.stripe_keys,
            Provider::Razorpay => &self.shared.razorpay_keys,
        }
    }

    fn knows_sender(&self, call: &Call) -> bool {
        let config = &self.shared.config;
        match self.provider {
            Provider::Stripe => stripe::knows_sender(config, call),
            Provider::Razorpay => razorpay::knows_sender(config, call),
        }
    }

    fn unauthenticated(&self) -> Answer {
        match self.provider {
            Provider::Stripe => stripe::unauthenticated(),
            Provider::Razorpay => razorpay::unauthenticated(),
        }
    }

    fn unknown_path(&self, call: &Call) -> Answer {
        match self.provider {
            Provider::Stripe => stripe::unknown_path(call),
            Provider::Razorpay => razorpay::unknown_path(),
        }
    }

    fn rate_limited(&self) -> Answer {
        let answer = match self.provider {
            Provider::Stripe => stripe::rate_limited(),
            Provider::Razorpay => razorpay::rate_limited(),
        };
        answer.with_header("retry-after", "1")
    }

    fn internal_error(&self) -> Answer {
        match self.provider {
            Provider::Stripe => stripe::internal_error(),
            Provider::Razorpay => razorpay::internal_error(),
        }
    }

    fn key_in_use(&self) -> Answer {
        match self.provider {
            Provider::Stripe => stripe::key_in_use(),
            Provider::Razorpay => razorpay::key_in_use(),
        }
    }

    fn key_misused(&self, other: &str) -> Answer {
        match self.provider {
            Provider::Stripe => stripe::key_misused(other),
            Provider::Razorpay => razorpay::key_misused(),
        }
    }
}

fn aftermath(fault: Option<Fault>) -> Aftermath {
    match fault {
        Some(Fault::ErrorAfter) => Aftermath::Error,
        Some(Fault::HangAfter) => Aftermath::Hang,
        Some(Fault::ResetAfter) => Aftermath::Reset,
        Some(Fault::MalformedAnswer) => Aftermath::Malformed,
        Some(Fault::BadGatewayAfter) => Aftermath::BadGateway,
        Some(
            Fault::ErrorBefore
            | Fault::HangBefore
            | Fault::ResetBefore
            | Fault::RateLimited
            | Fault::BadGatewayBefore
            | Fault::Slow(_),
        )
        | None => Aftermath::None,
    }
}

/// What the client sees of an answer; `None` where it sees its connection reset.
async fn spoil(answer: Answer, aftermath: Aftermath) -> Option<Answer> {
    match aftermath {
        Aftermath::None | Aftermath::Error => Some(answer),
        Aftermath::Hang => pending().await,
        Aftermath::Reset => None,
        Aftermath::Malformed => Some(answer.broken_off()),
        Aftermath::BadGateway => Some(Answer::bad_gateway()),
    }
}
