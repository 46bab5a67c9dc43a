//! Preferred endpoints first, the next ones when those are full.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// What makes an endpoint come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Levels {
    /// Its cost.
    Cost,
    /// The place of its tier in this list; then the number that its tier is, if it is one; then last.
    Tiers(Vec<String>),
}

/// The level of an endpoint, lowest first; one that is full comes behind all that are not, by its open requests.
#[derive(Debug, Clone)]
pub struct Spill {
    /// What makes the level.
    pub levels: Levels,
    /// Open requests per unit of weight, the new one included, above which an endpoint is full.
    pub limit: f64,
    /// Share of the KV cache in use above which it is full.
    pub kv_limit: f64,
}

/// Above every level.
const FULL: f64 = 1e9;
/// Of endpoints without a known tier: behind the named and the numbered ones.
const LAST: f64 = FULL / 10.0;

impl Levels {
    fn level(&self, endpoint: &Endpoint) -> f64 {
        match self {
            Self::Cost => endpoint.spec.cost.min(LAST),
            Self::Tiers(order) => {
                let Some(tier) = &endpoint.spec.tier else { return LAST };
                let place = (0_u32..).zip(order).find(|(_, name)| *name == tier).map(|(place, _)| place);
                place.or_else(|| tier.parse().ok()).map_or(LAST, |place| f64::from(place).min(LAST))
            }
        }
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
            Levels::Cost => "cost, or 1e9 + requests per weight when full",
            Levels::Tiers(_) => "place, or 1e9 + requests per weight when full",
        }
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::KvUsage, Gauge::KvCapacity]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let load = OpenRequests.score(request, endpoint);
        let usage = endpoint.live.kv_usage(request.now, request.stale_after);
        let is_full = load.value > self.limit || usage.is_some_and(|usage| usage > self.kv_limit);
        let value = if is_full { FULL + load.value } else { self.levels.level(endpoint) };
        Score { value, complete: load.complete }
    }
}
