//! Adding up several scorers.
//!
//! Each scorer's numbers are put on a common scale first, higher is better: the best candidate gets 1. Without a scale
//! of its own a scorer's worst candidate gets 0 (AIBrix's min-max); with one, each `scale` behind the best costs 1,
//! however far that goes below 0.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::state::Endpoint;

use super::picker::{lowest, open};
use super::{Candidates, Picker, Prefer, RequestView, Scorer, Scores, Trace};

/// One scorer of a sum.
#[derive(Debug, Clone)]
pub struct Part {
    /// Whose numbers.
    pub scorer: Arc<dyn Scorer>,
    /// Its part, above 0.
    pub weight: f64,
    /// The difference, in the scorer's unit, that counts as much as the whole weight; the span of the candidates if
    /// `None`.
    pub scale: Option<f64>,
}

/// Numbers, one for each candidate; up to 64 without allocation.
pub(super) type Numbers = SmallVec<[f64; 64]>;

/// Sums closer than this are equal (AIBrix).
const EQUAL: f64 = 1e-9;

/// The weighted sum of all parts for each candidate, higher is better; `None` if no part has a number for any of them.
pub(super) fn totals(
    parts: &[Part],
    request: &RequestView<'_>,
    candidates: Candidates<'_>,
    trace: &mut Trace,
) -> Option<Numbers> {
    let all: f64 = parts.iter().map(|part| part.weight).sum();
    let mut totals = Numbers::from_elem(0.0, candidates.len());
    let (mut given, mut numbers, mut is_known) = (Scores::new(), Numbers::new(), false);
    for part in parts {
        let scorer = &*part.scorer;
        given.clear();
        scorer.scores(request, candidates, &mut given, trace);
        is_known = is_known || given.iter().any(|score| score.is_known());
        numbers.clear();
        numbers.extend(given.iter().map(|score| score.value));
        normalise(&mut numbers, scorer.prefers(), part.scale);
        let weight = part.weight / all;
        for (total, number) in totals.iter_mut().zip(&numbers) {
            *total += number * weight;
        }
        if trace.is_on() {
            for ((endpoint, score), number) in candidates.iter().zip(&given).zip(&numbers) {
                trace.scored(endpoint, scorer, *score, Some(number * weight));
            }
        }
    }
    is_known.then_some(totals)
}

/// Puts numbers on the common scale; those that are not finite get the mean of the others, 1 if there are none.
fn normalise(numbers: &mut [f64], prefers: Prefer, scale: Option<f64>) {
    let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
    for number in numbers.iter().filter(|number| number.is_finite()) {
        (lowest, highest) = (lowest.min(*number), highest.max(*number));
    }
    let best = if prefers == Prefer::Lower { lowest } else { highest };
    // All alike: all are the best. Nobody known: the same.
    let span = scale.unwrap_or(if highest > lowest { highest - lowest } else { 1.0 });
    let (mut sum, mut known) = (0.0, 0u32);
    for number in numbers.iter_mut().filter(|number| number.is_finite()) {
        *number = 1.0 - (*number - best).abs() / span;
        (sum, known) = (sum + *number, known + 1);
    }
    let neutral = if known == 0 { 1.0 } else { sum / f64::from(known) };
    for number in numbers.iter_mut().filter(|number| !number.is_finite()) {
        *number = neutral;
    }
}

