//! How much of its time an endpoint works, and how much it has yet to do.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Busy share times open requests per weight, the new one included.
///
/// The share is what the engine calls its utilisation; without that, the part of the last minute in which we had
/// something in flight there. A share is slow to follow: times the open requests, a burst does not pile up on whoever
/// was idle a while ago.
#[derive(Debug, Clone, Copy)]
pub struct BusyTime;

/// The least share that counts, so that idle endpoints still differ by their open requests.
const SHARE_MIN: f64 = 0.05;

impl Scorer for BusyTime {
    fn name(&self) -> &'static str {
        "busy-time"
    }

    fn unit(&self) -> &'static str {
        "busy share × requests per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::Utilization]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let told = endpoint.live.signals.gauge(Gauge::Utilization, request.now, request.stale_after);
        let share = told.unwrap_or_else(|| endpoint.live.ours.busy_share(request.now));
        let open = OpenRequests.score(request, endpoint);
        Score { value: share.clamp(SHARE_MIN, 1.0) * open.value, complete: told.is_some() }
    }
}
