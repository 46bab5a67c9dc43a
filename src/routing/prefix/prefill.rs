//! How long an endpoint will be busy with prompts that were sent there, and how fast it is at them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::{Gauge, GaugeSet, Moment};
use crate::routing::RequestView;
use crate::state::Endpoint;

use super::micros;

/// Tokens whose prefill weighs as much as what was known before.
const MEMORY_TOKENS: f64 = 16_384.0;
/// Shorter prompts say more about the cost of a request than about that of its tokens.
const TELLING_TOKENS: f64 = 512.0;
/// Longer ones say no more than one of this length.
const TELLING_TOKENS_MAX: f64 = 2048.0;
/// Bounds of what is believed of an engine, in seconds a token.
const PACES: (f64, f64) = (1e-7, 1.0);

/// The prompts that one endpoint has yet to prefill, as a clock: when it will be done with them. That moment comes by
/// itself, so nobody has to be told of first tokens; whoever is told puts the clock right.
#[derive(Debug, Default)]
pub(super) struct Prefill {
    /// When all of it will be done, in microseconds.
    done_at: AtomicU64,
    /// By how much that was put right since the start, in microseconds: what was booked before is due that much later.
    shift: AtomicI64,
    /// When the last first token was seen, in microseconds.
    last_seen: AtomicU64,
    /// Seconds a token, as bits; 0 until it was learned.
    pace: AtomicU64,
    /// How many endpoints had the slot before: what was booked for one of those says nothing of this one.
    epoch: AtomicU64,
}

/// One request's part of an endpoint's prefill.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Booked {
    sent: Moment,
    /// Tokens to be computed.
    tokens: f64,
    micros: u64,
    due: u64,
    shift: i64,
    epoch: u64,
}

impl Booked {
    /// Seconds of prefill.
    pub(super) fn seconds(self) -> f64 {
        self.micros as f64 / 1e6
    }
}

impl Prefill {
    /// How long a request sent now waits until its own prefill begins.
    pub(super) fn wait(&self, now: Moment) -> Duration {
        now.until(Moment::from_micros(self.done_at.load(Relaxed)))
    }

    /// Seconds that a token takes; `start` until that was learned.
    pub(super) fn pace(&self, start: f64) -> f64 {
        match self.pace.load(Relaxed) {
            0 => start,
            bits => f64::from_bits(bits),
        }
    }

    /// A prompt was sent, of which so many tokens have to be computed, at this pace.
    pub(super) fn book(&self, tokens: f64, pace: f64, now: Moment) -> Booked {
        let micros = micros(tokens * pace);
        let later = |at: u64| at.max(now.as_micros()).saturating_add(micros);
        // Never fails: the closure always gives a value.
        let before = self.done_at.fetch_update(Relaxed, Relaxed, |at| Some(later(at))).unwrap_or_default();
        let (shift, epoch) = (self.shift.load(Relaxed), self.epoch.load(Relaxed));
        Booked { sent: now, tokens, micros, due: later(before), shift, epoch }
    }

    /// It will not be computed.
    pub(super) fn cancel(&self, booked: Booked) {
        if self.is_current(booked) {
            self.move_by(-signed(booked.micros));
        }
    }

    /// Whether it was booked for the endpoint that has the slot now.
    fn is_current(&self, booked: Booked) -> bool {
        booked.epoch == self.epoch.load(Relaxed)
    }

    /// It is computed: what is behind it is due by as much earlier or later as it was itself.
    pub(super) fn finished(&self, booked: Booked, now: Moment) {
        if !self.is_current(booked) {
            return;
        }
        let due = signed(booked.due) + (self.shift.load(Relaxed) - booked.shift);
        let late = signed(now.as_micros()) - due;
        self.shift.fetch_add(late, Relaxed);
        self.move_by(late);
    }

    /// It is computed for some time already, nobody knows for how long.
    pub(super) fn finished_before(&self, booked: Booked, now: Moment) {
        if signed(booked.due) + (self.shift.load(Relaxed) - booked.shift) > signed(now.as_micros()) {
            self.finished(booked, now);
        }
    }

