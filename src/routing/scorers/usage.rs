//! Latency, success and cost in one number.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{AnswerNeeds, OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

use super::recent::Recent;

/// How much each of the three counts: the power that it is raised to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsageWeights {
    /// Of the mean time to first token.
    pub latency: f64,
    /// Of the share of requests that succeed.
    pub success: f64,
    /// Of the endpoint's cost.
    pub cost: f64,
}

/// `latency^a × cost^c / success^b`, times open requests per weight, the new one included.
///
/// A product of powers needs no common unit: twice the latency weighs the same whether it is told in seconds or in
/// milliseconds, and whatever the other endpoints' is. All three are of the last minute, to the second.
#[derive(Debug)]
pub struct Usage {
    weights: UsageWeights,
    answers: AnswerNeeds,
    quality: Recent,
}

/// Least cost that counts: what is free is still not infinitely better.
const COST_MIN: f64 = 0.01;
/// Least latency that counts, in seconds.
const LATENCY_MIN: f64 = 0.001;

impl Usage {
    /// With these weights, and looking for this in answers.
    pub fn new(weights: UsageWeights, answers: AnswerNeeds) -> Self {
        Self { weights, answers, quality: Recent::default() }
    }

    /// `None` where no latency is known but counts.
    fn quality(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<f64> {
        let (live, now) = (&endpoint.live, request.now);
        // The engine's word first: it is there for all endpoints or for none, what we saw is there for those we asked.
        let told = live.signals.gauge(Gauge::TtftMean, now, request.stale_after);
        let latency = match told.or_else(|| live.measured.ttft_mean(now)) {
            None if self.weights.latency > 0.0 => return None,
            latency => latency.unwrap_or(1.0).max(LATENCY_MIN),
        };
        let outcomes = live.measured.outcomes(now);
        let success = (outcomes.answered as f64 + 1.0) / ((outcomes.answered + outcomes.failed) as f64 + 1.0);
        let (latency, success) = (latency.powf(self.weights.latency), success.powf(self.weights.success));
        Some(latency * endpoint.spec.cost.max(COST_MIN).powf(self.weights.cost) / success)
    }
}

impl Scorer for Usage {
    fn name(&self) -> &'static str {
        "usage"
    }

    fn unit(&self) -> &'static str {
        "weighted product × requests per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn answers(&self) -> AnswerNeeds {
        self.answers
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::TtftMean]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        match self.quality.get(endpoint, request.now, || self.quality(request, endpoint)) {
            Some(quality) => Score::of(quality * OpenRequests.score(request, endpoint).value),
            None => Score::UNKNOWN,
        }
    }
}
