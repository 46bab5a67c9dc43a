//! Smooth weighted round robin.
//!
//! Each endpoint has a *pass*, the virtual time at which its next turn is due; the lowest goes, and its pass moves
//! on by a stride in inverse proportion to its weight (stride scheduling, Waldspurger and Weihl, 1995). With
//! weights 5, 1, 1 that spreads b and c among the turns of a.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::EndpointId;
use crate::routing::picker::lowest;
use crate::routing::{About, Built, Candidates, Decision, Registration, RequestView, Router, Trace};
use crate::state::{Endpoint, SlotTable};

pub(super) const REGISTRATION: Registration = Registration {
    name: "round-robin",
    summary: "each endpoint in turn, in proportion to its weight, without bursts",
    aliases: &[("roundrobin", "the vLLM production stack's `--routing-logic`")],
    about: About {
        purpose: "Requests of equal size on endpoints of known, different capacity.",
        formula: "The endpoint whose turn is due first; a turn comes every 1 / weight of a round.",
        missing: "It reads no signals.",
        source: "Stride scheduling, Waldspurger and Weihl, 1995.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Router(Arc::<RoundRobin>::default()))
    },
};

/// Stride of weight 1; weights go to 1,000.
const STRIDE: u64 = 1_000_000;

#[derive(Debug, Default)]
struct RoundRobin {
    passes: SlotTable<AtomicU64>,
}

impl RoundRobin {
    /// When the endpoint's turn is due; 0 if it never had one.
    fn pass(&self, endpoint: &Endpoint) -> u64 {
        self.passes.get(endpoint.id).map_or(0, |pass| pass.load(Relaxed))
    }

    fn catch_up(&self, endpoint: &Endpoint, to: u64) {
        if let Some(pass) = self.passes.get(endpoint.id) {
            pass.fetch_max(to, Relaxed);
        }
    }

    /// Adds a stride, also when another thread takes a turn at the same time: two turns are two strides.
    fn take_turn(&self, endpoint: &Endpoint) {
        if let Some(pass) = self.passes.get(endpoint.id) {
            pass.fetch_add(stride(endpoint), Relaxed);
        }
    }
}

fn stride(endpoint: &Endpoint) -> u64 {
    (STRIDE / u64::from(endpoint.spec.weight.max(1))).max(1)
}

impl Router for RoundRobin {
    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let mut rng = request.rng();
        // Nobody's pass is ahead of the common virtual time by more than its own stride. Who lags behind that, being
        // new or back from a pause, gets a place within its next stride instead of catching up in a burst.
        let present = candidates.iter().map(|e| self.pass(e).saturating_sub(stride(e))).max().unwrap_or(0);
        for endpoint in candidates.iter().filter(|e| self.pass(e) < present.max(1)) {
            self.catch_up(endpoint, present + 1 + rng.u64(..stride(endpoint)));
        }
        let next = lowest(candidates.iter(), |e| self.pass(e) as f64, &mut rng).unwrap_or_else(|| candidates.at(0));
        self.take_turn(next);
        Decision::Send(Arc::clone(next))
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        if let Some(pass) = self.passes.get(id) {
            pass.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::conformance::{fleet_of, view};

    use super::*;

    fn turns(router: &RoundRobin, fleet: &[Arc<Endpoint>], count: u64) -> Vec<usize> {
        let turn = |seed| {
            let Decision::Send(next) = router.route(&view(seed), Candidates::all(fleet).unwrap(), &mut Trace::off())
            else {
                panic!()
            };
            fleet.iter().position(|endpoint| endpoint.id == next.id).unwrap()
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn equal_endpoints_take_strict_turns() {
        let fleet = fleet_of(&[1, 1, 1]);
        let turns = turns(&RoundRobin::default(), &fleet, 300);
        for round in turns.chunks(3) {
            assert_eq!(round, &turns[..3]);
            assert!([0, 1, 2].iter().all(|at| round.contains(at)));
        }
    }

    #[test]
    fn weights_are_kept_exactly_and_smoothly() {
        let fleet = fleet_of(&[5, 1, 1]);
        let turns = turns(&RoundRobin::default(), &fleet, 700);
        let count = |at| turns.iter().filter(|turn| **turn == at).count();
        assert!((499..=501).contains(&count(0)), "{}", count(0));
        assert!((99..=101).contains(&count(1)), "{}", count(1));
        let longest_run = turns.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(longest_run <= Some(5), "{longest_run:?}");
    }

    #[test]
    fn a_newcomer_does_not_get_a_burst() {
        let fleet = fleet_of(&[1, 1, 1]);
        let router = RoundRobin::default();
        turns(&router, &fleet[..2], 1000);
        let after = turns(&router, &fleet, 30);
        assert!((9..=11).contains(&after.iter().filter(|turn| **turn == 2).count()), "{after:?}");
    }
}
