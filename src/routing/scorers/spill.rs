//! Preferred endpoints first, the next ones when those are full.

use smallvec::SmallVec;

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{Candidates, OpenRequests, Prefer, RequestView, Score, Scorer, Scores, Trace};
use crate::state::Endpoint;

/// What makes an endpoint come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Levels {
    /// Its cost.
    Cost,
    /// The place of its tier in this list; then the number that its tier is, if it is one; then last.
    Tiers(Vec<String>),
}

/// The place of an endpoint's level among those of the candidates, lowest first; who is full comes behind all others.
///
/// Places and not the levels themselves: in a combination, the step from one level to the next must count as much
/// whether a third endpoint is full, or costs a hundred times as much, or not.
#[derive(Debug, Clone)]
pub struct Spill {
    /// What makes the level.
    pub levels: Levels,
    /// Open requests per unit of weight, the new one included, above which an endpoint is full.
    pub limit: f64,
    /// Share of the KV cache in use above which it is full.
    pub kv_limit: f64,
}

/// Of endpoints that are full: above every level.
const FULL: f64 = f64::INFINITY;
/// Of endpoints without a known tier: behind the named and the numbered ones.
const LAST: f64 = f64::MAX;

impl Levels {
    fn level(&self, endpoint: &Endpoint) -> f64 {
        match self {
            Self::Cost => endpoint.spec.cost,
            Self::Tiers(order) => {
                let Some(tier) = &endpoint.spec.tier else { return LAST };
                let place = (0_u32..).zip(order).find(|(_, name)| *name == tier).map(|(place, _)| place);
                place.or_else(|| tier.parse().ok()).map_or(LAST, f64::from)
            }
        }
    }
}

impl Spill {
    /// An endpoint's level, and whether its load was known in full.
    fn level(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> (f64, bool) {
        let load = OpenRequests.score(request, endpoint);
        let usage = endpoint.live.kv_usage(request.now, request.stale_after);
        let is_full = load.value > self.limit || usage.is_some_and(|usage| usage > self.kv_limit);
        (if is_full { FULL } else { self.levels.level(endpoint) }, load.complete)
    }
}

impl Scorer for Spill {
    fn name(&self) -> &'static str {
        match self.levels {
            Levels::Cost => "cost",
            Levels::Tiers(_) => "tier",
        }
    }

    fn unit(&self) -> &'static str {
        match self.levels {
            Levels::Cost => "place by cost, the full ones last",
            Levels::Tiers(_) => "place by tier, the full ones last",
        }
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::KvUsage, Gauge::KvCapacity]))
    }

    /// Of the endpoint by itself, which is the first of one: its place depends on who else there is.
    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        Score { value: 0.0, complete: self.level(request, endpoint).1 }
    }

    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, _: &mut Trace) {
        let levels: SmallVec<[_; 64]> = candidates.iter().map(|endpoint| self.level(request, endpoint)).collect();
        let mut places: SmallVec<[f64; 8]> = SmallVec::new();
        for (level, _) in &levels {
            if let Err(at) = places.binary_search_by(|place| place.total_cmp(level)) {
                places.insert(at, *level);
            }
        }
        scores.extend(levels.iter().map(|(level, complete)| {
            let place = places.partition_point(|place| place < level);
            Score { value: place as f64, complete: *complete }
        }));
    }
}
