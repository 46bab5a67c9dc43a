//! Writing one number per candidate. One file a scorer.

mod active_requests;
mod busy_time;
mod by_prefix;
mod first_token;
mod kv_cache;
mod latency;
mod lora;
mod open_requests;
mod outstanding_tokens;
mod recent;
mod recent_tokens;
mod spill;
#[cfg(test)]
mod tests;
mod usage;
mod utilization;

use std::fmt::Debug;

use smallvec::SmallVec;

use crate::domain::{EndpointId, GaugeSet};
use crate::state::Endpoint;

use super::{AnswerNeeds, Candidates, Expectation, Needs, Pass, RequestView, ResponseHeaders, Trace};

pub use active_requests::ActiveRequests;
pub use busy_time::BusyTime;
pub(super) use by_prefix::ByPrefix;
pub use first_token::FirstToken;
pub use kv_cache::KvCache;
pub use latency::ExpectedLatency;
pub use lora::{Holding, LoraAdapter};
pub use open_requests::OpenRequests;
pub use outstanding_tokens::OutstandingTokens;
pub use recent_tokens::RecentTokens;
pub use spill::{Levels, Spill};
pub use usage::{Usage, UsageWeights};
pub use utilization::Utilization;

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
    /// In the scorer's unit; never NaN, and infinite only in [`Score::UNKNOWN`].
    pub value: f64,
    /// False where an input was missing and the scorer used its stated substitute.
    pub complete: bool,
}

impl Score {
    /// What is needed for a number is missing. Whoever compares candidates takes such a one as average.
    pub const UNKNOWN: Self = Self { value: f64::INFINITY, complete: false };

    /// A number that nothing was missing for.
    pub const fn of(value: f64) -> Self {
        Self { value, complete: true }
    }

    /// Whether there is a number.
    pub const fn is_known(self) -> bool {
        self.value.is_finite()
    }
}

/// Numbers, one for each candidate and in their order; up to 64 without allocation.
pub type Scores = SmallVec<[Score; 64]>;

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

    /// The request headers that it reads, in lower case.
    fn headers(&self) -> Vec<Box<str>> {
        Vec::new()
    }

    /// What it measures of answers.
    fn answers(&self) -> AnswerNeeds {
        AnswerNeeds::default()
    }

    /// Whether equal numbers leave it to the open requests; false where the number already says as much.
    fn ties_to_open_requests(&self) -> bool {
        true
    }

    /// What it means that it has no number for any candidate.
    fn pass(&self) -> Pass {
        Pass::Missing("no endpoint tells what it goes by")
    }

    /// All that it reads, of engines, answers and the request.
    fn needs(&self) -> Needs {
        Needs { headers: self.headers(), answers: self.answers(), ..Needs::gauges(self.gauges()) }
    }

    /// The number of one candidate.
    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score;

    /// The numbers of all candidates; for a scorer whose number depends on the others as well, or that finds out something
    /// of the request first. What there is to say of them as a whole goes to `trace`.
    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, _trace: &mut Trace) {
        scores.extend(candidates.iter().map(|endpoint| self.score(request, endpoint)));
    }

    /// A request was sent to an endpoint, by a choice that this number was a part of. `expected` is what the parts before
    /// this one expect of it: they share that, so only the first of them books it.
    fn on_sent(&self, _request: &RequestView<'_>, _endpoint: &Endpoint, _expected: &mut Option<Expectation>) {}

    /// An endpoint left: drop what is kept for it. Its slot may be given out again.
    fn on_endpoint_removed(&self, _id: EndpointId) {}

    /// Headers for the client, once it is known who serves the request; whether or not this scorer decided that.
    fn response_headers(&self, _request: &RequestView<'_>, _served: &Endpoint, _headers: &mut ResponseHeaders) {}
}
