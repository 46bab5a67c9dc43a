//! How a source is doing, for metrics and readiness.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a discovery source is doing. Written by the source; read by metrics, readiness and the admin page.
#[derive(Debug, Default)]
pub struct SourceStatus {
    loaded: AtomicBool,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl SourceStatus {
    /// Whether the source has ever given endpoints; it stays so when a later reading fails.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    /// Readings that were taken, the first included.
    pub fn reloads_ok(&self) -> u64 {
        self.reloads_ok.load(Relaxed)
    }

    /// Readings that were refused; the endpoints of the last good one stay.
    pub fn reloads_failed(&self) -> u64 {
        self.reloads_failed.load(Relaxed)
    }

    /// Why the newest reading was refused; `None` when it was taken, or none was made.
    pub fn last_error(&self) -> Option<String> {
        self.error().clone()
    }

    pub(super) fn succeeded(&self) {
        *self.error() = None;
        self.reloads_ok.fetch_add(1, Relaxed);
        self.loaded.store(true, Relaxed);
    }

    pub(super) fn failed(&self, error: String) {
        *self.error() = Some(error);
        self.reloads_failed.fetch_add(1, Relaxed);
    }

    fn error(&self) -> MutexGuard<'_, Option<String>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
