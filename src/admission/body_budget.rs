//! The bytes of request bodies held at once, over all requests of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A cap on the sum of held bodies. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    held: Arc<AtomicI64>,
    max: i64,
}

/// Bytes taken from a [`BodyBudget`]; given back on drop.
#[derive(Debug)]
pub struct BodyPermit {
    held: Arc<AtomicI64>,
    max: i64,
    bytes: i64,
}

impl BodyBudget {
    /// A budget of `max` bytes, counted in `held` so that a metric can show it.
    pub fn new(max: usize, held: Arc<AtomicI64>) -> Self {
        Self { held, max: i64::try_from(max).unwrap_or(i64::MAX) }
    }

    /// A permit for no bytes yet.
    pub fn permit(&self) -> BodyPermit {
        BodyPermit { held: Arc::clone(&self.held), max: self.max, bytes: 0 }
    }
}

impl BodyPermit {
    /// Takes `bytes` more; false, and nothing taken, if the budget does not have them.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Ok(bytes) = i64::try_from(bytes) else { return false };
        let before = self.held.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.max {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Gives everything back now.
    pub fn release(&mut self) {
        self.held.fetch_sub(self.bytes, Relaxed);
        self.bytes = 0;
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
        let held = Arc::new(AtomicI64::new(0));
        let budget = BodyBudget::new(100, Arc::clone(&held));
        let (mut a, mut b) = (budget.permit(), budget.permit());
        assert!(a.grow(60) && !b.grow(41) && b.grow(40));
        assert_eq!(held.load(Relaxed), 100);
        drop(a);
        assert!(b.grow(60));
        drop(b);
        assert_eq!(held.load(Relaxed), 0);
    }
}
