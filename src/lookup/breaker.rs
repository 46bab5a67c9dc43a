//! Who fails again and again is left alone for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::Moment;

/// Failures in a row after which somebody is left alone.
const FAILURES: u32 = 3;
/// First and longest time for that.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Of so many it is known at most how they fail; then all are forgiven.
const KNOWN_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    until: Moment,
}

/// Failures by whom was asked.
#[derive(Debug)]
pub(super) struct Breaker<K>(Mutex<HashMap<K, Record>>);

impl<K> Default for Breaker<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Breaker<K> {
    /// Whether it may be asked.
    pub(super) fn allows(&self, whom: &K, now: Moment) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(whom).is_none_or(|record| record.until <= now)
    }

    /// It answered.
    pub(super) fn answered(&self, whom: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(whom);
    }

    /// It did not answer. After a pause one more failure is enough for the next, which is twice as long.
    pub(super) fn failed(&self, whom: K, now: Moment) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= KNOWN_MAX {
            records.clear();
        }
        let record = records.entry(whom).or_insert(Record { failures: 0, until: Moment::EPOCH });
        record.failures = record.failures.saturating_add(1);
        if let Some(more) = record.failures.checked_sub(FAILURES) {
            record.until = now + (PAUSE_MIN * 2_u32.saturating_pow(more.min(10))).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_make_a_pause_and_an_answer_ends_all_that() {
        let (breaker, at) = (Breaker::default(), |seconds: u64| Moment::from_micros(seconds * 1_000_000));
        for _ in 0..2 {
            breaker.failed("a", at(1));
        }
        assert!(breaker.allows(&"a", at(1)));
        breaker.failed("a", at(1));
        assert!(!breaker.allows(&"a", at(2)) && breaker.allows(&"b", at(2)) && breaker.allows(&"a", at(3)));
        breaker.failed("a", at(3));
        assert!(!breaker.allows(&"a", at(6)) && breaker.allows(&"a", at(7)));
        breaker.answered(&"a");
        breaker.failed("a", at(7));
        assert!(breaker.allows(&"a", at(7)));
    }
}
