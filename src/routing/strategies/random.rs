//! Any endpoint, each with the same chance: the baseline.

use std::sync::Arc;

use crate::routing::{About, Built, Candidates, Decision, Registration, RequestView, Router, Trace};

pub(super) const REGISTRATION: Registration = Registration {
    name: "random",
    aliases: &[],
    summary: "any endpoint, each with the same chance",
    about: About {
        purpose: "The baseline to compare others with.",
        formula: "Every endpoint with the same probability.",
        missing: "It reads nothing.",
        source: "AIBrix `random`.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Router(Arc::new(Random)))
    },
};

#[derive(Debug)]
struct Random;

impl Router for Random {
    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let position = request.rng().usize(..candidates.len());
        Decision::Send(Arc::clone(candidates.at(position)))
    }
}
