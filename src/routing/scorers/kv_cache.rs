//! The use of an engine's KV cache.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Share of the KV cache in use: as the engine said last, and what was sent and ended since.
///
/// An engine that does not tell how many tokens its cache holds is taken to hold the assumed number.
#[derive(Debug, Clone, Copy)]
pub struct KvCache {
    /// Tokens that a cache of unknown capacity is taken to hold; above 0.
    pub assumed_capacity: f64,
}

impl KvCache {
    /// The share in use now, and whether the capacity is the engine's own word; `None` without a fresh reading.
    pub(super) fn usage(self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<(f64, bool)> {
        let live = &endpoint.live;
        let usage = live.kv_usage(request.now, request.stale_after)?;
        let capacity = live.signals.gauge(Gauge::KvCapacity, request.now, request.stale_after);
        if capacity.is_some_and(|tokens| tokens > 0.0) {
            return Some((usage, true));
        }
        let gained = live.ours.tokens() as f64 - live.signals.mark().tokens as f64;
        Some(((usage + gained / self.assumed_capacity).max(0.0), false))
    }
}

impl Scorer for KvCache {
    fn name(&self) -> &'static str {
        "kv-cache"
    }

    fn unit(&self) -> &'static str {
        "share"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        GaugeSet::of(&[Gauge::KvUsage, Gauge::KvCapacity, Gauge::Running, Gauge::Waiting])
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        self.usage(request, endpoint).map_or(Score::UNKNOWN, |(value, complete)| Score { value, complete })
    }
}
