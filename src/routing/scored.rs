//! A strategy made of filters, scorers and a picker.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::EndpointId;
use crate::state::Endpoint;

use super::blend::{self, Part};
use super::picker::least_open;
use super::{
    Candidates, Decision, Expectation, Filter, Needs, Pass, Picker, RequestView, ResponseHeaders, Router, Scorer,
    Scores, Trace,
};

/// Filters, then scores, then picks. One idea, written once: most strategies are one of these, and so is every
/// combination of them. Clones share their scorers.
#[derive(Debug, Clone)]
pub struct Scored {
    filters: Vec<Arc<dyn Filter>>,
    parts: SmallVec<[Part; 1]>,
    picker: Picker,
}

impl Scored {
    /// The best of all candidates by `scorer`.
    pub fn new(scorer: impl Scorer + 'static) -> Self {
        let part = Part { scorer: Arc::new(scorer), weight: 1.0, scale: None };
        Self::blended([part], Picker::Best)
    }

    /// Picked by the weighted sum of several scorers; at least one.
    pub fn blended(parts: impl IntoIterator<Item = Part>, picker: Picker) -> Self {
        Self { filters: Vec::new(), parts: parts.into_iter().collect(), picker }
    }

    /// The same with another picker.
    #[must_use]
    pub fn picked_by(self, picker: Picker) -> Self {
        Self { picker, ..self }
    }

    /// The same with one more filter before the scorers.
    #[must_use]
    pub fn filtered_by(self, filter: impl Filter + 'static) -> Self {
        self.filtered_by_all([Arc::new(filter) as Arc<dyn Filter>])
    }

    /// The same with more filters before the scorers.
    #[must_use]
    pub fn filtered_by_all(mut self, filters: impl IntoIterator<Item = Arc<dyn Filter>>) -> Self {
        self.filters.extend(filters);
        self
    }

    /// Its filters.
    pub fn filters(&self) -> &[Arc<dyn Filter>] {
        &self.filters
    }

    /// Its scorers with their shares of `weight`.
    pub fn parts(&self, weight: f64) -> impl Iterator<Item = Part> {
        let total: f64 = self.parts.iter().map(|part| part.weight).sum();
        self.parts.iter().map(move |part| Part { weight: part.weight * weight / total, ..part.clone() })
    }

    fn pick(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let chosen = match self.parts.as_slice() {
            [only] if self.picker != Picker::WeightedRandom => {
                if trace.is_on() {
                    let mut scores = Scores::new();
                    only.scorer.scores(request, candidates, &mut scores, trace);
                    for (endpoint, score) in candidates.iter().zip(scores) {
                        trace.scored(endpoint, &*only.scorer, score, None);
                    }
                }
                self.picker.pick_scored(request, candidates, &*only.scorer)
            }
            parts => blend::totals(parts, request, candidates, trace)
                .map(|totals| blend::pick(&totals, self.picker, request, candidates)),
        };
        chosen.map_or_else(|| Decision::Pass(self.pass()), |chosen| Decision::Send(Arc::clone(chosen)))
    }

    /// Why nobody has a number: something is missing, unless no part had a say in the first place.
    fn pass(&self) -> Pass {
        let passes = || self.parts.iter().map(|part| part.scorer.pass());
        let missing = passes().find(|pass| matches!(pass, Pass::Missing(_)));
        missing.or_else(|| passes().next()).unwrap_or(Pass::Missing("there is nothing to go by"))
    }
}

impl Router for Scored {
    fn needs(&self) -> Needs {
        self.parts.iter().fold(Needs::default(), |needs, part| needs.with(part.scorer.needs()))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        let mut expected = None;
        self.parts.iter().for_each(|part| part.scorer.on_sent(request, endpoint, &mut expected));
        expected
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        if self.filters.is_empty() {
            return self.pick(request, candidates, trace);
        }
        let drops = |endpoint: &_| self.filters.iter().find(|filter| !filter.keeps(request, endpoint));
        let mut kept: SmallVec<[_; 64]> = SmallVec::new();
        for (position, endpoint) in candidates.with_positions() {
            match drops(endpoint) {
                None => kept.push(position),
                Some(filter) => trace.left_out(endpoint, filter.name()),
            }
        }
        if let Some(kept) = candidates.only(&kept) {
            return match self.pick(request, kept, trace) {
                // Another strategy would not know whom the filters left out.
                Decision::Pass(pass) if kept.len() < candidates.len() => {
                    trace.passed(pass, "least-request");
                    Decision::Send(Arc::clone(least_open(request, kept)))
                }
                decision => decision,
            };
        }
        trace.note(|| "the filters leave nobody, so they are passed over".to_owned());
        self.pick(request, candidates, trace)
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        self.parts.iter().for_each(|part| part.scorer.on_endpoint_removed(id));
    }

    fn response_headers(&self, request: &RequestView<'_>, served: &Endpoint, headers: &mut ResponseHeaders) {
        self.parts.iter().for_each(|part| part.scorer.response_headers(request, served, headers));
    }
}
