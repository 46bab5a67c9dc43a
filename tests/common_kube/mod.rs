//! What the tests of discovery in Kubernetes share: a fake API server, and discovery with its registry before it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead::config::KubernetesDiscovery;
use fairlead::discovery::kube::{Cluster, KubeStatus};
use fairlead::state::{PolicyReader, Reader, Registry, SourceId, run_registry};
use fairlead_lab::kube::{FakeApi, Pod};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Longest wait for anything that ought to happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const MODEL: &str = "llama-3-8b";

/// A registry that follows a cluster.
pub(crate) struct Watching {
    pub(crate) reader: Reader,
    pub(crate) policies: PolicyReader,
    pub(crate) status: Arc<KubeStatus>,
    _stop: DropGuard,
}

/// Discovery of everything that `api` has, with short watches.
pub(crate) fn config(api: &FakeApi) -> KubernetesDiscovery {
    KubernetesDiscovery {
        server: Some(api.url()),
        watch_timeout: Duration::from_secs(1),
        ..KubernetesDiscovery::default()
    }
}

/// Begins to watch; returns before anything is listed.
pub(crate) async fn watch(config: KubernetesDiscovery) -> Watching {
    let cluster = Cluster::connect(config).await.unwrap();
    let status = Arc::clone(cluster.status());
    let registry = Registry::new();
    let reader = registry.reader();
    let (sink, changes) = mpsc::channel(1024);
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(run_registry(registry, changes, Vec::new(), cancel.clone()));
    let policies = PolicyReader::default();
    tasks.spawn(cluster.run(SourceId(0), sink, policies.clone(), cancel.clone()));
    Watching { reader, policies, status, _stop: cancel.drop_guard() }
}

impl Watching {
    /// Addresses of the endpoints.
    pub(crate) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.reader.load().endpoints().iter().map(|endpoint| endpoint.spec.address).collect()
    }

    pub(crate) async fn has(&self, wanted: impl IntoIterator<Item = SocketAddr>) {
        let wanted: BTreeSet<_> = wanted.into_iter().collect();
        soon("the endpoints are those of the cluster", || self.addresses() == wanted).await;
    }

    /// Errors and listings of all watches.
    pub(crate) fn counts(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let watches = self.status.watches().iter();
        watches.fold((0, 0), |(e, l), watch| (e + watch.errors.load(Relaxed), l + watch.listings.load(Relaxed)))
    }
}

/// Waits for a condition; how long it took.
pub(crate) async fn soon(what: &str, condition: impl Fn() -> bool) -> Duration {
    let since = Instant::now();
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, holds).await.is_ok(), "{what}: not within {SOON:?}");
    since.elapsed()
}

/// The address of the pod with that number.
pub(crate) fn address(number: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0001 + number).to_be_bytes(), 8000))
}

/// A ready pod.
pub(crate) fn pod(number: u32) -> Pod {
    Pod::new(format!("engine-{number:05}"), address(number), MODEL)
}

/// Times in order, as a line for people.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() - 1) * percent / 100).copied().unwrap_or_default();
    format!("p50 {:.1?}, p99 {:.1?}, worst {:.1?}", at(50), at(99), at(100))
}
