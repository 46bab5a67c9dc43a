//! Numbers that follow from what an endpoint has cached of the prompt.

use std::sync::Arc;

use crate::routing::prefix::{Look, Prefixes, Speed};
use crate::routing::{Candidates, Expectation, Needs, Prefer, RequestView, Score, Scorer, Scores, Trace};
use crate::state::Endpoint;

/// A number by the prompt's prefix, which is looked up once for all candidates.
#[derive(Debug)]
pub(in crate::routing) struct ByPrefix {
    name: &'static str,
    unit: &'static str,
    prefers: Prefer,
    number: fn(&Look<'_>, &Endpoint) -> f64,
    prefixes: Arc<Prefixes>,
    speed: Speed,
}

impl ByPrefix {
    /// The share of the prompt's blocks that the endpoint holds or is about to hold.
    pub(in crate::routing) fn matched(prefixes: Arc<Prefixes>, speed: Speed) -> Self {
        let number = |look: &Look<'_>, endpoint: &Endpoint| look.share(endpoint.id);
        let (name, unit, prefers) = ("prefix-match", "share of the prompt", Prefer::Higher);
        Self { name, unit, prefers, number, prefixes, speed }
    }

    /// Seconds of prefill: of what was sent there and is not done, and of what the endpoint does not hold of this
    /// prompt.
    pub(in crate::routing) fn ahead(prefixes: Arc<Prefixes>, speed: Speed) -> Self {
        let number = |look: &Look<'_>, endpoint: &Endpoint| look.wait(endpoint.id) + look.miss(endpoint.id);
        let (name, unit, prefers) = ("prefill-ahead", "seconds", Prefer::Lower);
        Self { name, unit, prefers, number, prefixes, speed }
    }
}

impl Scorer for ByPrefix {
    fn name(&self) -> &'static str {
        self.name
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn prefers(&self) -> Prefer {
        self.prefers
    }

    fn needs(&self) -> Needs {
        self.speed.needs()
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        Score::of((self.number)(&self.prefixes.look(request, self.speed), endpoint))
    }

    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, _: &mut Trace) {
        let look = self.prefixes.compare(request, candidates, self.speed);
        scores.extend(candidates.iter().map(|endpoint| Score::of((self.number)(&look, endpoint))));
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint, expected: &mut Option<Expectation>) {
        expected.get_or_insert_with(|| self.prefixes.send(request, endpoint, self.speed));
    }
}
