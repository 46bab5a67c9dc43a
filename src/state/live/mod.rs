//! The numbers of an endpoint that change all the time. All atomics; written by requests and by the scraper.
//!
//! What an engine says is true at the moment of the reading, and stale a moment later. Our own counts are exact at any
//! time, but know nothing of other senders. The two are put together in one way throughout:
//!
//! > now = the engine's number at the reading + (our count now − our count at the reading)
//!
//! What we sent since is added, what we sent before and is over is taken off, and what others have there stays as the
//! engine saw it. The result never falls below what we know for certain.
//!
//! "At the reading" is a moment between our question and its answer that nobody knows. A request is under way to the
//! engine about as long as a question, and its end is under way to us about as long as an answer. So our count at the
//! reading is what we had sent when we *asked*, less what had ended when the *answer* came ([`Live::mark_since`]): both
//! as the engine saw them. A count taken at either end alone would book a busy engine's requests twice, or drop those of
//! others, at every reading.

mod health;
mod measured;
mod outstanding;
mod signals;
mod window;

use std::time::Duration;

use crate::domain::{Gauge, Gauges, Moment, Work};

pub use health::{Cooldown, Health, PASSED_OVER_MAX};
pub use measured::{Measured, Outcomes};
pub use outstanding::Outstanding;
pub use signals::{Adapters, Fresh, Presence, Signals};

/// Live numbers of one endpoint. Survives a change of the endpoint's attributes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    /// What we have there.
    pub ours: Outstanding,
    /// Whether it is put aside.
    pub health: Health,
    /// What the engine says.
    pub signals: Signals,
    /// What we saw of its answers.
    pub measured: Measured,
}

/// Our counts as the engine saw them at a reading, to hold its numbers against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Requests in flight.
    pub in_flight: u64,
    /// Tokens that they may hold in the KV cache.
    pub tokens: u64,
}

/// What had been sent when an engine was asked for its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    requests: u64,
    tokens: u64,
}

impl Live {
    /// To be taken when the engine is asked for its numbers.
    pub fn ask(&self) -> Question {
        Question { requests: self.ours.sent(), tokens: self.ours.tokens_sent() }
    }

    /// To be taken when its answer comes: our counts as the engine saw them.
    pub fn mark_since(&self, asked: Question) -> Mark {
        let (requests, tokens) = (self.ours.sent() - asked.requests, self.ours.tokens_sent() - asked.tokens);
        let now = self.mark();
        // Where more came and went meanwhile than was there before, the engine still saw none at the least.
        Mark { in_flight: now.in_flight.saturating_sub(requests), tokens: now.tokens.saturating_sub(tokens) }
    }

    /// Our counts now, where a reading takes no time: simulations and tests.
    pub fn mark(&self) -> Mark {
        Mark { in_flight: u64::from(self.ours.in_flight()), tokens: self.ours.tokens() }
    }

    /// Stores one reading of the engine's numbers, which arrived at `now`.
    pub fn publish(&self, gauges: &Gauges, mark: Mark, now: Moment) {
        self.signals.store(gauges, mark, now);
    }

    /// Requests at this endpoint now: ours, plus what others have there.
    ///
    /// Without a fresh reading of the engine's running and waiting counts, ours alone; the flag tells.
    pub fn requests(&self, now: Moment, stale_after: Duration) -> (f64, bool) {
        let ours = f64::from(self.ours.in_flight());
        let running = self.signals.gauge(Gauge::Running, now, stale_after);
        let waiting = self.signals.gauge(Gauge::Waiting, now, stale_after);
        let (Some(running), waiting) = (running, waiting.unwrap_or(0.0)) else { return (ours, false) };
        let others = running + waiting - self.signals.mark().in_flight as f64;
        (ours + others.max(0.0), true)
    }

    /// Share of the KV cache in use now, from 0 to above 1 where more was sent than fits.
    ///
    /// `None` without a fresh reading. Where the engine does not tell its capacity, the share as it was read.
    pub fn kv_usage(&self, now: Moment, stale_after: Duration) -> Option<f64> {
        let read = self.signals.gauge(Gauge::KvUsage, now, stale_after)?;
        let capacity = self.signals.gauge(Gauge::KvCapacity, now, stale_after).filter(|tokens| *tokens > 0.0);
        let gained = self.ours.tokens() as f64 - self.signals.mark().tokens as f64;
        Some((read + capacity.map_or(0.0, |capacity| gained / capacity)).max(0.0))
    }

    /// Whether the engine can serve: it does not say that it sleeps. Unknown is awake.
    pub fn is_awake(&self, now: Moment, stale_after: Duration) -> bool {
        self.signals.gauge(Gauge::Awake, now, stale_after) != Some(0.0)
    }

