//! Starting the discovery sources, and what readiness and metrics say of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::config::{Discovery, FileDiscovery, KubernetesDiscovery};
use crate::discovery::kube::{Cluster, KubeStatus, WatchStatus};
use crate::discovery::{self, SourceStatus};
use crate::domain::EndpointSpec;
use crate::state::{Change, SourceId};
use crate::telemetry::metrics::{Declaration, families};

use super::Cold;

/// How often a start looks whether the first endpoints are there.
const KNOWN_POLL: Duration = Duration::from_millis(2);
/// Endpoints written in the configuration.
const STATIC: SourceId = SourceId(0);
/// Endpoints of the watched file.
const FILE: SourceId = SourceId(1);
/// Endpoints of the Kubernetes cluster.
const KUBERNETES: SourceId = SourceId(2);

/// Labels of the series of each kind of object that may be watched.
const RESOURCES: [&[(&str, &str)]; 5] = [
    &[("resource", "pods")],
    &[("resource", "inferencepools")],
    &[("resource", "modeladapters")],
    &[("resource", "inferenceobjectives")],
    &[("resource", "inferencemodelrewrites")],
];

/// Whether a source has given its endpoints once.
pub(super) type IsLoaded = Box<dyn Fn() -> bool + Send + Sync>;

/// Gives the registry the endpoints that are written in the configuration, in place of those before.
pub(super) async fn send_static(changes: &mpsc::Sender<Change>, discovery: &Discovery) {
    let specs = discovery.fixed.iter().map(EndpointSpec::from).collect();
    // The registry's task lives as long as we do; if it is gone, so is the process.
    drop(changes.send(Change::Replace(STATIC, specs)).await);
}

/// The watched file of endpoints, which a reload may change.
#[derive(Debug, Clone)]
pub(super) struct FileSource {
    path: watch::Sender<Option<FileDiscovery>>,
    status: Arc<SourceStatus>,
}

impl FileSource {
    pub(super) fn new(discovery: &Discovery) -> Self {
        Self { path: watch::Sender::new(discovery.file.clone()), status: Arc::default() }
    }

    /// From now on the endpoints are in the file that `discovery` names, if it names one.
    pub(super) fn change(&self, discovery: &Discovery) {
        self.path.send_replace(discovery.file.clone());
    }

    /// Says how discovery stands; of Kubernetes there is a condition of its own.
    pub(super) fn tell(&self, readiness: &Readiness, discovery: &Discovery) {
        let status = Arc::clone(&self.status);
        match discovery {
            Discovery { file: Some(_), .. } => {
                readiness.watch("discovery", move || match (status.loaded(), status.last_error()) {
                    (true, None) => (true, "endpoint file loaded".to_owned()),
                    (true, Some(error)) => (true, format!("the last good endpoints stay in use: {error}")),
                    (false, Some(error)) => (false, error),
                    (false, None) => (false, "endpoint file not read yet".to_owned()),
                });
            }
            discovery if !discovery.has_source() => {
                let detail =
                    "no source of endpoints is configured: write `static`, `file` or `kubernetes` under `discovery`";
                readiness.set("discovery", false, detail);
            }
            _ => readiness.set("discovery", true, "there is no endpoint file, and none is needed"),
        }
    }
}

