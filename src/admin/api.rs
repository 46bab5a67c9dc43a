//! The JSON under `/api`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::AdminState;
use super::reloads::ReloadReport;
use crate::config::Config;
use crate::domain::{EngineKind, Gauge, ModelSpec, Moment};
use crate::routing::describe;
use crate::state::{Adapters, Endpoint};

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
    /// As configured, or as recognised where that is left to us.
    engine: EngineKind,
    weight: u32,
    in_flight: u32,
    sent: u64,
    failed: u64,
    /// Milliseconds for which it stays put aside; 0 when it is not.
    aside_ms: u64,
    /// Age of what the engine told, in milliseconds; null before the first reading.
    age_ms: Option<u64>,
    /// Everything that is known, by name. What is not known, or too old, is not there.
    signals: BTreeMap<&'static str, Signal>,
    /// LoRA adapters at work, where the engine tells and a strategy needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_adapters: Option<ActiveAdapters>,
}

/// One number.
#[derive(Debug, Serialize)]
struct Signal {
    value: f64,
    unit: &'static str,
    /// `engine`: told by it. `window`: from what its counters gained lately. `ours`: counted or measured here.
    origin: &'static str,
    /// Milliseconds since it was read; what is ours is of now.
    age_ms: u64,
}

#[derive(Debug, Serialize)]
struct ActiveAdapters {
    running: Vec<String>,
    waiting: Vec<String>,
}

impl From<&Adapters> for ActiveAdapters {
    fn from(adapters: &Adapters) -> Self {
        Self { running: adapters.running.clone(), waiting: adapters.waiting.clone() }
    }
}

pub(super) async fn endpoints(State(state): State<Arc<AdminState>>) -> Json<Endpoints> {
    let (snapshot, now) = (state.reader.load(), state.clock.now());
    let stale_after = state.core.load().policy.stale_after;
    let endpoints = snapshot.endpoints().iter().map(|endpoint| row(endpoint, now, stale_after)).collect();
    Json(Endpoints { version: snapshot.version(), endpoints })
}

fn row(endpoint: &Endpoint, now: Moment, stale_after: Duration) -> EndpointRow {
    let (spec, live) = (&endpoint.spec, &endpoint.live);
    let adapters = live.signals.adapters().filter(|_| live.signals.is_fresh(now, stale_after));
    EndpointRow {
        address: spec.address,
        name: spec.name.clone(),
        models: spec.models.clone(),
        engine: live.signals.engine().filter(|_| spec.engine == EngineKind::Auto).unwrap_or(spec.engine),
        weight: spec.weight,
        in_flight: live.ours.in_flight(),
        sent: live.ours.sent(),
        failed: live.health.failed(),
        aside_ms: millis(live.health.aside_until() - now),
        age_ms: live.signals.age(now).map(millis),
        signals: signals(endpoint, now, stale_after),
        active_adapters: adapters.as_deref().map(ActiveAdapters::from),
    }
}

fn signals(endpoint: &Endpoint, now: Moment, stale_after: Duration) -> BTreeMap<&'static str, Signal> {
    let live = &endpoint.live;
    let age_ms = live.signals.age(now).map_or(0, millis);
    let told = Gauge::ALL.into_iter().filter_map(|gauge| {
        let value = live.signals.gauge(gauge, now, stale_after)?;
        Some((gauge.name(), Signal { value, unit: gauge.unit(), origin: gauge.origin().name(), age_ms }))
    });
    let outcomes = live.measured.outcomes(now);
    let ours = [
        ("in_flight", "requests", Some(f64::from(live.ours.in_flight()))),
        ("requests", "requests", Some(live.requests(now, stale_after).0)),
        ("kv_usage_now", "share", live.kv_usage(now, stale_after)),
        ("prefill_tokens", "tokens", Some(live.ours.prefill_tokens() as f64)),
        ("tokens", "tokens", Some(live.ours.tokens() as f64)),
        ("busy_share", "share", Some(live.ours.busy_share(now))),
        ("own_ttft_mean", "seconds", live.measured.ttft_mean(now)),
        ("own_ttft_p95", "seconds", live.measured.ttft_quantile(0.95, now)),
        ("own_answered", "requests in a minute", Some(outcomes.answered as f64)),
        ("own_failed", "requests in a minute", Some(outcomes.failed as f64)),
        ("own_prompt_tokens", "tokens in a minute", Some(outcomes.prompt_tokens as f64)),
        ("own_output_tokens", "tokens in a minute", Some(outcomes.output_tokens as f64)),
    ];
    let ours = ours
        .into_iter()
        .filter_map(|(name, unit, value)| Some((name, Signal { value: value?, unit, origin: "ours", age_ms: 0 })));
    told.chain(ours).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `/api/config`: what is in effect, and how reading it again went.
#[derive(Debug, Serialize)]
pub(super) struct EffectiveConfig {
    #[serde(flatten)]
    config: Arc<Config>,
    reload: ReloadReport,
}

pub(super) async fn config(State(state): State<Arc<AdminState>>) -> Json<EffectiveConfig> {
    Json(EffectiveConfig { config: Arc::clone(&state.core.load().config), reload: state.reloads.report() })
}

pub(super) async fn strategies(State(state): State<Arc<AdminState>>) -> Json<Vec<describe::Description>> {
    Json(describe::describe(&state.core.load().strategies))
}
