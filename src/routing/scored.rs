//! A strategy made of filters, a scorer and a picker.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Candidates, Decision, Filter, Needs, Picker, RequestView, Router, Scorer, Trace};

/// Filters, then scores, then picks. One idea, written once: most strategies are one of these.
#[derive(Debug)]
pub struct Scored {
    filters: Vec<Box<dyn Filter>>,
    scorer: Box<dyn Scorer>,
    picker: Picker,
}

impl Scored {
    /// The best of all candidates by `scorer`.
    pub fn new(scorer: impl Scorer + 'static) -> Self {
        Self { filters: Vec::new(), scorer: Box::new(scorer), picker: Picker::Best }
    }

    /// The same with another picker.
    #[must_use]
    pub fn picked_by(self, picker: Picker) -> Self {
        Self { picker, ..self }
    }

    /// The same with one more filter before the scorer.
    #[must_use]
    pub fn filtered_by(mut self, filter: impl Filter + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }
}

impl Router for Scored {
    fn needs(&self) -> Needs {
        Needs { answers: self.scorer.answers(), ..Needs::gauges(self.scorer.gauges()) }
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        if trace.is_on() {
            for endpoint in candidates.iter() {
                trace.scored(endpoint, &*self.scorer, self.scorer.score(request, endpoint), None);
            }
        }
        if self.filters.is_empty() {
            return Decision::Send(Arc::clone(self.picker.pick(request, candidates, &*self.scorer)));
        }
        let keeps = |endpoint: &_| self.filters.iter().all(|filter| filter.keeps(request, endpoint));
        let kept: SmallVec<[_; 64]> = candidates.iter().filter(|e| keeps(e)).cloned().collect();
        let chosen = match Candidates::all(&kept) {
            Some(kept) => self.picker.pick(request, kept, &*self.scorer),
            None => self.picker.pick(request, candidates, &*self.scorer),
        };
        Decision::Send(Arc::clone(chosen))
    }
}
