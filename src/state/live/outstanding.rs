//! What we have at an endpoint, counted in and out by tickets.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::{Moment, Work};

use super::window::Window;

/// How far back the busy share looks.
const BUSY_WINDOW: Duration = Duration::from_mins(1);

/// Our requests at one endpoint. Exact: each ticket adds on opening what it takes off on dropping.
#[derive(Debug)]
pub struct Outstanding {
    in_flight: AtomicU32,
    sent: AtomicU64,
    /// Prompt tokens of requests whose first token was not seen yet.
    prefill_tokens: AtomicU64,
    /// Prompt and expected output tokens of all requests in flight.
    tokens: AtomicU64,
    /// Those of all requests ever sent.
    tokens_sent: AtomicU64,
    /// Expected output tokens of all requests in flight.
    output_tokens: AtomicU64,
    /// Since when something is in flight (microseconds); 0 when nothing is.
    busy_since: AtomicU64,
    /// Microseconds in which something was in flight, up to the last time that nothing was.
    busy: Window<1>,
}

impl Default for Outstanding {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::default(),
            sent: AtomicU64::default(),
            prefill_tokens: AtomicU64::default(),
            tokens: AtomicU64::default(),
            tokens_sent: AtomicU64::default(),
            output_tokens: AtomicU64::default(),
            busy_since: AtomicU64::default(),
            busy: Window::over(BUSY_WINDOW),
        }
    }
}

impl Outstanding {
    /// Requests in flight from this process.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests sent to this endpoint since it appeared.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Prompt tokens sent of which no token has come back yet, as estimated when they were sent.
    pub fn prefill_tokens(&self) -> u64 {
        self.prefill_tokens.load(Relaxed)
    }

    /// Prompt and expected output tokens of all requests in flight.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Relaxed)
    }

    /// Prompt and expected output tokens of all requests sent since the endpoint appeared.
    pub fn tokens_sent(&self) -> u64 {
        self.tokens_sent.load(Relaxed)
    }

    /// Expected output tokens of all requests in flight.
    pub fn output_tokens(&self) -> u64 {
        self.output_tokens.load(Relaxed)
    }

    /// Share of the last minute in which at least one request was in flight, 0 to 1: the union of the intervals.
    pub fn busy_share(&self, now: Moment) -> f64 {
        let [past] = self.busy.sums(now);
        let current = match self.busy_since.load(Relaxed) {
            0 => 0,
            since => now.as_micros().saturating_sub(since),
        };
        ((past + current) as f64 / BUSY_WINDOW.as_micros() as f64).min(1.0)
    }

    pub(super) fn enter(&self, work: Work, now: Moment) {
        self.sent.fetch_add(1, Relaxed);
        self.prefill_tokens.fetch_add(u64::from(work.prompt_tokens), Relaxed);
        self.tokens.fetch_add(work.tokens(), Relaxed);
        self.tokens_sent.fetch_add(work.tokens(), Relaxed);
        self.output_tokens.fetch_add(u64::from(work.output_tokens), Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        // Not only the first: one that entered while the last one left may have had its mark taken away by that one.
        if self.busy_since.load(Relaxed) == 0 {
            self.busy_since.compare_exchange(0, now.as_micros(), Relaxed, Relaxed).ok();
        }
    }

    pub(super) fn leave(&self, work: Work, prefilled: bool, now: Moment) {
        if !prefilled {
            self.prefilled(work);
        }
        self.tokens.fetch_sub(work.tokens(), Relaxed);
        self.output_tokens.fetch_sub(u64::from(work.output_tokens), Relaxed);
        // Whoever leaves last sees what all before it marked: no mark is left where nobody is.
        let before = self.in_flight.fetch_sub(1, AcqRel);
        debug_assert!(before > 0, "an endpoint was left more often than entered");
        if before == 1 {
            let since = self.busy_since.swap(0, Relaxed);
            if since != 0 {
                self.busy.add_span(Moment::from_micros(since), now);
            }
        }
    }

    pub(in crate::state) fn prefilled(&self, work: Work) {
        self.prefill_tokens.fetch_sub(u64::from(work.prompt_tokens), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { prompt_tokens: 100, output_tokens: 10 };

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_long_prompt_weighs_until_its_first_token() {
        let ours = Outstanding::default();
        ours.enter(WORK, at(1));
        ours.enter(WORK, at(1));
        ours.prefilled(WORK);
        assert_eq!((ours.prefill_tokens(), ours.tokens(), ours.output_tokens()), (100, 220, 20));
        ours.leave(WORK, true, at(2));
        ours.leave(WORK, false, at(2));
        assert_eq!((ours.prefill_tokens(), ours.tokens(), ours.in_flight(), ours.sent()), (0, 0, 0, 2));
    }

    #[test]
    fn overlapping_requests_make_an_endpoint_busy_once() {
        let ours = Outstanding::default();
        ours.enter(WORK, at(100));
        ours.enter(WORK, at(104));
        ours.leave(WORK, false, at(110));
        ours.leave(WORK, false, at(112));
        assert!((ours.busy_share(at(112)) - 0.2).abs() < 0.01);
        assert!(ours.busy_share(at(200)).abs() < 1e-9);
        ours.enter(WORK, at(200));
        assert!((ours.busy_share(at(230)) - 0.5).abs() < 0.01);
        assert!((ours.busy_share(at(290)) - 1.0).abs() < 0.01);
    }

    #[test]
    fn who_entered_while_the_last_one_left_counts_as_busy_again_with_the_next() {
        let ours = Outstanding::default();
        ours.enter(WORK, at(100));
        // The last one leaves: it is counted out, another one enters, and its mark is taken away with the old one.
        ours.in_flight.fetch_sub(1, Relaxed);
        ours.enter(WORK, at(110));
        ours.busy_since.swap(0, Relaxed);
        ours.enter(WORK, at(111));
        assert!((ours.busy_share(at(141)) - 0.5).abs() < 0.01);
        ours.leave(WORK, false, at(141));
        ours.leave(WORK, false, at(141));
        assert!((ours.busy_share(at(141)) - 0.5).abs() < 0.01);
        assert_eq!((ours.in_flight(), ours.busy_since.load(Relaxed)), (0, 0));
    }
}
