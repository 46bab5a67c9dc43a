//! The admin port: health, metrics, the API, and a page for people. It runs on the cold side and only reads.

mod api;
mod decisions;
mod readiness;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::Clock;
use crate::exchange::Core;
use crate::routing::describe;
use crate::state::Reader;
use crate::telemetry::Metrics;

pub use readiness::{Condition, Readiness, Report};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long requests under way may take to end once we were told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Endpoints.
    pub reader: Reader,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Named conditions.
    pub readiness: Arc<Readiness>,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// The clock that endpoint numbers are stamped by.
    pub clock: Clock,
    /// Age at which engine numbers are left out.
    pub stale_after: Duration,
    /// What requests are decided by.
    pub core: Arc<Core>,
    /// The strategies.
    pub strategies: Vec<describe::Description>,
}

/// Serves the admin port until `cancel` is cancelled.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: TcpListener, state: AdminState, cancel: CancellationToken) -> io::Result<()> {
    let stop = cancel.clone();
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(cancel.cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
    }
}

fn router(state: AdminState) -> Router {
    let body_bytes_max = state.core.policy.body_bytes_max;
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/endpoints", get(api::endpoints))
        .route("/api/config", get(api::config))
        .route("/api/strategies", get(api::strategies))
        .route("/api/decisions", get(decisions::decisions))
        .route("/api/explain", post(decisions::explain).layer(DefaultBodyLimit::max(body_bytes_max)))
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
