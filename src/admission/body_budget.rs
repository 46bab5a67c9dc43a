//! The bytes of request bodies held at once, over all requests of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use prometheus_client::metrics::gauge::Gauge;

/// A cap on the sum of held bodies. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    held: Gauge,
    max: Arc<AtomicI64>,
}

/// Bytes taken from a [`BodyBudget`]; given back on drop.
#[derive(Debug)]
pub struct BodyPermit {
    held: Gauge,
    max: Arc<AtomicI64>,
    bytes: i64,
}

impl BodyBudget {
    /// A budget of `max` bytes, counted in `held`, which is a metric.
    pub fn new(max: usize, held: Gauge) -> Self {
        let budget = Self { held, max: Arc::default() };
        budget.set_max(max);
        budget
    }

    /// Changes the cap, for all clones and permits. What is held above a lower one is given back in its own time.
    pub fn set_max(&self, max: usize) {
        self.max.store(i64::try_from(max).unwrap_or(i64::MAX), Relaxed);
    }

    /// A permit for no bytes yet.
    pub fn permit(&self) -> BodyPermit {
        BodyPermit { held: self.held.clone(), max: Arc::clone(&self.max), bytes: 0 }
    }
}

impl BodyPermit {
    /// Takes `bytes` more; false, and nothing taken, if the budget does not have them.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Ok(bytes) = i64::try_from(bytes) else { return false };
        let before = self.held.inc_by(bytes);
        if before.saturating_add(bytes) > self.max.load(Relaxed) {
            self.held.dec_by(bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Gives everything back now.
    pub fn release(&mut self) {
        // Not for nothing: the counter is shared by all threads.
        if self.bytes > 0 {
            self.held.dec_by(self.bytes);
            self.bytes = 0;
        }
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back_on_drop() {
        let held = Gauge::default();
        let budget = BodyBudget::new(100, held.clone());
        let (mut a, mut b) = (budget.permit(), budget.permit());
        assert!(a.grow(60) && !b.grow(41) && b.grow(40));
        assert_eq!(held.get(), 100);
        drop(a);
        assert!(b.grow(60));
        drop(b);
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn a_changed_cap_holds_for_permits_that_there_are() {
        let budget = BodyBudget::new(100, Gauge::default());
        let mut permit = budget.permit();
        assert!(permit.grow(80));
        budget.set_max(50);
        assert!(!permit.grow(1) && !budget.permit().grow(1));
        budget.set_max(200);
        assert!(permit.grow(100));
    }
}