/// The candidate that `picker` picks by its total. Equal ones are decided by the open requests, then drawn.
pub(super) fn pick<'a>(
    totals: &[f64],
    picker: Picker,
    request: &RequestView<'_>,
    candidates: Candidates<'a>,
) -> &'a Arc<Endpoint> {
    let mut rng = request.rng();
    let total = |at: usize| totals.get(at).copied().unwrap_or(f64::NEG_INFINITY);
    let best = |within: f64, rng: &mut fastrand::Rng| {
        let highest = totals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let equals = candidates.iter().zip(totals).filter(|(_, total)| highest - **total <= within);
        lowest(equals.map(|(endpoint, _)| endpoint), |endpoint| open(request, endpoint), rng)
            .unwrap_or_else(|| candidates.at(0))
    };
    match picker {
        Picker::Best => best(EQUAL, &mut rng),
        // The totals of all scorers span 1.
        Picker::BestWithin(percent) => best(f64::from(percent) / 100.0 + EQUAL, &mut rng),
        Picker::BestOfTwo => {
            let first = rng.usize(..candidates.len());
            let other = (first + 1 + rng.usize(..candidates.len().max(2) - 1)) % candidates.len();
            let load = |at: usize| open(request, candidates.at(at));
            let is_better = match total(other) - total(first) {
                ahead if ahead.abs() <= EQUAL => load(other) < load(first),
                ahead => ahead > 0.0,
            };
            candidates.at(if is_better { other } else { first })
        }
        Picker::WeightedRandom => {
            let chance = |total: &f64| total.max(0.0);
            let mut drawn = rng.f64() * totals.iter().map(chance).sum::<f64>();
            let found = totals.iter().position(|total| {
                drawn -= chance(total);
                drawn < 0.0
            });
            // Where nobody has a chance, the best is taken.
            found.map_or_else(|| best(EQUAL, &mut rng), |at| candidates.at(at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Clock, Work};
    use crate::routing::Score;
    use crate::routing::conformance::{fleet, view};
    use crate::state::Ticket;

    /// Gives each endpoint the number at its slot; NaN stands for one that is not known.
    #[derive(Debug)]
    struct Fixed(Prefer, &'static [f64]);

    impl Scorer for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn unit(&self) -> &'static str {
            "points"
        }

        fn prefers(&self) -> Prefer {
            self.0
        }

        fn score(&self, _: &RequestView<'_>, endpoint: &Endpoint) -> Score {
            let value = self.1[endpoint.id.slot as usize];
            if value.is_finite() { Score::of(value) } else { Score::UNKNOWN }
        }
    }

    fn part(prefers: Prefer, numbers: &'static [f64], weight: f64) -> Part {
        Part { scorer: Arc::new(Fixed(prefers, numbers)), weight, scale: None }
    }

    fn picked(totals: &[f64], picker: Picker, seed: u64) -> usize {
        let fleet = fleet(totals.len());
        pick(totals, picker, &view(seed), Candidates::all(&fleet).unwrap()).id.slot as usize
    }

    fn sums(parts: &[Part], size: usize, trace: &mut Trace) -> Vec<f64> {
        let fleet = fleet(size);
        totals(parts, &view(1), Candidates::all(&fleet).unwrap(), trace).unwrap().to_vec()
    }

    #[test]
    fn three_parts_of_match_and_one_of_running_requests_add_up_as_in_aibrix() {
        let parts = [part(Prefer::Higher, &[50.0, 0.0], 3.0), part(Prefer::Lower, &[4.0, 0.0], 1.0)];
        let mut trace = Trace::on();
        let sums = sums(&parts, 2, &mut trace);
        assert_eq!(sums, [0.75, 0.25]);
        assert_eq!(picked(&sums, Picker::Best, 1), 0);
        let shares: Vec<_> = trace.into_record().unwrap().scores.iter().map(|score| score.share).collect();
        assert_eq!(shares, [Some(0.75), Some(0.0), Some(0.0), Some(0.25)]);
    }

    #[test]
    fn equal_numbers_are_all_the_best_and_an_unknown_one_is_the_mean_of_the_others() {
        assert_eq!(sums(&[part(Prefer::Lower, &[3.0, 3.0], 1.0)], 2, &mut Trace::off()), [1.0, 1.0]);
        assert_eq!(
            sums(&[part(Prefer::Lower, &[0.0, f64::NAN, 4.0, 3.0], 1.0)], 4, &mut Trace::off()),
            [1.0, 1.25 / 3.0, 0.0, 0.25]
        );
        let nobody = part(Prefer::Higher, &[f64::NAN, f64::INFINITY], 1.0);
        let known = part(Prefer::Lower, &[1.0, 3.0], 3.0);
        assert_eq!(sums(&[nobody.clone(), known], 2, &mut Trace::off()), [1.0, 0.25]);
        let fleet = fleet(2);
        assert_eq!(totals(&[nobody], &view(1), Candidates::all(&fleet).unwrap(), &mut Trace::off()), None);
    }

    #[test]
    fn with_a_scale_a_small_difference_counts_little_and_a_large_one_more_than_all() {
        let scaled = |numbers| Part { scale: Some(10.0), ..part(Prefer::Lower, numbers, 1.0) };
        assert_eq!(sums(&[scaled(&[1.0, 2.0, 31.0])], 3, &mut Trace::off()), [1.0, 0.9, -2.0]);
        let other = part(Prefer::Higher, &[0.0, 1.0], 1.0);
        let sum = |numbers| sums(&[scaled(numbers), other.clone()], 2, &mut Trace::off());
        let decided = |numbers| picked(&sum(numbers), Picker::Best, 1);
        assert_eq!((decided(&[0.0, 1.0]), decided(&[0.0, 11.0])), (1, 0));
    }

    #[test]
    fn near_sums_are_ties_and_every_picker_stays_within_its_candidates() {
        let mut counts = [0u32; 3];
        for seed in 0..3000 {
            counts[picked(&[0.5, 0.5 + 1e-12, 0.1], Picker::Best, seed)] += 1;
            for picker in [Picker::Best, Picker::BestWithin(5), Picker::BestOfTwo, Picker::WeightedRandom] {
                for totals in [&[0.3][..], &[0.0, 0.0], &[-1.0, -2.0, 0.5]] {
                    assert!(picked(totals, picker, seed) < totals.len());
                }
            }
        }
        assert!(counts[0] > 1300 && counts[1] > 1300 && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn ties_go_to_the_endpoint_with_fewer_open_requests() {
        let fleet = fleet(2);
        let _busy = Ticket::open(Arc::clone(&fleet[0]), Work::default(), &Clock::start());
        let all = Candidates::all(&fleet).unwrap();
        for seed in 0..20 {
            for picker in [Picker::Best, Picker::BestOfTwo] {
                assert_eq!(pick(&[1.0, 1.0], picker, &view(seed), all).id, fleet[1].id);
                assert_eq!(picker.pick(&view(seed), all, &Fixed(Prefer::Lower, &[3.0, 3.0])).id, fleet[1].id);
            }
        }
    }

    #[test]
    fn a_weighted_draw_keeps_the_proportions_of_the_sums() {
        let mut counts = [0u32; 3];
        (0..4000).for_each(|seed| counts[picked(&[0.75, 0.25, 0.0], Picker::WeightedRandom, seed)] += 1);
        assert!((2850..3150).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }
}
