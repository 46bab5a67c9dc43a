//! The numbers of an endpoint that change all the time. All atomics; written by requests and by the scraper.
//!
//! What an engine says is true at the moment of the reading, and stale a moment later. Our own counts are exact at any
//! time, but know nothing of other senders. The two are put together in one way throughout:
//!
//! > now = the engine's number at the reading + (our count now − our count at the reading)
//!
//! What we sent since is added, what we sent before and is over is taken off, and what others have there stays as the
//! engine saw it. Nothing is counted twice: what the engine had not yet counted at the reading is in both of our
//! counts. The result never falls below what we know for certain.

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
pub use signals::{Adapters, Fresh, Signals};

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

/// Our counts at one moment, to hold an engine's numbers against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Requests in flight.
    pub in_flight: u32,
    /// Tokens that they may hold in the KV cache.
    pub tokens: u64,
}

impl Live {
    /// Our counts now. The scraper takes them as a page arrives, and gives them to [`publish`](Self::publish).
    pub fn mark(&self) -> Mark {
        Mark { in_flight: self.ours.in_flight(), tokens: self.ours.tokens() }
    }

    /// Stores one reading of the engine's numbers, which arrived at `now` when our counts stood at `mark`.
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
        let others = running + waiting - f64::from(self.signals.mark().in_flight);
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

    /// Prompt tokens sent here that are not known to be prefilled: ours, plus those of others that the engine tells of.
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
