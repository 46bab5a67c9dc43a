//! The numbers of an endpoint that change all the time. All atomics; written by requests and by the scraper.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::{Failure, Gauge, Moment};

/// How long a failing endpoint is put aside.
#[derive(Debug, Clone, Copy)]
pub struct Cooldown {
    /// First pause.
    pub base: Duration,
    /// Longest pause.
    pub max: Duration,
}

impl Cooldown {
    /// The pause after so many failures in a row: doubling from `base`, at most `max`, then ±20 % by `jitter` (0 to 1).
    pub fn pause(self, failures_in_row: u32, jitter: f64) -> Duration {
        let doublings = failures_in_row.saturating_sub(1).min(20);
        let pause = self.base.saturating_mul(1 << doublings).min(self.max);
        pause.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
    }
}

/// How often in a row an endpoint is passed over before that puts it aside.
pub const PASSED_OVER_MAX: u32 = 3;

/// Live numbers of one endpoint. Survives a change of the endpoint's attributes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    /// Requests that hold a ticket; written by tickets.
    in_flight: AtomicU32,
    /// Failures in a row; written when an answer or a failure is reported.
    failures_in_row: AtomicU32,
    /// How often in a row the proxy went on to another endpoint; written like the above.
    passed_over_in_row: AtomicU32,
    /// When the last pause began (microseconds).
    aside_since: AtomicU64,
    /// Put aside until this moment (microseconds).
    aside_until: AtomicU64,
    /// Requests sent here, ever.
    sent: AtomicU64,
    /// Failures reported, ever.
    failed: AtomicU64,
    /// Requests at the engine that are not ours, as of the last scrape.
    others: AtomicU64,
    /// When the gauges were last read (microseconds); 0 is never.
    scraped_at: AtomicU64,
    /// `f64` bits by [`Gauge`] index; NaN when the engine did not say.
    gauges: [AtomicU64; Gauge::ALL.len()],
}

