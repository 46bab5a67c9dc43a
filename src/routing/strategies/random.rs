//! Any endpoint, each with the same chance: the baseline.

use std::sync::Arc;

use crate::routing::{Candidates, Decision, Registration, RequestView, Router, Trace};

pub(super) const REGISTRATION: Registration =
    Registration { name: "random", summary: "any endpoint, each with the same chance", build: || Arc::new(Random) };

#[derive(Debug)]
struct Random;

impl Router for Random {
    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let position = request.rng().usize(..candidates.len());
        Decision::Send(Arc::clone(candidates.at(position)))
    }
}