    /// Prompt tokens that we sent here and that are not known to be prefilled.
    pub fn prefill_tokens(&self) -> u64 {
        self.ours.prefill_tokens()
    }

    pub(super) fn enter(&self, work: Work, now: Moment) {
        self.ours.enter(work, now);
    }

    pub(super) fn leave(&self, work: Work, prefilled: bool, now: Moment) {
        self.ours.leave(work, prefilled, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(5);
    const WORK: Work = Work { prompt_tokens: 900, output_tokens: 100 };

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    fn read(live: &Live, gauges: &Gauges, now: Moment) {
        live.publish(gauges, live.mark(), now);
    }

    #[test]
    fn other_senders_count_until_the_reading_is_stale() {
        let live = Live::default();
        live.enter(WORK, at(9));
        read(&live, &Gauges::default().with(Gauge::Running, 3.0).with(Gauge::Waiting, 2.0), at(10));
        live.enter(WORK, at(10));
        assert_eq!(live.requests(at(11), STALE), (6.0, true));
        assert_eq!(live.requests(at(16), STALE), (2.0, false));
    }

    #[test]
    fn requests_that_the_engine_has_not_counted_yet_are_not_counted_twice() {
        let live = Live::default();
        (0..10).for_each(|_| live.enter(WORK, at(9)));
        read(&live, &Gauges::default().with(Gauge::Running, 4.0), at(10));
        assert_eq!(live.requests(at(10), STALE), (10.0, true));
        (0..8).for_each(|_| live.leave(WORK, false, at(11)));
        assert_eq!(live.requests(at(11), STALE), (2.0, true));
    }

    #[test]
    fn what_comes_and_goes_while_the_engine_is_read_is_counted_once() {
        let live = Live::default();
        (0..4).for_each(|_| live.enter(WORK, at(9)));
        let asked = live.ask();
        // Not seen by the engine yet: one more than it says. One that it saw has ended since.
        live.enter(WORK, at(10));
        live.leave(WORK, false, at(10));
        let mark = live.mark_since(asked);
        assert_eq!(mark, Mark { in_flight: 3, tokens: 3000 });
        // Three of ours and two of others are there, and one is on the way.
        live.publish(&Gauges::default().with(Gauge::Running, 5.0), mark, at(10));
        assert_eq!(live.requests(at(10), STALE), (6.0, true));
    }

    #[test]
    fn a_slow_reading_of_short_requests_does_not_make_up_others() {
        let live = Live::default();
        let asked = live.ask();
        // Ten a reading come and go before its answer is there.
        (0..10).for_each(|_| live.enter(WORK, at(9)));
        (0..10).for_each(|_| live.leave(WORK, false, at(10)));
        let mark = live.mark_since(asked);
        let page = Gauges::default().with(Gauge::Running, 0.0).with(Gauge::KvUsage, 0.1);
        live.publish(&page.with(Gauge::KvCapacity, 20_000.0), mark, at(10));
        assert_eq!(live.requests(at(10), STALE), (0.0, true));
        assert_eq!(live.kv_usage(at(10), STALE), Some(0.1));
    }

    #[test]
    fn an_engine_that_says_it_sleeps_is_not_awake_until_the_reading_is_stale() {
        let live = Live::default();
        assert!(live.is_awake(at(1), STALE));
        read(&live, &Gauges::default().with(Gauge::Awake, 0.0), at(10));
        assert!(!live.is_awake(at(11), STALE));
        assert!(live.is_awake(at(16), STALE));
        read(&live, &Gauges::default().with(Gauge::Awake, 1.0), at(17));
        assert!(live.is_awake(at(17), STALE));
    }

    #[test]
    fn cache_use_follows_what_was_sent_and_ended_since_the_reading() {
        let live = Live::default();
        live.enter(WORK, at(9));
        let page = Gauges::default().with(Gauge::KvUsage, 0.5).with(Gauge::KvCapacity, 10_000.0);
        read(&live, &page, at(10));
        live.enter(WORK, at(10));
        assert!((live.kv_usage(at(10), STALE).unwrap() - 0.6).abs() < 1e-9);
        (0..2).for_each(|_| live.leave(WORK, false, at(11)));
        assert!((live.kv_usage(at(11), STALE).unwrap() - 0.4).abs() < 1e-9);
        assert_eq!(live.kv_usage(at(16), STALE), None);
    }

    #[test]
    fn without_a_capacity_the_cache_use_is_as_it_was_read() {
        let live = Live::default();
        read(&live, &Gauges::default().with(Gauge::KvUsage, 0.5), at(10));
        live.enter(WORK, at(10));
        assert_eq!(live.kv_usage(at(10), STALE), Some(0.5));
    }
}
