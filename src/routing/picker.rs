//! Turning scores into one choice.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::state::Endpoint;

use super::{Candidates, OpenRequests, Prefer, RequestView, Score, Scorer, Scores, Trace};

/// How a scored candidate is picked.
///
/// Equal scores are decided by the open requests per weight, then by the request's generator, never by the order of the
/// list. A candidate without a score is taken as average, in proportion to its open requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picker {
    /// The best of all.
    Best,
    /// The best of all, where what is worse by no more than so many percent counts as equal.
    BestWithin(u16),
    /// The better of two drawn at random.
    BestOfTwo,
    /// Drawn, each with a chance in proportion to its weighted sum; see [`Scored`](super::Scored).
    WeightedRandom,
}

/// Keys of candidates, lowest is best.
type Keys = SmallVec<[f64; 64]>;

impl Picker {
    /// Picks one candidate by `scorer`; where none has a score, the one with the fewest open requests per weight.
    pub fn pick<'a>(
        self,
        request: &RequestView<'_>,
        candidates: Candidates<'a>,
        scorer: &dyn Scorer,
    ) -> &'a Arc<Endpoint> {
        self.pick_scored(request, candidates, scorer).unwrap_or_else(|| least_open(request, candidates))
    }

    /// Picks one candidate by `scorer`; `None` where none has a score.
    pub(super) fn pick_scored<'a>(
        self,
        request: &RequestView<'_>,
        candidates: Candidates<'a>,
        scorer: &dyn Scorer,
    ) -> Option<&'a Arc<Endpoint>> {
        let mut rng = request.rng();
        let percent = match self {
            // Drawing needs the numbers on a common scale, which is for sums; by a single scorer the best is taken.
            Self::Best | Self::WeightedRandom => 0,
            Self::BestWithin(percent) => percent,
            Self::BestOfTwo => {
                let load = |at: usize| open(request, candidates.at(at));
                let is_idler = |other: usize, first: usize| scorer.ties_to_open_requests() && load(other) < load(first);
                let first = rng.usize(..candidates.len());
                let other = first + 1 + rng.usize(..candidates.len().max(2) - 1);
                let both = [Arc::clone(candidates.at(first)), Arc::clone(candidates.at(other))];
                let Some(two) = Candidates::all(&both) else { return Some(candidates.at(first)) };
                let keys = match keys(request, two, scorer) {
                    Some(keys) => keys,
                    // Of these two nothing is known; of others it may be.
                    None => keys(request, candidates, scorer).map(|_| Keys::from_elem(0.0, 2))?,
                };
                let is_better = keys.get(1) < keys.first() || (keys.get(1) == keys.first() && is_idler(other, first));
                return Some(candidates.at(if is_better { other } else { first }));
            }
        };
        let keys = keys(request, candidates, scorer)?;
        let best = keys.iter().copied().fold(f64::INFINITY, f64::min);
        let limit = best + best.abs() * f64::from(percent) / 100.0;
        let equals = || candidates.iter().zip(&keys).filter(|(_, key)| **key <= limit).map(|(endpoint, _)| endpoint);
        let load = |endpoint: &Endpoint| {
            if percent == 0 && !scorer.ties_to_open_requests() { 0.0 } else { open(request, endpoint) }
        };
        let mut few = equals();
        match (few.next(), few.next()) {
            (Some(only), None) => Some(only),
            _ => lowest(equals(), load, &mut rng),
        }
    }
}

/// The candidate with the fewest open requests per weight.
pub(super) fn least_open<'a>(request: &RequestView<'_>, candidates: Candidates<'a>) -> &'a Arc<Endpoint> {
    let load = |endpoint: &Endpoint| open(request, endpoint);
    lowest(candidates.iter(), load, &mut request.rng()).unwrap_or_else(|| candidates.at(0))
}

/// The scores as keys of which the lowest is best, with the unknown ones filled in; `None` where all are unknown.
fn keys(request: &RequestView<'_>, candidates: Candidates<'_>, scorer: &dyn Scorer) -> Option<Keys> {
    let sign = match scorer.prefers() {
        Prefer::Lower => 1.0,
        Prefer::Higher => -1.0,
    };
    let mut given = Scores::new();
    scorer.scores(request, candidates, &mut given, &mut Trace::off());
    debug_assert_eq!(given.len(), candidates.len(), "{}", scorer.name());
    debug_assert!(given.iter().all(|score| !score.value.is_nan()), "{} gave NaN", scorer.name());
    let unknown = given.iter().filter(|score| !score.is_known()).count();
    let key = |score: &Score| if score.is_known() { sign * score.value } else { f64::INFINITY };
    let mut keys: Keys = given.iter().map(key).collect();
    if unknown == keys.len() {
        return None;
    }
    if unknown > 0 {
        fill_in(request, candidates, &mut keys, unknown);
    }
    Some(keys)
}

/// Gives candidates without a key the mean of the others', in proportion to the open requests: neither shunned, which
/// would leave them without a score for good, nor flooded. At least one has a key.
#[cold]
fn fill_in(request: &RequestView<'_>, candidates: Candidates<'_>, keys: &mut Keys, unknown: usize) {
    let known = keys.len() - unknown;
    let (mut sum, mut loads) = (0.0, 0.0);
    for (endpoint, key) in candidates.iter().zip(keys.iter()).filter(|(_, key)| key.is_finite()) {
        sum += key;
        loads += open(request, endpoint);
    }
    for (endpoint, key) in candidates.iter().zip(keys.iter_mut()).filter(|(_, key)| !key.is_finite()) {
        let load = open(request, endpoint);
        let mean = sum / known as f64;
        let busier = load * known as f64 / loads;
        *key = if sum >= 0.0 { mean * busier } else { mean / busier };
    }
}

pub(super) fn open(request: &RequestView<'_>, endpoint: &Endpoint) -> f64 {
    OpenRequests.score(request, endpoint).value
}

/// The endpoint with the lowest key; equal ones share the chance evenly.
pub(super) fn lowest<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    key: impl Fn(&Endpoint) -> f64,
    rng: &mut fastrand::Rng,
) -> Option<&'a Arc<Endpoint>> {
    let mut best: Option<(&Arc<Endpoint>, f64)> = None;
    let mut equals = 1u32;
    for endpoint in endpoints {
        let value = key(endpoint);
        debug_assert!(!value.is_nan(), "a key of {} is NaN", endpoint.address_text());
        match best {
            Some((_, lowest)) if value > lowest => {}
            #[expect(clippy::float_cmp, reason = "a tie is an equal number, not a near one")]
            Some((_, lowest)) if value == lowest => {
                equals += 1;
                if rng.u32(..equals) == 0 {
                    best = Some((endpoint, value));
                }
            }
            _ => {
                best = Some((endpoint, value));
                equals = 1;
            }
        }
    }
    best.map(|(endpoint, _)| endpoint)
}
