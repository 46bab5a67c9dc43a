//! What the subscribers count.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::feed::Reason;

/// Counts over all publishers, for metrics.
#[derive(Debug, Default)]
pub struct EventStatus {
    /// Batches taken.
    pub batches: AtomicU64,
    /// Blocks stored.
    pub stored: AtomicU64,
    /// Blocks removed.
    pub removed: AtomicU64,
    /// Blocks not entered because the one before them is not known.
    pub orphans: AtomicU64,
    /// Events of unknown kinds.
    pub unknown: AtomicU64,
    /// Events and batches that could not be read.
    pub unreadable: AtomicU64,
    /// Replays asked for.
    pub replays: AtomicU64,
    /// Replays that failed.
    pub replays_failed: AtomicU64,
    /// Connections now.
    pub connected: AtomicI64,
    /// Attempts to connect that failed.
    pub connects_failed: AtomicU64,
    cleared: [AtomicU64; 3],
}

impl EventStatus {
    /// Caches taken to be empty because events are missing for good.
    pub fn gaps(&self) -> u64 {
        self.times_cleared(Reason::Gap)
    }

    /// Caches taken to be empty because their engines began anew.
    pub fn restarts(&self) -> u64 {
        self.times_cleared(Reason::Restart)
    }

    /// Caches taken to be empty because a connection was lost.
    pub fn losses(&self) -> u64 {
        self.times_cleared(Reason::Lost)
    }

    fn times_cleared(&self, reason: Reason) -> u64 {
        self.cleared.get(reason as usize).map_or(0, |count| count.load(Relaxed))
    }

    pub(super) fn cleared(&self, reason: Reason) {
        if let Some(count) = self.cleared.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}
