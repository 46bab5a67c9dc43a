//! Requests open at an endpoint, ours and others'.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Requests open at an endpoint per unit of weight, the new one included.
///
/// Ours are counted as they come and go. What other senders have there is read off the engine's own running and
/// waiting counts; without a fresh reading it is taken as none.
#[derive(Debug, Clone, Copy)]
pub struct OpenRequests;

impl Scorer for OpenRequests {
    fn name(&self) -> &'static str {
        "open-requests"
    }

    fn unit(&self) -> &'static str {
        "requests per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        GaugeSet::of(&[Gauge::Running, Gauge::Waiting])
    }

    fn ties_to_open_requests(&self) -> bool {
        false
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let (open, complete) = endpoint.live.requests(request.now, request.stale_after);
        Score { value: (open + 1.0) / endpoint.weight(), complete }
    }
}
