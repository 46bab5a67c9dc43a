//! The last decisions, a few of them, to be looked at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::domain::Moment;

use super::Explanation;

/// Keeps at most so many decisions, and at most one in a while: a request that is not kept pays for one atomic read.
///
/// By time rather than by number: with little traffic each decision is kept, and with much the cost stays the same.
#[derive(Debug)]
pub struct DecisionRing {
    length: usize,
    interval_micros: u64,
    next: AtomicU64,
    kept: Mutex<VecDeque<Arc<Explanation>>>,
}

impl DecisionRing {
    /// A ring of this length; 0 keeps none.
    pub fn new(length: usize, interval: Duration) -> Self {
        let interval_micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        Self { length, interval_micros, next: AtomicU64::new(0), kept: Mutex::default() }
    }

    /// A ring of another length or interval that begins with what this one keeps.
    pub(super) fn resized(&self, length: usize, interval: Duration) -> Self {
        let ring = Self::new(length, interval);
        self.newest_first().into_iter().take(length).rev().for_each(|decision| ring.keep(decision));
        ring
    }

    /// Whether a decision made now is to be kept. True for one of those who ask at the same time.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        let (now, next) = (now.as_micros(), self.next.load(Relaxed));
        let after = now.saturating_add(self.interval_micros);
        self.length > 0 && now >= next && self.next.compare_exchange(next, after, Relaxed, Relaxed).is_ok()
    }

    /// Keeps a decision; the oldest goes.
    pub(super) fn keep(&self, decision: Arc<Explanation>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.length {
            kept.pop_front();
        }
        kept.push_back(decision);
    }

    /// What is kept, newest first.
    pub fn newest_first(&self) -> Vec<Arc<Explanation>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn one_decision_in_a_while_is_kept_and_the_oldest_goes() {
        let ring = DecisionRing::new(2, Duration::from_secs(1));
        let kept: Vec<_> = [1, 1, 2, 2, 3].into_iter().map(|second| ring.is_due(at(second))).collect();
        assert_eq!(kept, [true, false, true, false, true]);
        for model in ["a", "b", "c"] {
            ring.keep(Arc::new(Explanation { model: model.into(), ..Explanation::default() }));
        }
        let models =
            |ring: &DecisionRing| ring.newest_first().iter().map(|kept| kept.model.to_string()).collect::<Vec<_>>();
        assert_eq!(models(&ring), ["c", "b"]);
        assert_eq!(models(&ring.resized(1, Duration::ZERO)), ["c"]);
        assert!(models(&ring.resized(0, Duration::ZERO)).is_empty());
    }

    #[test]
    fn a_ring_of_no_length_keeps_nothing() {
        assert!(!DecisionRing::new(0, Duration::ZERO).is_due(at(1)));
    }
}
