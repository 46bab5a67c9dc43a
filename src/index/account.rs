//! The bytes held, against a bound that is kept.

use super::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Memory is taken here before it is allocated, so that what is held never exceeds the bound, not even while a table
/// moves.
#[derive(Debug)]
pub(super) struct Account {
    held: AtomicUsize,
    bytes_max: usize,
}

impl Account {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: AtomicUsize::new(0), bytes_max }
    }

    /// Takes so many bytes, if there is room.
    #[must_use]
    pub(super) fn take(&self, bytes: usize) -> bool {
        let within = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        bytes == 0 || self.held.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            let before = self.held.fetch_sub(bytes, Relaxed);
            debug_assert!(before >= bytes, "gave back {bytes} of {before} bytes");
        }
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}
