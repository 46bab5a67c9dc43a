//! Any endpoint, with a chance in proportion to its weight.

use std::sync::Arc;

use crate::routing::{About, Built, Candidates, Decision, Registration, RequestView, Router, Trace};

pub(super) const REGISTRATION: Registration = Registration {
    name: "simple-shuffle",
    aliases: &[("weighted-random", "plain words")],
    summary: "any endpoint, with a chance in proportion to its weight",
    about: About {
        purpose: "A baseline for endpoints of known, different capacity.",
        formula: "Every endpoint with a probability of its weight / sum of the weights.",
        missing: "It reads nothing.",
        source: "LiteLLM `simple-shuffle`.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Router(Arc::new(SimpleShuffle)))
    },
};

#[derive(Debug)]
struct SimpleShuffle;

impl Router for SimpleShuffle {
    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let weight = |endpoint: &crate::state::Endpoint| u64::from(endpoint.spec.weight.max(1));
        let total: u64 = candidates.iter().map(|endpoint| weight(endpoint)).sum();
        let mut left = request.rng().u64(..total.max(1));
        let chosen = candidates.iter().find(|endpoint| {
            let is_it = left < weight(endpoint);
            left = left.saturating_sub(weight(endpoint));
            is_it
        });
        Decision::Send(Arc::clone(chosen.unwrap_or_else(|| candidates.at(0))))
    }
}