    /// Learns from a first token: the endpoint was at this prompt since it came, or since the one before was done.
    pub(super) fn learn_from(&self, booked: Booked, start: f64, now: Moment) {
        if !self.is_current(booked) {
            return;
        }
        let last = Moment::from_micros(self.last_seen.swap(now.as_micros(), Relaxed));
        self.learn(booked.tokens, booked.sent.max(last).until(now).as_secs_f64(), start);
    }

    /// Learns from a reading of the engine's averages. Its times, its lengths and its hits are not always those of the
    /// same requests, so one reading says little, however long the prompts are.
    pub(super) fn learn_pace(&self, pace: f64, start: f64) {
        self.learn(TELLING_TOKENS, TELLING_TOKENS * pace, start);
    }

    /// Learns that so many tokens took so many seconds. What is out of all proportion counts as twice or half of what
    /// was known.
    pub(super) fn learn(&self, tokens: f64, seconds: f64, start: f64) {
        if tokens >= TELLING_TOKENS {
            let (known, seconds) = (self.pace(start), seconds / tokens);
            // A prompt may have waited for other things than prefill, the longer ones longest.
            let tokens = tokens.min(TELLING_TOKENS_MAX);
            let found = seconds.clamp(known / 2.0, known * 2.0);
            let pace = (known * MEMORY_TOKENS + found * tokens) / (MEMORY_TOKENS + tokens);
            // Two who learn at once: one of them is not heard.
            self.pace.store(pace.clamp(PACES.0, PACES.1).to_bits(), Relaxed);
        }
    }

    fn move_by(&self, micros: i64) {
        self.done_at.fetch_update(Relaxed, Relaxed, |at| Some(at.saturating_add_signed(micros))).ok();
    }

    /// For the next endpoint of the slot.
    pub(super) fn reset(&self) {
        self.epoch.fetch_add(1, Relaxed);
        self.done_at.store(0, Relaxed);
        self.shift.store(0, Relaxed);
        self.last_seen.store(0, Relaxed);
        self.pace.store(0, Relaxed);
    }
}

/// What [`engine_pace`] reads.
pub(super) const PACE_GAUGES: GaugeSet = GaugeSet::of(&[
    Gauge::PrefillTimeMean,
    Gauge::TtftMean,
    Gauge::QueueTimeMean,
    Gauge::PromptLengthMean,
    Gauge::PromptTokensRate,
    Gauge::PrefixHitRate,
]);

