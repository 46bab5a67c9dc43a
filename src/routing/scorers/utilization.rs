//! How full an engine is by the tightest of its limits.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

use super::KvCache;

/// The highest of: KV cache in use, open requests of those that fit a batch, and what the engine calls its
/// utilisation, the last moved on in proportion to the requests that came and went since the reading.
#[derive(Debug, Clone, Copy)]
pub struct Utilization {
    /// How the use of the KV cache is judged.
    pub kv: KvCache,
}

impl Scorer for Utilization {
    fn name(&self) -> &'static str {
        "utilization"
    }

    fn unit(&self) -> &'static str {
        "share"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        self.kv.gauges().with(GaugeSet::of(&[Gauge::MaxRunning, Gauge::Utilization]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let live = &endpoint.live;
        let Some(told) = live.signals.fresh(request.now, request.stale_after) else { return Score::UNKNOWN };
        let (open, is_told) = live.requests(request.now, request.stale_after);
        let at_reading = open - f64::from(live.ours.in_flight()) + live.signals.mark().in_flight as f64;

        let cache = self.kv.usage(request, endpoint).map(|(share, _)| share);
        let batch = told.gauge(Gauge::MaxRunning).filter(|most| is_told && *most > 0.0).map(|most| open / most);
        let work = told.gauge(Gauge::Utilization).map(|share| share * (open + 1.0) / (at_reading + 1.0));
        [cache, batch, work].into_iter().flatten().reduce(f64::max).map_or(Score::UNKNOWN, Score::of)
    }
}
