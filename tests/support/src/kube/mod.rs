//! A Kubernetes API over HTTP, as much of it as watching takes: lists in pages, watches with versions, bookmarks,
//! compaction, selectors. And its faults.
//!
//! What it answers was read off a real API server: a watch from a version that is too old gets status 200, one `ERROR`
//! line with code 410, and the end.

mod objects;
mod serve;
mod store;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use objects::{Pod, custom};
use store::Store;

/// What is wrong with the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every request is answered with 503.
    Refuse,
    /// Every request for pods is.
    RefusePods,
    /// Listings are accepted and never answered.
    HangList,
    /// Watches are accepted and never answered.
    HangWatch,
    /// Watches are answered and then say nothing, not even their end.
    SilentWatch,
    /// Watches are refused with status 410, which a real server says in the stream instead.
    GoneWatch,
    /// Watches are refused with status 403, as by an authorizer that is not itself yet.
    ForbidWatch,
    /// Listings are refused so.
    ForbidList,
    /// Connections are closed as soon as something is asked.
    Reset,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    fault: Mutex<Fault>,
    /// Newest version; watches wake by it.
    version: watch::Sender<u64>,
    /// Ends connections; `true` in the midst of a line.
    cut: broadcast::Sender<bool>,
    /// Asks watches for a bookmark.
    mark: broadcast::Sender<()>,
    requests: Mutex<Vec<String>>,
}

/// A running API server; dropping it ends it.
#[derive(Debug)]
pub struct FakeApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl FakeApi {
    /// Starts one on a free loopback port. It knows pods, `InferencePool`s, and the kinds of `model.aibrix.ai` and
    /// `llm-d.ai` that are watched; `without` are plurals that it does not know after all.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start(without: &[&str]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the API server")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(without)),
            fault: Mutex::default(),
            version: watch::channel(0).0,
            cut: broadcast::channel(16).0,
            mark: broadcast::channel(16).0,
            requests: Mutex::default(),
        });
        let serving = TaskTracker::new().spawn(serve::serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, _task: AbortOnDropHandle::new(serving) })
    }

    /// `http://ip:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds or replaces an object; returns when watches could have seen it.
    pub fn put(&self, plural: &str, object: Value) -> Instant {
        let version = self.shared.store().put(plural, object);
        self.shared.version.send_replace(version);
        Instant::now()
    }

    /// Adds or replaces a pod.
    pub fn put_pod(&self, pod: &Pod) -> Instant {
        self.put("pods", pod.object())
    }

    /// Takes an object out.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> Instant {
        let version = self.shared.store().delete(plural, namespace, name);
        self.shared.version.send_replace(version);
        Instant::now()
    }

    /// Forgets what happened until now: a watch from before has to list again.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Sends every watch a bookmark of the newest version.
    pub fn bookmark(&self) {
        self.shared.mark.send(()).ok();
    }

    /// Ends all connections, in the midst of a line if `mid_line`.
    pub fn cut(&self, mid_line: bool) {
        self.shared.cut.send(mid_line).ok();
    }

    /// Begins or ends a fault; watches that run go on.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Pages are at most so long, whatever is asked for.
    pub fn set_page_max(&self, objects: usize) {
        self.shared.store().page_max = objects;
    }

    /// What was asked since the last call: `LIST path?query` or `WATCH path?query`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.requests))
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