/// Seconds of prefill a token, by what the engine tells of the last minute; `None` where it does not tell, or prompts
/// were too short to tell anything.
///
/// Prompts that are prefilled side by side all take longer, so a prompt's own time says too much where there are many.
/// What the engine got through says too much where there are few. Both are upper bounds, so the smaller one is taken.
pub(super) fn engine_pace(request: &RequestView<'_>, endpoint: &Endpoint) -> Option<f64> {
    let read = endpoint.live.signals.fresh(request.now, request.stale_after)?;
    let computed = 1.0 - read.gauge(Gauge::PrefixHitRate).unwrap_or(0.0).clamp(0.0, 1.0);
    let tokens = read.gauge(Gauge::PromptLengthMean)? * computed;
    let by_ttft = || Some(read.gauge(Gauge::TtftMean)? - read.gauge(Gauge::QueueTimeMean).unwrap_or(0.0));
    let seconds = read.gauge(Gauge::PrefillTimeMean).or_else(by_ttft).filter(|seconds| *seconds > 0.0)?;
    if tokens < TELLING_TOKENS {
        return None;
    }
    let throughput = read.gauge(Gauge::PromptTokensRate).unwrap_or(0.0) * computed;
    let pace = if throughput > 0.0 { (seconds / tokens).min(1.0 / throughput) } else { seconds / tokens };
    Some(pace.clamp(PACES.0, PACES.1))
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: f64 = 1e-4;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000 + millis * 1000)
    }

    fn wait(prefill: &Prefill, millis: u64) -> u64 {
        prefill.wait(at(millis)).as_millis() as u64
    }

    #[test]
    fn what_was_sent_is_waited_for_until_it_must_be_done() {
        let prefill = Prefill::default();
        prefill.book(10_000.0, PACE, at(0));
        prefill.book(5_000.0, PACE, at(500));
        assert_eq!([wait(&prefill, 500), wait(&prefill, 1400), wait(&prefill, 2000)], [1000, 100, 0]);
        // It begins when it comes, not when the one before was done.
        prefill.book(1_000.0, PACE, at(3000));
        assert_eq!(wait(&prefill, 3000), 100);
    }

    #[test]
    fn first_tokens_put_the_clock_right_once_each() {
        let prefill = Prefill::default();
        let [a, b, c] = [0; 3].map(|_| prefill.book(10_000.0, PACE, at(0)));
        assert_eq!(wait(&prefill, 0), 3000);
        // Half a second late: those behind it are as well.
        prefill.finished(a, at(1500));
        assert_eq!(wait(&prefill, 1500), 2000);
        prefill.finished(b, at(2500));
        assert_eq!(wait(&prefill, 2500), 1000);
        prefill.finished(c, at(3000));
        assert_eq!(wait(&prefill, 3000), 0);
    }

    #[test]
    fn an_answer_that_is_over_can_only_shorten_the_wait() {
        let prefill = Prefill::default();
        let [a, b] = [0; 2].map(|_| prefill.book(10_000.0, PACE, at(0)));
        prefill.finished_before(a, at(100));
        assert_eq!(wait(&prefill, 100), 1000);
        prefill.finished_before(b, at(5000));
        assert_eq!(wait(&prefill, 5000), 0);
        prefill.cancel(prefill.book(10_000.0, PACE, at(6000)));
        assert_eq!(wait(&prefill, 6000), 0);
    }

    #[test]
    fn what_was_booked_for_the_former_endpoint_of_a_slot_says_nothing_of_the_next() {
        let prefill = Prefill::default();
        let [late, never] = [0; 2].map(|_| prefill.book(10_000.0, PACE, at(0)));
        prefill.reset();
        let own = prefill.book(10_000.0, PACE, at(50_000));
        prefill.cancel(never);
        prefill.finished(late, at(50_000));
        prefill.learn_from(late, PACE, at(50_000));
        assert_eq!((wait(&prefill, 50_000), prefill.pace(PACE).to_bits()), (1000, PACE.to_bits()));
        prefill.finished(own, at(50_500));
        assert_eq!(wait(&prefill, 50_500), 0);
    }

    #[test]
    fn the_pace_is_learned_from_what_prompts_took() {
        let prefill = Prefill::default();
        let mut now = 0;
        for _ in 0..40 {
            let booked = prefill.book(4_000.0, prefill.pace(PACE), at(now));
            now += 100;
            prefill.finished(booked, at(now));
            prefill.learn_from(booked, PACE, at(now));
        }
        let learned = prefill.pace(PACE);
        assert!((learned - 2.5e-5).abs() < 2.5e-6, "{learned}");
        // Three at once take as long together as one after the other.
        let three = [0; 3].map(|_| prefill.book(4_000.0, learned, at(now)));
        for (place, booked) in three.into_iter().enumerate() {
            prefill.learn_from(booked, PACE, at(now + 100 * (place as u64 + 1)));
        }
        assert!((prefill.pace(PACE) - 2.5e-5).abs() < 2.5e-6);
        prefill.learn(10.0, 1.0, PACE);
        assert!((prefill.pace(PACE) - 2.5e-5).abs() < 2.5e-6, "a short prompt says nothing");
        prefill.reset();
        assert_eq!(prefill.pace(PACE).to_bits(), PACE.to_bits());
    }
}
