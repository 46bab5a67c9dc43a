//! Bounded-load rendezvous hashing.
//!
//! Every key ranks all endpoints, each by a hash of its own (highest random weight, Thaler and Ravishankar, 1998), and
//! goes to the first one that is not overloaded (the bound of Mirrokni, Thorup and Zadimoghaddam, 2018). An endpoint
//! that leaves gives up its own keys and no others; every replica ranks alike, with nothing to share.

use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::routing::{Candidates, RequestView};
use crate::state::Endpoint;

/// How unevenly sessions may load the endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Open requests per weight that an endpoint may have, relative to the mean; above 1.
    pub(super) factor: f64,
    /// Open requests per weight below which no endpoint is overloaded, whatever the mean.
    pub(super) slack: f64,
}

/// Who is overloaded, at the moment of one decision.
#[derive(Debug)]
pub(super) struct Loads<'a> {
    candidates: Candidates<'a>,
    /// Open requests by position.
    open: SmallVec<[f64; 64]>,
    /// Requests per unit of weight that an endpoint may have, the new one included.
    allowed: f64,
    slack: f64,
}

impl<'a> Loads<'a> {
    pub(super) fn of(request: &RequestView<'_>, candidates: Candidates<'a>, bound: Bound) -> Self {
        let open: SmallVec<[f64; 64]> =
            candidates.iter().map(|endpoint| endpoint.live.requests(request.now, request.stale_after).0).collect();
        let weights: f64 = candidates.iter().map(|endpoint| endpoint.weight()).sum();
        let allowed = bound.factor * (open.iter().sum::<f64>() + 1.0) / weights;
        Self { candidates, open, allowed, slack: bound.slack }
    }

    /// Whether one more request would be too much for the candidate at `position`.
    pub(super) fn is_overloaded(&self, position: usize) -> bool {
        let Some(open) = self.open.get(position) else { return false };
        let weight = self.candidates.at(position).weight();
        open + 1.0 > (self.allowed * weight).ceil() && *open >= self.slack * weight
    }

    /// The highest ranking endpoint for `key` that is not overloaded, and whether it is the very highest.
    ///
    /// Weights are heeded: an endpoint of weight 2 gets twice as many keys as one of weight 1.
    pub(super) fn ranked(&self, key: &[u8]) -> (&'a Arc<Endpoint>, bool) {
        let seed = xxh3_64(key);
        let (mut first, mut free) = (f64::INFINITY, f64::INFINITY);
        let mut chosen = None;
        for (position, endpoint) in self.candidates.iter().enumerate() {
            let rank = rank(seed, endpoint);
            first = first.min(rank);
            if rank < free && !self.is_overloaded(position) {
                free = rank;
                chosen = Some(endpoint);
            }
        }
        (chosen.unwrap_or_else(|| self.candidates.at(0)), free <= first)
    }
}

/// An endpoint's rank for a key, lowest first: exponentially distributed, the weight being its rate.
fn rank(seed: u64, endpoint: &Endpoint) -> f64 {
    // xxh3 ends in an avalanche, so that neighbouring addresses rank independently.
    let hash = xxh3_64_with_seed(endpoint.address_text().as_bytes(), seed);
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / endpoint.weight()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use crate::domain::{Clock, EndpointId, Work};
    use crate::routing::conformance::{fleet, fleet_of, view};
    use crate::state::Ticket;

    use super::*;

    const BOUND: Bound = Bound { factor: 1.25, slack: 0.0 };

    fn placed(fleet: &[Arc<Endpoint>], keys: u32) -> Vec<EndpointId> {
        let loads = Loads::of(&view(0), Candidates::all(fleet).unwrap(), BOUND);
        (0..keys).map(|key| loads.ranked(format!("session-{key}").as_bytes()).0.id).collect()
    }

    #[test]
    fn neighbouring_addresses_get_equal_shares_and_weights_count() {
        let mut counts: HashMap<EndpointId, u32> = HashMap::new();
        let fleet = fleet_of(&[1, 1, 1, 1, 1, 1, 2]);
        for id in placed(&fleet, 80_000) {
            *counts.entry(id).or_default() += 1;
        }
        for endpoint in &fleet {
            let share = f64::from(counts[&endpoint.id]) / 10_000.0 / endpoint.weight();
            assert!((0.95..=1.05).contains(&share), "{share}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn an_endpoint_that_leaves_moves_only_its_own_sessions(size in 2_usize..30, leaver in 0_usize..30) {
            let fleet = fleet(size);
            let leaver = leaver % size;
            let rest: Vec<_> = fleet.iter().filter(|e| e.id != fleet[leaver].id).cloned().collect();
            let moved = placed(&fleet, 1000).into_iter().zip(placed(&rest, 1000));
            for (before, after) in moved {
                prop_assert!(before == after || before == fleet[leaver].id);
            }
        }

        #[test]
        fn an_endpoint_that_joins_takes_its_share_and_moves_nothing_else(size in 2_usize..30) {
            let fleet = fleet(size + 1);
            let (mut taken, total) = (0, 4000);
            for (before, after) in placed(&fleet[..size], total).into_iter().zip(placed(&fleet, total)) {
                prop_assert!(before == after || after == fleet[size].id);
                taken += u32::from(before != after);
            }
            let share = f64::from(taken) / f64::from(total) * (size + 1) as f64;
            prop_assert!((0.6..=1.4).contains(&share), "{}", share);
        }

        #[test]
        fn no_endpoint_gets_more_than_the_bound_however_few_the_keys(size in 1_usize..20, keys in 1_u32..5) {
            let fleet = fleet(size);
            let mut tickets = Vec::new();
            for at in 0..200_u32 {
                let loads = Loads::of(&view(0), Candidates::all(&fleet).unwrap(), BOUND);
                let (endpoint, _) = loads.ranked(&(at % keys).to_le_bytes());
                tickets.push(Ticket::open(Arc::clone(endpoint), Work::default(), &Clock::start()));
                let most = (1.25 * f64::from(at + 1) / size as f64).ceil();
                prop_assert!(fleet.iter().all(|e| f64::from(e.live.ours.in_flight()) <= most));
            }
        }
    }
}
