//! The HTTP API: every slice's endpoints with their state, and the document that describes them.

use std::{collections::HashMap, error::Error, marker::PhantomData, thread};

use futures_util::FutureExt;
use hyper::body::Bytes;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, Response, Route,
    endpoint::{BoxEndpoint, make_sync},
    get,
    http::{Method, uri::Scheme},
};
use poem_openapi::{
    OpenApi, OpenApiService,
    registry::{MetaApi, Registry},
};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;

use crate::{
    boot::{Ending, Process, descriptors},
    catalog::api::{CatalogApi, SalesApi},
    checkout::api::{
        CheckoutApi, DisputesApi, FindingsApi, PaymentsApi, QuarantineApi, RefundsApi, ShippingApi,
    },
    config,
    context::Context,
    identity::{
        AccountsApi, AddressesApi, Callers, GuestTokens, Hasher, KeyError, KeyRing, SessionsApi,
        Tokens,
    },
    inventory::api::StockApi,
    orders::api::OrdersApi,
    payments::api::WebhooksApi,
    policies::POLICIES,
    privacy::api::PrivacyApi,
    web::{
        Admission, Document, Edge, Limits, Origins, Patience, TrustedProxies, document,
        limits::{InvalidUrl, Limiter},
        policy::PolicyError,
        server,
    },
};

const DOCUMENT_PATH: &str = "/v1/openapi.json";
const DOCS_PATH: &str = "/docs";
const KEYS_PATH: &str = "/.well-known/jwks.json";

/// How long others may keep the public keys. A new key is published for longer than that before it signs.
const KEYS_CACHED: &str = "public, max-age=300";

/// The page brings its script and its style with it, and may load nothing else from anywhere.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

type Apis = (
    SessionsApi,
    AccountsApi,
    AddressesApi,
    PrivacyApi,
    CatalogApi,
    SalesApi,
    StockApi,
    CheckoutApi,
    PaymentsApi,
    DisputesApi,
    RefundsApi,
    ShippingApi,
    QuarantineApi,
    FindingsApi,
    OrdersApi,
    WebhooksApi,
);

/// Why the API cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Policies(#[from] PolicyError),
    #[error("REDIS_URL cannot be used: {0}")]
    Redis(#[from] InvalidUrl),
}

/// Answers the HTTP API until the process is told to stop.
pub async fn serve(process: Process, settings: config::Api) -> Result<Ending, Box<dyn Error>> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("LISTEN cannot be listened on: {error}"))?;
    let scheme = scheme(&settings);
    let app = app(process.cx, &settings)?;
    tracing::info!(address = %listener.local_addr()?, "answering");
    let limits = server::Limits::default();
    let descriptors = descriptors::allow(limits.descriptors());
    let limits = limits.within(descriptors);
    tracing::info!(descriptors, connections = limits.connections, "connections at a time");
    Ok(server::serve(listener, app, limits, scheme, process.shutdown).await.into())
}

/// What clients speak to whatever ends TLS before us.
pub fn scheme(settings: &config::Api) -> Scheme {
    match settings.common.environment {
        config::Environment::Production => Scheme::HTTPS,
        config::Environment::Development => Scheme::HTTP,
    }
}