impl Live {
    /// Requests in flight from this process.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests sent to this endpoint since it appeared.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Failures reported since it appeared.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.sent.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "an endpoint was left more often than entered");
    }

    /// Until when this endpoint is put aside; a past moment when it is not.
    pub fn aside_until(&self) -> Moment {
        Moment::from_micros(self.aside_until.load(Relaxed))
    }

    /// Whether it is put aside now.
    pub fn is_aside(&self, now: Moment) -> bool {
        now < self.aside_until()
    }

    /// A request is being sent here. If the endpoint comes out of a pause, this request is its trial: others stay away
    /// for `trial`, or until it is answered.
    pub fn begin_trial(&self, now: Moment, trial: Duration) {
        if self.failures_in_row.load(Relaxed) != 0 && !self.is_aside(now) {
            self.aside_until.store((now + trial).as_micros(), Relaxed);
        }
    }

    /// Reports that a request sent at `sent` failed, and puts the endpoint aside.
    ///
    /// Only a request sent after the last pause began says something new: the others of a burst were under way when the
    /// first of them failed, and a burst is one fault, not fifty. An endpoint that was passed over may only have shed
    /// load (429), so that takes [`PASSED_OVER_MAX`] times in a row.
    ///
    /// Returns the pause if this failure began one.
    pub fn report_failure(
        &self,
        failure: Failure,
        sent: Moment,
        now: Moment,
        cooldown: Cooldown,
        jitter: f64,
    ) -> Option<Duration> {
        self.failed.fetch_add(1, Relaxed);
        let since = self.aside_since.load(Relaxed);
        if sent.as_micros() < since {
            return None;
        }
        if failure == Failure::PassedOver
            && self.failures_in_row.load(Relaxed) == 0
            && self.passed_over_in_row.fetch_add(1, Relaxed) + 1 < PASSED_OVER_MAX
        {
            return None;
        }
        // Of two that fail at once, one begins the pause.
        self.aside_since.compare_exchange(since, now.as_micros().max(since + 1), Relaxed, Relaxed).ok()?;
        let in_row = self.failures_in_row.fetch_add(1, Relaxed).saturating_add(1);
        let pause = cooldown.pause(in_row, jitter);
        self.aside_until.store((now + pause).as_micros(), Relaxed);
        Some(pause)
    }

    /// Reports that a request sent at `sent` was answered, which shows the endpoint to be alive if it was sent after the
    /// last pause began. It ends the row of failures, and a pause as well.
    ///
    /// Returns whether a row of failures ended here.
    pub fn report_answer(&self, sent: Moment) -> bool {
        if self.passed_over_in_row.load(Relaxed) != 0 {
            self.passed_over_in_row.store(0, Relaxed);
        }
        if self.failures_in_row.load(Relaxed) == 0 || sent.as_micros() < self.aside_since.load(Relaxed) {
            return false;
        }
        self.aside_until.store(0, Relaxed);
        self.failures_in_row.swap(0, Relaxed) != 0
    }

    /// Stores one reading of the engine's gauges; a gauge that it did not give is `None`.
    pub fn set_gauges(&self, values: [Option<f64>; Gauge::ALL.len()], now: Moment) {
        for (cell, value) in self.gauges.iter().zip(values) {
            cell.store(value.filter(|v| v.is_finite() && *v >= 0.0).unwrap_or(f64::NAN).to_bits(), Relaxed);
        }
        let engine = |gauge| self.read(gauge).unwrap_or(0.0);
        let others = engine(Gauge::Running) + engine(Gauge::Waiting) - f64::from(self.in_flight());
        self.others.store(others.max(0.0).to_bits(), Relaxed);
        self.scraped_at.store(now.as_micros(), Relaxed);
    }

    /// The last reading of a gauge, or `None` if it was never seen or is older than `stale_after`.
    pub fn gauge(&self, gauge: Gauge, now: Moment, stale_after: Duration) -> Option<f64> {
        self.is_fresh(now, stale_after).then(|| self.read(gauge)).flatten()
    }

    /// Age of the last reading; `None` if there was none.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let at = self.scraped_at.load(Relaxed);
        (at != 0).then(|| now - Moment::from_micros(at))
    }

    /// Requests at this endpoint: ours in flight, plus what others had there at the last fresh reading.
    pub fn load(&self, now: Moment, stale_after: Duration) -> f64 {
        let others = if self.is_fresh(now, stale_after) { f64::from_bits(self.others.load(Relaxed)) } else { 0.0 };
        f64::from(self.in_flight()) + others
    }

    fn is_fresh(&self, now: Moment, stale_after: Duration) -> bool {
        self.age(now).is_some_and(|age| age <= stale_after)
    }

    fn read(&self, gauge: Gauge) -> Option<f64> {
        let value = self.gauges.get(gauge as usize).map(|cell| f64::from_bits(cell.load(Relaxed)))?;
        value.is_finite().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(30) };
    const STALE: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered() {
        assert_eq!(COOLDOWN.pause(1, 0.5), Duration::from_secs(1));
        assert_eq!(COOLDOWN.pause(3, 0.5), Duration::from_secs(4));
        assert_eq!(COOLDOWN.pause(60, 0.5), Duration::from_secs(30));
        assert_eq!(COOLDOWN.pause(1, 0.0), Duration::from_millis(800));
        assert_eq!(COOLDOWN.pause(1, 1.0), Duration::from_millis(1200));
    }

    fn fail(live: &Live, failure: Failure, sent: u64, now: u64) -> Option<Duration> {
        live.report_failure(failure, at(sent), at(now), COOLDOWN, 0.5)
    }

    #[test]
    fn a_burst_of_failures_is_one_pause_and_the_next_one_is_longer() {
        let live = Live::default();
        assert!(fail(&live, Failure::Refused, 9, 10).is_some());
        for _ in 0..50 {
            assert_eq!(fail(&live, Failure::Refused, 9, 10), None);
        }
        assert!(live.is_aside(at(10)) && !live.is_aside(at(11)));
        assert_eq!(fail(&live, Failure::Reset, 12, 12), Some(Duration::from_secs(2)));
        assert_eq!(live.failed(), 52);
    }

    #[test]
    fn an_answer_brings_an_endpoint_back_at_once_unless_it_was_sent_before_the_fault() {
        let live = Live::default();
        fail(&live, Failure::Unavailable, 10, 10);
        assert!(!live.report_answer(at(9)) && live.is_aside(at(10)));
        assert!(live.report_answer(at(10)) && !live.is_aside(at(10)));
        assert!(!live.report_answer(at(11)));
    }

    #[test]
    fn an_endpoint_out_of_its_pause_gets_one_request_on_trial() {
        let live = Live::default();
        fail(&live, Failure::Refused, 10, 10);
        assert!(!live.is_aside(at(12)));
        live.begin_trial(at(12), COOLDOWN.base);
        assert!(live.is_aside(at(12)));
        assert_eq!(fail(&live, Failure::Refused, 12, 12), Some(Duration::from_secs(2)));
        live.begin_trial(at(20), COOLDOWN.base);
        assert!(live.report_answer(at(20)) && !live.is_aside(at(20)));
        live.begin_trial(at(20), COOLDOWN.base);
        assert!(!live.is_aside(at(20)));
    }

    #[test]
    fn being_passed_over_counts_only_when_it_goes_on() {
        let live = Live::default();
        assert_eq!(fail(&live, Failure::PassedOver, 1, 1), None);
        assert_eq!(fail(&live, Failure::PassedOver, 2, 2), None);
        live.report_answer(at(3));
        assert_eq!(fail(&live, Failure::PassedOver, 4, 4), None);
        assert_eq!(fail(&live, Failure::PassedOver, 5, 5), None);
        assert!(fail(&live, Failure::PassedOver, 6, 6).is_some());
    }

    #[test]
    fn load_counts_other_senders_until_the_reading_is_stale() {
        let live = Live::default();
        live.enter();
        live.set_gauges([Some(3.0), Some(2.0), Some(0.4)], at(10));
        live.enter();
        assert!((live.load(at(11), STALE) - 6.0).abs() < 1e-9);
        assert!((live.load(at(16), STALE) - 2.0).abs() < 1e-9);
        assert_eq!(live.gauge(Gauge::KvUsage, at(11), STALE), Some(0.4));
        assert_eq!(live.gauge(Gauge::KvUsage, at(16), STALE), None);
    }

    #[test]
    fn a_lying_engine_leaves_a_gauge_absent() {
        let live = Live::default();
        live.set_gauges([Some(f64::NAN), Some(-4.0), Some(f64::INFINITY)], at(1));
        for gauge in Gauge::ALL {
            assert_eq!(live.gauge(gauge, at(1), STALE), None);
        }
        assert!(live.load(at(1), STALE).abs() < 1e-9);
    }
}
