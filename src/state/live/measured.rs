//! What we saw of an endpoint's answers ourselves, over a sliding window.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::Moment;

use super::window::Window;

/// How far back measurements count.
const LENGTH: Duration = Duration::from_mins(1);
/// Upper bounds of the buckets of first-token times, in milliseconds, doubling from 1 ms to 65 s; one more above.
const TTFT_BUCKETS: usize = 18;

/// Answers of one endpoint over the last minute, as this process saw them.
#[derive(Debug)]
pub struct Measured {
    /// Answered, failed.
    outcomes: Window<2>,
    /// Prompt tokens, output tokens; apart, as strategies read them of all candidates at every decision.
    tokens: Window<2>,
    /// Sum of first-token times in microseconds, and their count.
    ttft: Window<2>,
    ttft_buckets: Window<TTFT_BUCKETS>,
    /// Whether a first token was ever seen: most endpoints' never are, and reading is then free.
    has_ttft: AtomicBool,
    /// Prompt tokens that the endpoint was taken to have cached, and all of those prompts.
    prefixes: Window<2>,
    answers: AtomicU64,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            outcomes: Window::over(LENGTH),
            tokens: Window::over(LENGTH),
            ttft: Window::over(LENGTH),
            ttft_buckets: Window::over(LENGTH),
            has_ttft: AtomicBool::default(),
            prefixes: Window::over(LENGTH),
            answers: AtomicU64::default(),
        }
    }
}

/// Sums over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// Requests answered, whatever the engine's status below 500.
    pub answered: u64,
    /// Requests that failed, or were answered with 5xx.
    pub failed: u64,
    /// Prompt tokens: as estimated when sent, until the engine reported them.
    pub prompt_tokens: u64,
    /// Output tokens, likewise.
    pub output_tokens: u64,
}

impl Measured {
    /// Books an answer.
    pub fn answered(&self, now: Moment) {
        self.answers.fetch_add(1, Relaxed);
        self.outcomes.add(now, [1, 0]);
    }

    /// Requests answered since the endpoint appeared.
    pub fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    /// Books a failure.
    pub fn failed(&self, now: Moment) {
        self.outcomes.add(now, [0, 1]);
    }

    /// Books work: when it is sent as estimated; when it is reported, what it was more than that. What it was less,
    /// [`Self::fewer_prompt_tokens`] takes back.
    pub fn tokens(&self, prompt: u64, output: u64, now: Moment) {
        self.tokens.add(now, [prompt, output]);
    }

    /// Takes back prompt tokens that were booked at `sent` and turned out to be none.
    pub fn fewer_prompt_tokens(&self, tokens: u64, sent: Moment) {
        self.tokens.take_back(sent, [tokens, 0]);
    }

    /// Books a first token that came so long after the request was sent.
    pub fn first_token(&self, after: Duration, now: Moment) {
        self.has_ttft.store(true, Relaxed);
        self.ttft.add(now, [u64::try_from(after.as_micros()).unwrap_or(u64::MAX), 1]);
        let millis = after.as_millis().max(1);
        let bucket = (128 - (millis - 1).leading_zeros() as usize).min(TTFT_BUCKETS - 1);
        self.ttft_buckets.add(now, std::array::from_fn(|at| u64::from(at == bucket)));
    }

    /// Books a prompt of which so many tokens were taken to be cached when it was sent.
    pub fn prefix_expected(&self, cached: u64, prompt: u64, now: Moment) {
        self.prefixes.add(now, [cached, prompt]);
    }

    /// Share of the last minute's prompt tokens that were taken to be cached, 0 to 1; `None` where nobody looked.
    pub fn expected_hits(&self, now: Moment) -> Option<f64> {
        let [cached, prompt] = self.prefixes.sums(now);
        (prompt > 0).then(|| cached as f64 / prompt as f64)
    }

    /// Sums over the last minute.
    pub fn outcomes(&self, now: Moment) -> Outcomes {
        let ([answered, failed], [prompt_tokens, output_tokens]) = (self.outcomes.sums(now), self.work(now));
        Outcomes { answered, failed, prompt_tokens, output_tokens }
    }

    /// Prompt and output tokens over the last minute, as in [`Outcomes`].
    pub fn work(&self, now: Moment) -> [u64; 2] {
        self.tokens.sums(now)
    }

    /// Mean time to first token over the last minute, in seconds; `None` if none was seen.
    pub fn ttft_mean(&self, now: Moment) -> Option<f64> {
        let [sum, count] = self.has_ttft.load(Relaxed).then(|| self.ttft.sums(now))?;
        (count > 0).then(|| sum as f64 / count as f64 / 1e6)
    }

    /// A quantile (0 to 1) of the time to first token over the last minute, in seconds, to a factor of two at worst.
    pub fn ttft_quantile(&self, quantile: f64, now: Moment) -> Option<f64> {
        let buckets = self.has_ttft.load(Relaxed).then(|| self.ttft_buckets.sums(now))?;
        let count: u64 = buckets.iter().sum();
        let rank = quantile * count as f64;
        let mut below = 0.0;
        for (at, bucket) in (0_i32..).zip(buckets) {
            let held = bucket as f64;
            if held > 0.0 && below + held >= rank {
                let (lower, upper) = (if at == 0 { 0.0 } else { 2_f64.powi(at - 1) }, 2_f64.powi(at));
                return Some((lower + (upper - lower) * (rank - below) / held) / 1e3);
            }
            below += held;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_of_its_rank() {
        let measured = Measured::default();
        assert_eq!(measured.ttft_quantile(0.95, at(1)), None);
        for _ in 0..90 {
            measured.first_token(Duration::from_millis(100), at(1));
        }
        for _ in 0..10 {
            measured.first_token(Duration::from_secs(3), at(1));
        }
        let (median, high) =
            (measured.ttft_quantile(0.5, at(1)).unwrap(), measured.ttft_quantile(0.95, at(1)).unwrap());
        assert!((0.064..=0.128).contains(&median), "{median}");
        assert!((2.048..=4.096).contains(&high), "{high}");
        assert!((measured.ttft_mean(at(1)).unwrap() - 0.39).abs() < 0.001);
        assert_eq!(measured.ttft_mean(at(100)), None);
    }

    #[test]
    fn outcomes_fade_with_the_window() {
        let measured = Measured::default();
        measured.answered(at(1));
        measured.failed(at(30));
        measured.tokens(100, 20, at(30));
        let now = measured.outcomes(at(30));
        assert_eq!((now.answered, now.failed, now.prompt_tokens, now.output_tokens), (1, 1, 100, 20));
        assert_eq!(measured.outcomes(at(70)).answered, 0);
    }
}
