//! What operators say of requests, apart from endpoints: how urgent they are, and which model they really get.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Priorities and rewrites.
#[derive(Debug, Default, PartialEq)]
pub struct Policies {
    /// Priority by the name of an objective; higher goes first, below 0 may be shed.
    pub objectives: HashMap<Box<str>, i32>,
    /// Rules by which models are rewritten; the first that fits counts.
    pub rewrites: Vec<Rewrite>,
}

/// A rule by which requests for a model get another one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rewrite {
    /// The models it is for; none means all.
    pub models: Vec<Box<str>>,
    /// Models to choose among, with weights of at least 1.
    pub targets: Vec<(Box<str>, u32)>,
}

impl Policies {
    /// The priority of a request that names this objective; 0 if nobody knows it.
    pub fn priority(&self, objective: &str) -> i32 {
        self.objectives.get(objective).copied().unwrap_or(0)
    }

    /// The model that a request for `model` gets instead, if another; `draw` decides by weight.
    pub fn rewrite(&self, model: &str, draw: u64) -> Option<&str> {
        let fits = |rule: &&Rewrite| rule.models.is_empty() || rule.models.iter().any(|name| **name == *model);
        let targets = &self.rewrites.iter().find(fits)?.targets;
        let total: u64 = targets.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = draw.checked_rem(total)?;
        let target = targets.iter().find(|(_, weight)| {
            let taken = left < u64::from(*weight);
            left = left.saturating_sub(u64::from(*weight));
            taken
        });
        target.map(|(name, _)| &**name).filter(|name| *name != model)
    }
}

/// The policies of every pool, as one picture.
#[derive(Debug, Default, PartialEq)]
pub struct PolicyBook {
    all: Policies,
    pools: HashMap<Box<str>, Policies>,
    none: Policies,
}

impl PolicyBook {
    /// Of all pools together, and of each.
    pub fn new(all: Policies, pools: HashMap<Box<str>, Policies>) -> Self {
        Self { all, pools, none: Policies::default() }
    }

    /// What holds for requests of a pool, nothing if nobody knows it; without one, what any pool says.
    pub fn of(&self, pool: Option<&str>) -> &Policies {
        pool.map_or(&self.all, |pool| self.pools.get(pool).unwrap_or(&self.none))
    }
}

/// A handle on the newest policies. Clones read the same.
#[derive(Debug, Clone, Default)]
pub struct PolicyReader(Arc<ArcSwap<PolicyBook>>);

impl PolicyReader {
    /// The newest policies.
    pub fn load(&self) -> arc_swap::Guard<Arc<PolicyBook>> {
        self.0.load()
    }

    /// Makes these the newest; for the one source that has them.
    pub fn publish(&self, policies: PolicyBook) {
        self.0.store(Arc::new(policies));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(models: &[&str], targets: &[(&str, u32)]) -> Rewrite {
        Rewrite {
            models: models.iter().map(|name| (*name).into()).collect(),
            targets: targets.iter().map(|(name, weight)| ((*name).into(), *weight)).collect(),
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_by_weight() {
        let rewrites = vec![rule(&["a", "b"], &[("x", 3), ("y", 1)]), rule(&[], &[("z", 1)])];
        let policies = Policies { rewrites, ..Policies::default() };
        let drawn: Vec<_> = (0..8).map(|draw| policies.rewrite("b", draw).unwrap()).collect();
        assert_eq!(drawn, ["x", "x", "x", "y", "x", "x", "x", "y"]);
        assert_eq!(policies.rewrite("other", 5), Some("z"));
        assert_eq!(policies.rewrite("z", 5), None, "it has that model already");
    }

    #[test]
    fn without_rules_or_targets_nothing_is_rewritten_and_nothing_is_urgent() {
        assert_eq!(Policies::default().rewrite("a", 1), None);
        let rewrites = vec![rule(&[], &[])];
        let policies = Policies { rewrites, objectives: HashMap::from([("hot".into(), 7)]) };
        assert_eq!((policies.rewrite("a", 1), policies.priority("hot"), policies.priority("?")), (None, 7, 0));
    }
}
