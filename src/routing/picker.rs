//! Turning scores into one choice.

use std::sync::Arc;

use crate::state::Endpoint;

use super::{Candidates, Prefer, RequestView, Scorer};

/// How a scored candidate is picked. Ties fall to the request's generator, never to the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picker {
    /// The best of all.
    Best,
    /// The better of two drawn at random.
    BestOfTwo,
    /// Drawn, each with a chance in proportion to its weighted sum; see [`Scored`](super::Scored).
    WeightedRandom,
}

impl Picker {
    /// Picks one candidate by `scorer`.
    pub fn pick<'a>(
        self,
        request: &RequestView<'_>,
        candidates: Candidates<'a>,
        scorer: &dyn Scorer,
    ) -> &'a Arc<Endpoint> {
        let mut rng = request.rng();
        let key = |endpoint: &Endpoint| {
            let value = scorer.score(request, endpoint).value;
            match scorer.prefers() {
                Prefer::Lower => value,
                Prefer::Higher => -value,
            }
        };
        match self {
            // Drawing needs the numbers on a common scale, which is for sums; by a single scorer the best is taken.
            Self::Best | Self::WeightedRandom => {
                lowest(candidates.iter(), key, &mut rng).unwrap_or_else(|| candidates.at(0))
            }
            Self::BestOfTwo => {
                let first = rng.usize(..candidates.len());
                let other = first + 1 + rng.usize(..candidates.len().max(2) - 1);
                let (first, other) = (candidates.at(first), candidates.at(other));
                if key(other) < key(first) { other } else { first }
            }
        }
    }
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
        debug_assert!(!value.is_nan(), "a scorer gave NaN for {}", endpoint.address_text());
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
