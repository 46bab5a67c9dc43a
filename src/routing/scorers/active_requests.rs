//! Requests that this process has in flight at an endpoint.

use crate::routing::{Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Our own requests in flight per unit of weight, the new one included; nothing that an engine says is read.
#[derive(Debug, Clone, Copy)]
pub struct ActiveRequests {
    /// Up to so many requests in flight per unit of weight, an endpoint counts as idle.
    pub idle: u32,
}

impl Scorer for ActiveRequests {
    fn name(&self) -> &'static str {
        "active-requests"
    }

    fn unit(&self) -> &'static str {
        "requests per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn score(&self, _: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let in_flight = f64::from(endpoint.live.ours.in_flight());
        if in_flight <= f64::from(self.idle) * endpoint.weight() {
            return Score::of(1.0 / endpoint.weight());
        }
        Score::of((in_flight + 1.0) / endpoint.weight())
    }
}
