//! The work that an endpoint was given lately, in tokens.

use crate::routing::{AnswerNeeds, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// Tokens of the last minute per unit of weight, a prompt token counting as much as its weight says.
///
/// A request is charged with its estimate as it is sent, and with what it really was when the engine reports that.
#[derive(Debug, Clone, Copy)]
pub struct RecentTokens {
    /// Output tokens that a prompt token counts for.
    pub prompt_weight: f64,
    /// What to look at in answers: the estimates stand unless usage is.
    pub answers: AnswerNeeds,
}

impl Scorer for RecentTokens {
    fn name(&self) -> &'static str {
        "recent-tokens"
    }

    fn unit(&self) -> &'static str {
        "weighted tokens a minute per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn answers(&self) -> AnswerNeeds {
        self.answers
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let [prompt, output] = endpoint.live.measured.work(request.now);
        let tokens = self.prompt_weight * prompt as f64 + output as f64;
        Score::of(tokens / endpoint.weight())
    }
}
