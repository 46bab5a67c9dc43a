//! How reading the configuration again went.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// How reading the configuration again went. Written by whoever reads it; read by metrics, readiness and `/api/config`.
#[derive(Debug)]
pub struct ReloadStatus {
    ok: AtomicU64,
    failed: AtomicU64,
    report: Mutex<ReloadReport>,
}

/// The same for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// When the configuration in effect was read, in seconds since 1970.
    loaded_at: u64,
    /// Keys that have another value in the file than in effect, for they wait for a restart.
    pub waiting_for_restart: Vec<String>,
    /// Why what was read last is not in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Default for ReloadStatus {
    /// Read just now, for the first time.
    fn default() -> Self {
        let report = ReloadReport { loaded_at: now(), ..ReloadReport::default() };
        Self { ok: AtomicU64::new(0), failed: AtomicU64::new(0), report: Mutex::new(report) }
    }
}

impl ReloadStatus {
    /// The configuration was read again and is in effect, apart from these keys. True if they are others than before.
    pub fn succeeded(&self, waiting_for_restart: Vec<String>) -> bool {
        self.ok.fetch_add(1, Relaxed);
        let mut report = self.lock();
        let is_new = report.waiting_for_restart != waiting_for_restart;
        *report = ReloadReport { loaded_at: now(), waiting_for_restart, error: None };
        is_new
    }

    /// The configuration was read again and cannot be used; the one before stays in effect.
    pub fn failed(&self, error: String) {
        self.failed.fetch_add(1, Relaxed);
        self.lock().error = Some(error);
    }

    /// Times that it was read again and used.
    pub fn times_ok(&self) -> u64 {
        self.ok.load(Relaxed)
    }

    /// Times that it was read again and refused.
    pub fn times_failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// When the configuration in effect was read, in seconds since 1970.
    pub fn loaded_at(&self) -> u64 {
        self.lock().loaded_at
    }

    /// How it stands now.
    pub fn report(&self) -> ReloadReport {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReloadReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_new_once_and_an_error_lasts_until_the_next_good_reading() {
        let status = ReloadStatus::default();
        let keys = || vec!["listen.admin".to_owned()];
        assert!(status.succeeded(keys()) && !status.succeeded(keys()));
        status.failed("fairlead.yaml:3:1: unknown key".to_owned());
        let report = status.report();
        assert_eq!((report.waiting_for_restart, report.error.is_some()), (keys(), true));
        assert!(status.succeeded(Vec::new()));
        assert_eq!((status.report().error, status.times_ok(), status.times_failed()), (None, 3, 1));
    }
}
