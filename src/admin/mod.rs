//! The admin port: health, metrics, the API, and a page for people. It runs on the cold side and only reads.

mod api;
mod body;
mod decisions;
mod readiness;
mod reloads;
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::domain::Clock;
use crate::exchange::CoreReader;
use crate::state::Reader;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::families;

use server::Connections;

pub use readiness::{Condition, Readiness, Report};
pub use reloads::ReloadStatus;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Dry runs at once.
pub const EXPLAINS_MAX: usize = 4;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Endpoints.
    pub reader: Reader,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Named conditions.
    pub readiness: Arc<Readiness>,
    /// The clock that endpoint numbers are stamped by.
    pub clock: Clock,
    /// What requests are decided by, the configuration in effect included.
    pub core: CoreReader,
    /// How reading the configuration again went.
    pub reloads: Arc<ReloadStatus>,
    /// Turns for requests that have a body.
    pub explains: Arc<Semaphore>,
}

/// Serves the admin port until `cancel` is cancelled.
pub async fn serve(listener: TcpListener, state: AdminState, cancel: CancellationToken) {
    let connections = Arc::<Connections>::default();
    let [open, crowded_out] = [Arc::clone(&connections), Arc::clone(&connections)];
    state.metrics.watch(families::ADMIN_CONNECTIONS, &[], move || open.count() as f64);
    state.metrics.watch(families::ADMIN_CROWDED_OUT, &[], move || crowded_out.crowded_out.load(Relaxed) as f64);
    server::serve(listener, router(state), connections, cancel).await;
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/endpoints", get(api::endpoints))
        .route("/api/config", get(api::config))
        .route("/api/strategies", get(api::strategies))
        .route("/api/decisions", get(decisions::decisions))
        .route("/api/explain", post(decisions::explain))
        .fallback(unknown)
        .with_state(Arc::new(state))
}

async fn readyz(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    let report = state.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

/// The text is the same either way; a reader that does not ask for `OpenMetrics` finds it close enough to the older
/// format, and a browser shows it.
async fn metrics(State(state): State<Arc<AdminState>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = if accept.contains("application/openmetrics-text") { OPEN_METRICS } else { PLAIN };
    ([(header::CONTENT_TYPE, kind)], state.metrics.encode())
}

async fn unknown(uri: Uri) -> impl IntoResponse {
    let message = format!("there is nothing at \"{}\"", uri.path());
    (StatusCode::NOT_FOUND, Json(json!({ "error": { "message": message, "code": "not_found" } })))
}

#[cfg(test)]
mod tests;
