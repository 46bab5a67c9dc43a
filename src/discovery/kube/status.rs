//! How the watches are doing, for metrics and readiness.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::table::OBJECTS_MAX;

/// How discovery in Kubernetes is doing. Written by the watches; read by metrics and readiness.
#[derive(Debug)]
pub struct KubeStatus {
    started: Instant,
    loaded: AtomicBool,
    pods: AtomicUsize,
    watches: Vec<WatchStatus>,
    missing: Mutex<Vec<String>>,
}

/// How one watch is doing.
#[derive(Debug)]
pub struct WatchStatus {
    /// What it watches, in the plural of the API.
    pub resource: &'static str,
    /// Objects that came, changed or went.
    pub events: AtomicU64,
    /// Listings that were begun; one is the least.
    pub listings: AtomicU64,
    /// Requests that failed, and watches that broke.
    pub errors: AtomicU64,
    /// Objects that were not taken because there are too many.
    pub refused: AtomicU64,
    /// When it was last answered well, in milliseconds after the start.
    heard: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl KubeStatus {
    pub(super) fn new(resources: impl IntoIterator<Item = &'static str>) -> Self {
        let watch = |resource| WatchStatus {
            resource,
            events: AtomicU64::new(0),
            listings: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            last_error: Mutex::new(None),
        };
        Self {
            started: Instant::now(),
            loaded: AtomicBool::new(false),
            pods: AtomicUsize::new(0),
            watches: resources.into_iter().map(watch).collect(),
            missing: Mutex::new(Vec::new()),
        }
    }

    /// Whether everything that is watched was listed once; it stays so when the API server goes away.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    /// Time since the API server last answered each watch of this resource, as of the one that waits longest: well, or
    /// that there is nothing of the kind for us; since the start, if it never did. A watch is asked for anew each
    /// `watch_timeout`, so much more than that means that we do not hear of changes.
    pub fn silence(&self, resource: &str) -> Duration {
        let watches = self.watches.iter().filter(|watch| watch.resource == resource);
        watches.map(|watch| self.silence_of(watch)).max().unwrap_or_default()
    }

    fn silence_of(&self, watch: &WatchStatus) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(watch.heard.load(Relaxed)))
    }

    /// Pods kept, whether or not they are endpoints.
    pub fn pods(&self) -> usize {
        self.pods.load(Relaxed)
    }

    /// The watches.
    pub fn watches(&self) -> &[WatchStatus] {
        &self.watches
    }

    /// Whether there are endpoints to speak of, and what a person should know.
    pub fn readiness(&self) -> (bool, String) {
        let error = self.watches.iter().find_map(|watch| {
            let (error, silence) = (watch.error().clone()?, self.silence_of(watch).as_secs());
            Some(format!("{}, not heard of for {silence} s: {error}", watch.resource))
        });
        let missing = self.missing().join(", ");
        match (self.loaded(), error) {
            (true, _) if !missing.is_empty() => (false, format!("there is no InferencePool {missing}")),
            (true, None) => (true, format!("{} pods known", self.pods())),
            (true, Some(error)) => (true, format!("the last known endpoints stay in use: {error}")),
            (false, Some(error)) => (false, error),
            (false, None) => (false, "pods are being listed".to_owned()),
        }
    }

    /// The API server answered a watch well.
    pub(super) fn heard(&self, watch: usize) {
        let Some(watch) = self.watches.get(watch) else { return };
        *watch.error() = None;
        watch.heard.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// So many objects of a resource were not taken.
    pub(super) fn refused(&self, resource: &str, count: u64) {
        let watch = self.watches.iter().find(|watch| watch.resource == resource);
        if watch.is_some_and(|watch| count > 0 && watch.refused.fetch_add(count, Relaxed) == 0) {
            warn!(resource, max = OBJECTS_MAX, "more objects than are kept: the rest is not known");
        }
    }

    pub(super) fn set_known(&self, pods: usize, missing: Vec<String>) {
        self.pods.store(pods, Relaxed);
        *self.missing() = missing;
        self.loaded.store(true, Relaxed);
    }

    fn missing(&self) -> MutexGuard<'_, Vec<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchStatus {
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    pub(super) fn listing(&self) {
        self.listings.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, error: String) {
        self.errors.fetch_add(1, Relaxed);
        *self.error() = Some(error);
    }

    fn error(&self) -> MutexGuard<'_, Option<String>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_answered_does_not_speak_for_another() {
        let mut status = KubeStatus::new(["pods", "pods", "modeladapters"]);
        status.started -= Duration::from_secs(100);
        for watch in [0, 2] {
            status.heard(watch);
        }
        let silent = |resource| status.silence(resource) >= Duration::from_secs(100);
        assert_eq!(["pods", "modeladapters"].map(silent), [true, false]);
        status.heard(1);
        assert!(!silent("pods"));
    }

    #[test]
    fn readiness_says_what_is_not_heard_of() {
        let mut status = KubeStatus::new(["pods", "modeladapters"]);
        status.started -= Duration::from_secs(100);
        status.set_known(3, Vec::new());
        status.watches[0].failed("refused".to_owned());
        status.heard(1);
        let (ready, detail) = status.readiness();
        assert!(ready && detail.contains("pods, not heard of for 100 s: refused"), "{detail}");
    }
}
