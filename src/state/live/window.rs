//! Sums over a sliding window, without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::Moment;

/// Buckets that a window is cut into: its edge is sharp to one of them.
const BUCKETS: usize = 12;

/// `N` sums over the last while. Adding and reading take no lock; an addition that races with a bucket's reuse may be
/// lost, which an average bears.
#[derive(Debug)]
pub struct Window<const N: usize> {
    bucket_micros: u64,
    buckets: [Bucket<N>; BUCKETS],
}

#[derive(Debug)]
struct Bucket<const N: usize> {
    /// Which bucket since the epoch this is, plus one; 0 is none.
    era: AtomicU64,
    sums: [AtomicU64; N],
}

impl<const N: usize> Window<N> {
    /// A window of this length.
    pub fn over(length: Duration) -> Self {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let bucket = || Bucket { era: AtomicU64::new(0), sums: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self { bucket_micros: (micros / BUCKETS as u64).max(1), buckets: std::array::from_fn(|_| bucket()) }
    }

    /// Adds to each sum.
    pub fn add(&self, now: Moment, values: [u64; N]) {
        let era = self.era(now);
        let Some(bucket) = self.buckets.get((era % BUCKETS as u64) as usize) else { return };
        let before = bucket.era.load(Relaxed);
        if before < era && bucket.era.compare_exchange(before, era, Relaxed, Relaxed).is_ok() {
            bucket.sums.iter().for_each(|sum| sum.store(0, Relaxed));
        }
        for (sum, value) in bucket.sums.iter().zip(values) {
            if value != 0 {
                sum.fetch_add(value, Relaxed);
            }
        }
    }

    /// Takes back some of what was added at `when`, as far as it is still there.
    pub(super) fn take_back(&self, when: Moment, values: [u64; N]) {
        let era = self.era(when);
        let Some(bucket) = self.buckets.get((era % BUCKETS as u64) as usize) else { return };
        if bucket.era.load(Relaxed) == era {
            for (sum, value) in bucket.sums.iter().zip(values).filter(|(_, value)| *value != 0) {
                // Never fails: the closure always gives a value.
                sum.fetch_update(Relaxed, Relaxed, |held| Some(held.saturating_sub(value))).ok();
            }
        }
    }

    /// The sums over the window that ends `now`.
    pub fn sums(&self, now: Moment) -> [u64; N] {
        let era = self.era(now);
        let mut sums = [0_u64; N];
        for bucket in &self.buckets {
            let of = bucket.era.load(Relaxed);
            if of != 0 && of + BUCKETS as u64 > era {
                for (sum, part) in sums.iter_mut().zip(&bucket.sums) {
                    *sum = sum.saturating_add(part.load(Relaxed));
                }
            }
        }
        sums
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.era.store(0, Relaxed));
    }

    fn era(&self, now: Moment) -> u64 {
        now.as_micros() / self.bucket_micros + 1
    }
}

impl Window<1> {
    /// Adds a span of time, in microseconds, each part to the bucket that it falls in.
    pub(super) fn add_span(&self, from: Moment, to: Moment) {
        let length = self.bucket_micros.saturating_mul(BUCKETS as u64);
        let (mut from, to) = (from.as_micros().max(to.as_micros().saturating_sub(length)), to.as_micros());
        while from < to {
            let end = ((from / self.bucket_micros + 1) * self.bucket_micros).min(to);
            self.add(Moment::from_micros(from), [end - from]);
            from = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_the_window_is_gone() {
        let window = Window::<2>::over(Duration::from_mins(1));
        window.add(at(100), [1, 10]);
        window.add(at(130), [2, 20]);
        assert_eq!(window.sums(at(130)), [3, 30]);
        assert_eq!(window.sums(at(170)), [2, 20]);
        assert_eq!(window.sums(at(1000)), [0, 0]);
        window.add(at(1000), [5, 0]);
        assert_eq!(window.sums(at(1001)), [5, 0]);
    }

    #[test]
    fn what_is_taken_back_is_that_moments_and_no_other() {
        let window = Window::<2>::over(Duration::from_mins(1));
        window.add(at(100), [10, 1]);
        window.add(at(130), [5, 5]);
        window.take_back(at(100), [4, 0]);
        assert_eq!(window.sums(at(130)), [11, 6]);
        window.take_back(at(100), [100, 0]);
        assert_eq!(window.sums(at(130)), [5, 6]);
        // Its minute is over: what came in its place stays.
        window.add(at(160), [7, 7]);
        window.take_back(at(100), [7, 7]);
        assert_eq!(window.sums(at(160)), [12, 12]);
    }

    #[test]
    fn what_was_forgotten_does_not_count_in_the_first_minute_either() {
        let window = Window::<1>::over(Duration::from_mins(1));
        window.add(at(1), [5]);
        window.clear();
        assert_eq!(window.sums(at(2)), [0]);
    }

    #[test]
    fn a_span_is_spread_over_its_buckets_and_cut_at_the_window() {
        let window = Window::<1>::over(Duration::from_mins(1));
        window.add_span(at(100), at(130));
        assert_eq!(window.sums(at(130)), [30_000_000]);
        assert!((9_000_000..=15_000_000).contains(&window.sums(at(177))[0]), "{:?}", window.sums(at(177)));
        window.add_span(at(200), at(1000));
        assert!(window.sums(at(1000))[0] <= 60_000_000);
    }
}
