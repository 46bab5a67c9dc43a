//! The endpoints that a strategy may choose among.

use std::sync::Arc;

use crate::state::Endpoint;

/// A non-empty set of endpoints, in no meaningful order.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    all: &'a [Arc<Endpoint>],
    kept: Option<&'a [u32]>,
}

impl<'a> Candidates<'a> {
    /// All of `endpoints`; `None` if there are none.
    pub fn all(endpoints: &'a [Arc<Endpoint>]) -> Option<Self> {
        (!endpoints.is_empty()).then_some(Self { all: endpoints, kept: None })
    }

    /// Those at the positions `kept` of [`Self::with_positions`]; `None` if that leaves none or a position is out of range.
    pub fn only(self, kept: &'a [u32]) -> Option<Self> {
        let in_range = kept.iter().all(|at| (*at as usize) < self.all.len());
        (!kept.is_empty() && in_range).then_some(Self { kept: Some(kept), ..self })
    }

    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> usize {
        self.kept.map_or(self.all.len(), <[u32]>::len)
    }

    /// The candidate at a position, which wraps around.
    #[expect(clippy::indexing_slicing, reason = "the constructors hold every position within the set")]
    pub fn at(self, position: usize) -> &'a Arc<Endpoint> {
        let position = position % self.len();
        &self.all[self.kept.map_or(position, |kept| kept[position] as usize)]
    }

    /// All of them, each with the position by which [`Self::only`] knows it.
    pub fn with_positions(self) -> impl Iterator<Item = (u32, &'a Arc<Endpoint>)> {
        let (all, kept) = self.parts();
        (0..).zip(all).chain(kept.iter().filter_map(move |at| Some((*at, self.all.get(*at as usize)?))))
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        let (all, kept) = self.parts();
        all.iter().chain(kept.iter().filter_map(move |at| self.all.get(*at as usize)))
    }

    /// Either all endpoints or the positions of some; the other is empty.
    fn parts(self) -> (&'a [Arc<Endpoint>], &'a [u32]) {
        self.kept.map_or((self.all, &[]), |kept| (&[], kept))
    }
}
