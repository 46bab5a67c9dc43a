//! Putting a failing endpoint aside, and taking it back.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::{Failure, Moment};

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

/// Whether an endpoint is put aside. Written when an answer or a failure is reported.
#[derive(Debug, Default)]
pub struct Health {
    /// Failures in a row.
    failures_in_row: AtomicU32,
    /// How often in a row the proxy went on to another endpoint.
    passed_over_in_row: AtomicU32,
    /// When the last pause began (microseconds).
    aside_since: AtomicU64,
    /// Put aside until this moment (microseconds).
    aside_until: AtomicU64,
    /// Failures reported, ever.
    failed: AtomicU64,
}

impl Health {
    /// Failures reported since the endpoint appeared.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(30) };

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

    fn fail(health: &Health, failure: Failure, sent: u64, now: u64) -> Option<Duration> {
        health.report_failure(failure, at(sent), at(now), COOLDOWN, 0.5)
    }

    #[test]
    fn a_burst_of_failures_is_one_pause_and_the_next_one_is_longer() {
        let health = Health::default();
        assert!(fail(&health, Failure::Refused, 9, 10).is_some());
        for _ in 0..50 {
            assert_eq!(fail(&health, Failure::Refused, 9, 10), None);
        }
        assert!(health.is_aside(at(10)) && !health.is_aside(at(11)));
        assert_eq!(fail(&health, Failure::Reset, 12, 12), Some(Duration::from_secs(2)));
        assert_eq!(health.failed(), 52);
    }

    #[test]
    fn an_answer_brings_an_endpoint_back_at_once_unless_it_was_sent_before_the_fault() {
        let health = Health::default();
        fail(&health, Failure::Unavailable, 10, 10);
        assert!(!health.report_answer(at(9)) && health.is_aside(at(10)));
        assert!(health.report_answer(at(10)) && !health.is_aside(at(10)));
        assert!(!health.report_answer(at(11)));
    }

    #[test]
    fn an_endpoint_out_of_its_pause_gets_one_request_on_trial() {
        let health = Health::default();
        fail(&health, Failure::Refused, 10, 10);
        assert!(!health.is_aside(at(12)));
        health.begin_trial(at(12), COOLDOWN.base);
        assert!(health.is_aside(at(12)));
        assert_eq!(fail(&health, Failure::Refused, 12, 12), Some(Duration::from_secs(2)));
        health.begin_trial(at(20), COOLDOWN.base);
        assert!(health.report_answer(at(20)) && !health.is_aside(at(20)));
        health.begin_trial(at(20), COOLDOWN.base);
        assert!(!health.is_aside(at(20)));
    }

    #[test]
    fn being_passed_over_counts_only_when_it_goes_on() {
        let health = Health::default();
        assert_eq!(fail(&health, Failure::PassedOver, 1, 1), None);
        assert_eq!(fail(&health, Failure::PassedOver, 2, 2), None);
        health.report_answer(at(3));
        assert_eq!(fail(&health, Failure::PassedOver, 4, 4), None);
        assert_eq!(fail(&health, Failure::PassedOver, 5, 5), None);
        assert!(fail(&health, Failure::PassedOver, 6, 6).is_some());
    }
}
