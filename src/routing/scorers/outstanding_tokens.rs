//! The work that an endpoint has yet to do for us, in tokens.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{AnswerNeeds, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Prompt tokens not yet prefilled plus expected output tokens, per unit of weight, the new request's included.
///
/// Other senders' requests, which the engine counts but does not size, are taken to be as large as the new one.
#[derive(Debug, Clone, Copy)]
pub struct OutstandingTokens {
    /// What to look at in answers: a prompt counts until its first token is seen, else to the end.
    pub answers: AnswerNeeds,
}

impl Scorer for OutstandingTokens {
    fn name(&self) -> &'static str {
        "outstanding-tokens"
    }

    fn unit(&self) -> &'static str {
        "tokens per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn answers(&self) -> AnswerNeeds {
        self.answers
    }

    fn gauges(&self) -> GaugeSet {
        GaugeSet::of(&[Gauge::Running, Gauge::Waiting])
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let ours = &endpoint.live.ours;
        let (open, complete) = endpoint.live.requests(request.now, request.stale_after);
        let others = open - f64::from(ours.in_flight());
        let own = ours.prefill_tokens() as f64 + ours.output_tokens() as f64;
        let value = own + (others.max(0.0) + 1.0) * request.asked.work.tokens() as f64;
        Score { value: value / endpoint.weight(), complete }
    }
}