/// The whole API behind the edge. Starts the tasks that some of it consists of.
pub fn app(
    cx: Context,
    settings: &config::Api,
) -> Result<impl Endpoint<Output = Response> + 'static, AssemblyError> {
    let tokens = Tokens::new(KeyRing::from_seeds(settings.token_keys.expose())?);
    let guests = GuestTokens::from_seeds(settings.guest_token_keys.expose())?;
    let keys = published_keys(&tokens);
    let callers = Callers::new(cx.db.clone(), tokens, guests);
    let limits = limits(settings, callers.clone())?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let hasher = Hasher::for_cores(cores);
    let apis: Apis = (
        SessionsApi::new(cx.clone(), callers.clone(), hasher.clone()),
        AccountsApi::new(cx.clone(), hasher.clone()),
        AddressesApi::new(cx.clone()),
        PrivacyApi::new(cx.clone(), callers.clone(), hasher),
        CatalogApi::new(cx.clone()),
        SalesApi::new(cx.clone()),
        StockApi::new(cx.clone()),
        CheckoutApi::new(cx.clone()),
        PaymentsApi::new(cx.clone()),
        DisputesApi::new(cx.clone()),
        RefundsApi::new(cx.clone()),
        ShippingApi::new(cx.clone()),
        QuarantineApi::new(cx.clone()),
        FindingsApi::new(cx.clone()),
        OrdersApi::new(cx.clone()),
        WebhooksApi::new(cx),
    );

    let json = openapi();
    let document = Document::parse(&json, &[DOCUMENT_PATH, DOCS_PATH, KEYS_PATH], POLICIES)?;
    let docs = docs(&json);
    let json = Bytes::from(json);
    let described =
        make_sync(move |_| Response::builder().content_type("application/json").body(json.clone()));
    let routes = Route::new()
        .at(DOCUMENT_PATH, get(described))
        .at(DOCS_PATH, get(docs))
        .at(KEYS_PATH, get(keys))
        .nest("/", service(apis).data(callers))
        .into_endpoint()
        .map_to_response();
    let is_secure = scheme(settings) == Scheme::HTTPS;
    Ok(Edge::new(routes, document, Patience::default())
        .trusting(Origins::new(settings.allowed_origins.clone(), is_secure))
        .limited(limits)
        .admitting(Admission::new(settings.concurrency)))
}

/// The limits of what one client may use.
fn limits(settings: &config::Api, callers: Callers) -> Result<Limits, InvalidUrl> {
    let common = &settings.common;
    let proxies = TrustedProxies(settings.trusted_proxies);
    let prove = move |token: String| {
        let callers = callers.clone();
        async move { callers.prove(&token).await }.boxed()
    };
    let redis_url = common.redis_url.expose_secret();
    let namespace = &common.queue_namespace;
    let limiter = Limiter::new(redis_url, namespace, settings.limits_wait)?;
    Ok(Limits::new(limiter, settings.limits, proxies, Box::new(prove)))
}

/// The public keys by which others can check our access tokens.
fn published_keys(tokens: &Tokens) -> impl Endpoint<Output = Response> + 'static {
    let keys =
        serde_json::to_string(tokens.keys().published()).expect("public keys are plain JSON");
    make_sync(move |_| {
        Response::builder()
            .content_type("application/jwk-set+json")
            .header("cache-control", KEYS_CACHED)
            .body(keys.clone())
    })
}

/// The OpenAPI document of the whole API.
pub fn openapi() -> String {
    let json = service(Described::<Apis>(PhantomData)).spec();
    document::complete(&json).expect("the framework writes JSON")
}

fn service<T: OpenApi>(apis: T) -> OpenApiService<T, ()> {
    OpenApiService::new(apis, "Holdfast", env!("CARGO_PKG_VERSION"))
        .summary("The order backend of a shop")
        .server("/")
}

/// The page on which the API can be tried.
fn docs(document: &str) -> impl Endpoint<Output = Response> + 'static {
    let service = service(Described::<Apis>(PhantomData));
    // The page holds the document as the framework wrote it.
    // One copy for all who read it, however slowly.
    let page = Bytes::from(service.swagger_ui_html().replacen(&service.spec(), document, 1));
    make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header("content-security-policy", DOCS_POLICY)
            .body(page.clone())
    })
}

/// Endpoints that can be described and not called, so that describing them takes no database.
struct Described<T>(PhantomData<T>);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, _routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_operation_has_a_name_and_its_failures() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();

        let paths = document["paths"].as_object().unwrap();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["operationId"].is_string(), "{method} {path}");
                let content = &operation["responses"]["default"]["content"];
                assert!(content["application/problem+json"].is_object(), "{method} {path}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_shows_the_document_and_loads_nothing_from_elsewhere() {
        let json = openapi();

        let response = docs(&json).get_response(poem::Request::default()).await;

        let policy = response.header("content-security-policy").unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"));
        let page = response.into_body().into_string().await.unwrap();
        assert!(page.contains(&json));
        assert!(!page.contains("<script src") && !page.contains("<link "));
    }
}
