//! The JSON under `/api`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::AdminState;
use crate::config::Config;
use crate::domain::{EngineKind, Gauge, ModelSpec, Moment};
use crate::routing::describe;
use crate::state::Endpoint;

/// `/api/endpoints`.
#[derive(Debug, Serialize)]
pub(super) struct Endpoints {
    version: u64,
    endpoints: Vec<EndpointRow>,
}

#[derive(Debug, Serialize)]
struct EndpointRow {
    address: SocketAddr,
    name: String,
    /// Empty when it takes any model.
    models: Vec<ModelSpec>,
    engine: EngineKind,
    weight: u32,
    in_flight: u32,
    sent: u64,
    failed: u64,
    /// Milliseconds for which it stays put aside; 0 when it is not.
    aside_ms: u64,
    gauges: Gauges,
    /// Age of the gauges in milliseconds; null before the first reading.
    age_ms: Option<u64>,
}

/// Null where the engine did not say, or too long ago.
#[derive(Debug, Serialize)]
struct Gauges {
    running: Option<f64>,
    waiting: Option<f64>,
    kv_usage: Option<f64>,
}

pub(super) async fn endpoints(State(state): State<Arc<AdminState>>) -> Json<Endpoints> {
    let (snapshot, now) = (state.reader.load(), state.clock.now());
    let endpoints = snapshot.endpoints().iter().map(|endpoint| row(endpoint, now, state.stale_after)).collect();
    Json(Endpoints { version: snapshot.version(), endpoints })
}

fn row(endpoint: &Endpoint, now: Moment, stale_after: Duration) -> EndpointRow {
    let (spec, live) = (&endpoint.spec, &endpoint.live);
    let gauge = |gauge| live.signals.gauge(gauge, now, stale_after);
    EndpointRow {
        address: spec.address,
        name: spec.name.clone(),
        models: spec.models.clone(),
        engine: spec.engine,
        weight: spec.weight,
        in_flight: live.ours.in_flight(),
        sent: live.ours.sent(),
        failed: live.health.failed(),
        aside_ms: millis(live.health.aside_until() - now),
        gauges: Gauges {
            running: gauge(Gauge::Running),
            waiting: gauge(Gauge::Waiting),
            kv_usage: gauge(Gauge::KvUsage),
        },
        age_ms: live.signals.age(now).map(millis),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn config(State(state): State<Arc<AdminState>>) -> Json<Arc<Config>> {
    Json(Arc::clone(&state.config))
}

pub(super) async fn strategies(State(state): State<Arc<AdminState>>) -> Json<Vec<describe::Description>> {
    Json(state.strategies.clone())
}
