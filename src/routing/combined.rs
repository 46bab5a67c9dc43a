//! Combinations as requests ask for them, kept for the next request that asks for the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::blend::Part;
use super::grammar;
use super::set::Known;
use super::{Picker, Scored, Strategy};

/// Most combinations that are kept. Clients write them, so there is no end to them: beyond it the oldest goes.
const KEPT_MAX: usize = 64;

/// The combinations in use, by canonical text. Reading takes no lock; building one replaces the list.
#[derive(Debug, Default)]
pub(super) struct Combined {
    kept: ArcSwap<Vec<Strategy>>,
    built: Arc<AtomicU64>,
}

impl Combined {
    /// The sum of `parts`, each a strategy, its composition and its weight. Only its scorers are taken: filters and
    /// picker are those strategies' own.
    pub(super) fn get(&self, parts: &[(&Known, &Scored, u64)], index: usize) -> Strategy {
        let name = grammar::canonical(parts.iter().map(|(known, _, weight)| (&*known.strategy.name, *weight)));
        if let Some(kept) = self.kept.load().iter().find(|kept| *kept.name == *name) {
            return kept.clone();
        }
        let scorers: Vec<Part> = parts.iter().flat_map(|(_, scored, weight)| scored.parts(*weight as f64)).collect();
        let router = Arc::new(Scored::blended(scorers, Picker::Best));
        let strategy = Strategy::new(name.into(), index, router);
        self.built.fetch_add(1, Relaxed);
        self.kept.rcu(|kept| {
            let beyond = (kept.len() + 1).saturating_sub(KEPT_MAX);
            kept.iter().skip(beyond).chain([&strategy]).cloned().collect::<Vec<_>>()
        });
        strategy
    }

    /// An empty one that counts on: those that are kept are sums of strategies that may be others now.
    pub(super) fn successor(&self) -> Self {
        Self { built: Arc::clone(&self.built), ..Self::default() }
    }

    /// How many were built.
    pub(super) fn built(&self) -> u64 {
        self.built.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.load().len()
    }
}
