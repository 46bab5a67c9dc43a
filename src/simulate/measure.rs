//! What came of the requests, in numbers.

use serde::Serialize;

use super::scenario::Slo;

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) arrived_us: u64,
    pub(super) first_us: u64,
    pub(super) finished_us: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) tenant: u16,
}

impl Answer {
    fn ttft_ms(&self) -> f64 {
        (self.first_us - self.arrived_us) as f64 / 1e3
    }

    /// Mean time between tokens; zero for an answer of one token.
    fn itl_ms(&self) -> f64 {
        (self.finished_us - self.first_us) as f64 / 1e3 / (self.output_tokens - 1).max(1) as f64
    }
}

/// Quantiles and mean of a time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Times {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Times {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |percent: usize| values.get(last * percent / 100).copied().unwrap_or(0.0);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self { mean, p50: at(50), p90: at(90), p99: at(99) }
    }
}

/// The numbers of one run. Times and shares are of the requests that arrived after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Requests sent, warm-up included.
    pub sent: u64,
    /// Requests answered, warm-up included.
    pub answered: u64,
    /// Requests lost to engines that died, or sent while none was there.
    pub failed: u64,
    /// Requests that fit into no cache.
    pub refused: u64,
    /// Tokens of all answers, warm-up included.
    pub output_tokens: u64,
    /// Prompt tokens of all answered requests, warm-up included.
    pub prompt_tokens: u64,
    /// Seconds until the last answer.
    pub duration_s: f64,
    /// Seconds that the rates below are taken over: from the end of the warm-up to the last request.
    pub window_s: f64,
    /// Time to first token.
    pub ttft_ms: Times,
    /// Mean time between the tokens of an answer.
    pub itl_ms: Times,
    /// Time to last token.
    pub e2e_ms: Times,
    /// Requests finished a second.
    pub requests_per_s: f64,
    /// Prompt tokens, cached or not, of the requests finished a second.
    pub prompt_tokens_per_s: f64,
    /// Answer tokens of the requests finished a second.
    pub output_tokens_per_s: f64,
    /// Requests a second whose answer met the objective.
    pub goodput_per_s: f64,
    /// Share of prompt tokens found in an engine's cache.
    pub hit_rate: f64,
    /// Standard deviation of the engines' loads over their mean, averaged over time: 0 is even.
    pub spread: f64,
    /// Jain's index of the tenants' mean time to first token: 1 is all alike; `None` without tenants.
    pub fairness: Option<f64>,
    /// Sequences that engines threw out for want of cache.
    pub preemptions: u64,
    /// How much longer than the oracle's the mean time to last token is, as a share; `None` when it was not asked.
    pub regret: Option<f64>,
}

/// Collects answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answers: Vec<Answer>,
    pub(super) failed: u64,
    pub(super) refused: u64,
    spread_sum: f64,
    spread_count: u64,
    loads: Vec<f64>,
}

/// Tenants with fewer answers than this say nothing.
const TENANT_ANSWERS_MIN: f64 = 20.0;

impl Tally {
    pub(super) fn expect(&mut self, answers: usize) {
        self.answers.reserve(answers);
    }

    pub(super) fn add(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// Notes the engines' loads at one moment.
    pub(super) fn add_loads(&mut self, loads: impl Iterator<Item = u64>) {
        self.loads.clear();
        self.loads.extend(loads.map(|load| load as f64));
        let count = self.loads.len().max(1) as f64;
        let mean = self.loads.iter().sum::<f64>() / count;
        if mean >= 1.0 {
            let variance = self.loads.iter().map(|load| (load - mean) * (load - mean)).sum::<f64>() / count;
            self.spread_sum += variance.sqrt() / mean;
            self.spread_count += 1;
        }
    }

    /// Sums up. The window is from the end of the warm-up to the last request.
    pub(super) fn summary(&self, sent: u64, window: (u64, u64), slo: Slo, preemptions: u64) -> Summary {
        let (from, until) = window;
        let window_s = until.saturating_sub(from).max(1) as f64 / 1e6;
        let counted: Vec<_> = self.answers.iter().filter(|answer| answer.arrived_us >= from).collect();
        let inside = |answer: &&Answer| (from..=until).contains(&answer.finished_us);
        let (mut requests, mut prompts, mut outputs) = (0u64, 0u64, 0u64);
        for answer in self.answers.iter().filter(inside) {
            requests += 1;
            prompts += answer.prompt_tokens;
            outputs += answer.output_tokens;
        }
        let is_good = |answer: &&&Answer| answer.ttft_ms() <= slo.ttft_ms && answer.itl_ms() <= slo.itl_ms;
        let good = counted.iter().filter(is_good).count();
        let asked: u64 = counted.iter().map(|answer| answer.prompt_tokens).sum();
        let cached: u64 = counted.iter().map(|answer| answer.cached_tokens).sum();
        let e2e = |answer: &&Answer| (answer.finished_us - answer.arrived_us) as f64 / 1e3;
        Summary {
            sent,
            answered: self.answers.len() as u64,
            failed: self.failed,
            refused: self.refused,
            output_tokens: self.answers.iter().map(|answer| answer.output_tokens).sum(),
            prompt_tokens: self.answers.iter().map(|answer| answer.prompt_tokens).sum(),
            duration_s: self.answers.iter().map(|answer| answer.finished_us).max().unwrap_or(0) as f64 / 1e6,
            window_s,
            ttft_ms: Times::of(counted.iter().map(|answer| answer.ttft_ms()).collect()),
            itl_ms: Times::of(counted.iter().filter(|a| a.output_tokens > 1).map(|a| a.itl_ms()).collect()),
            e2e_ms: Times::of(counted.iter().map(e2e).collect()),
            requests_per_s: requests as f64 / window_s,
            prompt_tokens_per_s: prompts as f64 / window_s,
            output_tokens_per_s: outputs as f64 / window_s,
            goodput_per_s: good as f64 / window_s,
            hit_rate: cached as f64 / asked.max(1) as f64,
            spread: self.spread_sum / self.spread_count.max(1) as f64,
            fairness: fairness(&counted),
            preemptions,
            regret: None,
        }
    }
}

fn fairness(answers: &[&Answer]) -> Option<f64> {
    let tenants = answers.iter().map(|answer| usize::from(answer.tenant) + 1).max()?;
    let mut sums = vec![(0.0, 0.0); tenants];
    for answer in answers {
        if let Some((count, sum)) = sums.get_mut(usize::from(answer.tenant)) {
            *count += 1.0;
            *sum += answer.ttft_ms();
        }
    }
    let means: Vec<_> = sums.iter().filter(|(n, _)| *n >= TENANT_ANSWERS_MIN).map(|(n, sum)| sum / n).collect();
    (means.len() > 1).then(|| jain(&means))
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has everything.
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let times = Times::of((0..=100).rev().map(f64::from).collect());
        assert_eq!((times.p50, times.p90, times.p99, times.mean), (50.0, 90.0, 99.0, 50.0));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }

    #[test]
    fn jains_index_is_one_for_equals_and_a_share_for_one_of_many() {
        assert!((jain(&[3.0, 3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn even_loads_have_no_spread() {
        let mut tally = Tally::default();
        tally.add_loads([4, 4, 4].into_iter());
        assert!(tally.summary(0, (0, 1), Slo { ttft_ms: 1.0, itl_ms: 1.0 }, 0).spread.abs() < 1e-12);
    }
}