/// Follows the file that is named now. When none is named any more, its endpoints leave.
async fn follow_file(
    mut path: watch::Receiver<Option<FileDiscovery>>,
    sink: mpsc::Sender<Change>,
    status: Arc<SourceStatus>,
    cancel: CancellationToken,
) {
    let mut had_file = false;
    loop {
        let file = path.borrow_and_update().clone();
        let is_named = file.is_some();
        let follow = async {
            match file {
                Some(file) => discovery::run_file(file, FILE, sink.clone(), Arc::clone(&status), cancel.clone()).await,
                None if had_file => drop(sink.send(Change::Replace(FILE, Vec::new())).await),
                None => {}
            }
            // A file is followed to the end; without one there is nothing more to do.
            if !is_named {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = follow => return,
            Ok(()) = path.changed() => had_file = is_named,
        }
    }
}

impl Cold {
    /// Starts the sources, and tells those that give their endpoints only later. Ready when each has done so once.
    pub(super) async fn start_discovery(&self) -> anyhow::Result<Vec<IsLoaded>> {
        let discovery = &self.config.discovery;
        if !discovery.fixed.is_empty() {
            send_static(&self.changes, discovery).await;
        }
        let mut sources: Vec<IsLoaded> = Vec::new();
        self.watch_file();
        let status = Arc::clone(&self.file.status);
        let follow =
            follow_file(self.file.path.subscribe(), self.changes.clone(), Arc::clone(&status), self.cancel.clone());
        self.keep("endpoint file", follow);
        if discovery.file.is_some() {
            sources.push(Box::new(move || status.loaded()));
        }
        if let Some(kubernetes) = discovery.kubernetes.clone() {
            sources.push(self.start_kubernetes(kubernetes).await?);
        }
        self.file.tell(&self.readiness, discovery);
        Ok(sources)
    }

    /// Waits until every source has given its endpoints once and the registry has taken them. Whoever listens before
    /// refuses requests that the proxy could have sent on without us.
    pub(super) async fn endpoints_known(&self, sources: &[IsLoaded]) {
        let taken = || self.changes.capacity() == self.changes.max_capacity();
        while !(sources.iter().all(|is_loaded| is_loaded()) && taken()) {
            tokio::time::sleep(KNOWN_POLL).await;
        }
    }

    fn watch_file(&self) {
        let status = &self.file.status;
        let (ok, failed) = (Arc::clone(status), Arc::clone(status));
        let family = families::DISCOVERY_RELOADS;
        self.metrics.watch(family, &[("source", "file"), ("result", "ok")], move || ok.reloads_ok() as f64);
        self.metrics.watch(family, &[("source", "file"), ("result", "failed")], move || failed.reloads_failed() as f64);
    }

    async fn start_kubernetes(&self, config: KubernetesDiscovery) -> anyhow::Result<IsLoaded> {
        let cluster = Cluster::connect(config).await.context("cannot watch Kubernetes")?;
        let status = Arc::clone(cluster.status());
        self.watch_cluster(&status);
        self.keep(
            "kubernetes",
            cluster.run(KUBERNETES, self.changes.clone(), self.core.load().policies.clone(), self.cancel.clone()),
        );
        Ok(Box::new(move || status.loaded()))
    }

    fn watch_cluster(&self, status: &Arc<KubeStatus>) {
        let source = Arc::clone(status);
        self.readiness.watch("kubernetes", move || source.readiness());
        let pods = Arc::clone(status);
        self.metrics.watch(families::KUBERNETES_PODS, &[], move || pods.pods() as f64);
        for labels in RESOURCES {
            let resource = labels.first().map_or("", |(_, resource)| *resource);
            let is_of = move |watch: &WatchStatus| watch.resource == resource;
            if !status.watches().iter().any(is_of) {
                continue;
            }
            let silence = Arc::clone(status);
            self.metrics.watch(families::KUBERNETES_SILENCE, labels, move || silence.silence(resource).as_secs_f64());
            let watch = |family: Declaration, count: fn(&WatchStatus) -> &AtomicU64| {
                let status = Arc::clone(status);
                self.metrics.watch(family, labels, move || {
                    let watches = status.watches().iter().filter(|watch| is_of(watch));
                    watches.map(|watch| count(watch).load(Relaxed)).sum::<u64>() as f64
                });
            };
            watch(families::KUBERNETES_EVENTS, |watch| &watch.events);
            watch(families::KUBERNETES_LISTINGS, |watch| &watch.listings);
            watch(families::KUBERNETES_ERRORS, |watch| &watch.errors);
            watch(families::KUBERNETES_REFUSED, |watch| &watch.refused);
        }
    }
}
