//! The client that everything in here speaks HTTP with.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client for servers on this machine: plain HTTP, no proxy, and no certificate that it trusts.
///
/// The workspace builds `reqwest` without a TLS provider, and its own `Client::new` panics
/// then; a client that brings its TLS along does not.
pub fn http_client() -> reqwest::ClientBuilder {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks every version that rustls does")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy()
}

/// Asks a server of this machine.
pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    http_client().build()?.get(url).send().await
}
