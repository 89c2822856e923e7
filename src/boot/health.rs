//! The health port: `/livez` (restart me?), `/readyz` (send me work?), `/metrics`.

use std::{
    error::Error,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route, endpoint::make_sync, get,
    http::StatusCode,
};
use sqlx::PgPool;
use tokio::time::interval;

use super::readiness::Readiness;

/// From a read out of memory to the longest that a request may take.
const SECONDS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    15.0,
];

/// Sizes of slices: from one to the largest.
const ORDERS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// How often samples that nobody has scraped are put into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Whether a process should be left alone. Unless its work says otherwise, it is alive as long as
/// it answers.
#[derive(Clone, Default)]
pub struct Liveness(Arc<OnceLock<Box<dyn Fn() -> bool + Send + Sync>>>);

impl Liveness {
    /// Lets the work itself say whether it goes on. Only the first call counts.
    pub fn ask(&self, is_alive: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(is_alive));
    }

    fn is_alive(&self) -> bool {
        self.0.get().is_none_or(|is_alive| is_alive())
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Liveness").field(&self.is_alive()).finish()
    }
}

/// Starts to collect metrics, once per process.
pub(super) fn record_metrics() -> Result<PrometheusHandle, Box<dyn Error>> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_orders".to_owned()), &ORDERS)?
        .install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut clock = interval(UPKEEP_EVERY);
        loop {
            clock.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

pub(super) fn app(
    liveness: Liveness,
    readiness: Readiness,
    metrics: PrometheusHandle,
    db: PgPool,
) -> impl Endpoint<Output = Response> {
    let livez = make_sync(move |_| {
        if liveness.is_alive() {
            return answer(StatusCode::OK, "alive");
        }
        answer(StatusCode::SERVICE_UNAVAILABLE, "work waits and none is done")
    });
    let readyz = make_sync(move |_| match readiness.obstacle() {
        None => answer(StatusCode::OK, "ready"),
        Some(obstacle) => answer(StatusCode::SERVICE_UNAVAILABLE, obstacle.to_string()),
    });
    let metrics = make_sync(move |_| {
        metrics::gauge!("database_connections", "state" => "open").set(db.size());
        metrics::gauge!("database_connections", "state" => "idle")
            .set(u32::try_from(db.num_idle()).unwrap_or(u32::MAX));
        answer(StatusCode::OK, metrics.render())
    });
    Route::new()
        .at("/livez", get(livez))
        .at("/readyz", get(readyz))
        .at("/metrics", get(metrics))
        .into_endpoint()
        .map_to_response()
}

fn answer(status: StatusCode, text: impl Into<String>) -> Response {
    text.into().with_status(status).with_content_type("text/plain; version=0.0.4").into_response()
}
