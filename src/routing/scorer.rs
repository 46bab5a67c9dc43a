//! Writing one number per candidate.

use std::fmt::Debug;

use crate::domain::{Gauge, GaugeSet};
use crate::state::Endpoint;

use super::RequestView;

/// Which end of a scale is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// One candidate's number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// In the scorer's unit; never NaN.
    pub value: f64,
    /// False where an input was missing and the scorer used its stated substitute.
    pub complete: bool,
}

/// Puts a number on a candidate, in a stated unit and direction.
pub trait Scorer: Send + Sync + Debug {
    /// Name in explanations.
    fn name(&self) -> &'static str;

    /// Unit of the number.
    fn unit(&self) -> &'static str;

    /// Which end is better.
    fn prefers(&self) -> Prefer;

    /// The gauges that it reads.
    fn gauges(&self) -> GaugeSet {
        GaugeSet::NONE
    }

    /// The number of one candidate.
    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score;
}

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

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let (open, complete) = endpoint.live.requests(request.now, request.stale_after);
        Score { value: (open + 1.0) / endpoint.weight(), complete }
    }
}
