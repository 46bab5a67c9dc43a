//! Endpoints from the pods of a Kubernetes cluster: by AIBrix's labels, and as members of `InferencePool`s.
//!
//! Watches say what they see (`watch`); a picture without I/O folds it and tells the difference (`picture`); one patch
//! goes to the registry for all that was seen at once. While the API server is away, nothing is said, so everything
//! stays as it was.

mod client;
mod endpoints;
mod objects;
mod picture;
mod policies;
mod pools;
mod rules;
mod scope;
mod status;
mod table;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::KubernetesDiscovery;
use crate::state::{Change, PolicyReader, SourceId};

use objects::{Custom, Name, Pod};
use picture::{Kind, Picture, Said};
use rules::Rules;
use scope::{Scope, Scopes};
use watch::{Mouth, follow};

pub use client::ConnectError;
pub use status::{KubeStatus, WatchStatus};

/// Longest wait for a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the API server may be silent, beyond the length of a watch.
const SILENCE: Duration = Duration::from_secs(10);
/// Happenings that wait to be folded in; a watch waits above it.
const SAID_MAX: usize = 1024;

/// A cluster to be watched.
pub struct Cluster {
    config: KubernetesDiscovery,
    /// One for each watch.
    clients: Vec<Client>,
    scopes: Scopes,
    plan: Vec<(Kind, Scope)>,
    status: Arc<KubeStatus>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("plan", &self.plan).field("status", &self.status).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Prepares to watch a cluster; asks nothing of it yet.
    ///
    /// # Errors
    /// If nothing says where the API server is, or its certificates cannot be read.
    pub async fn connect(config: KubernetesDiscovery) -> Result<Self, ConnectError> {
        let settings = client::settings(&config).await?;
        let scopes = Scopes::plan(&config, &settings.default_namespace);
        let plan = plan(&config, &scopes);
        let status = Arc::new(KubeStatus::new(plan.iter().map(|(kind, _)| kind.plural())));
        let clients = (0..plan.len()).map(|watch| client::client(settings.clone(), watch, &status));
        let clients = clients.collect::<Result<_, _>>()?;
        Ok(Self { config, clients, scopes, plan, status })
    }

    /// How it is doing.
    pub fn status(&self) -> &Arc<KubeStatus> {
        &self.status
    }

    /// Keeps the registry's set for `source` equal to what the cluster has, until `cancel` fires or the registry is
    /// gone, and `policies` to what its objectives and rewrites say. Says nothing before everything was listed once.
    pub async fn run(
        self,
        source: SourceId,
        sink: mpsc::Sender<Change>,
        policies: PolicyReader,
        cancel: CancellationToken,
    ) {
        let (said, hearing) = mpsc::channel(SAID_MAX);
        let watches = join_all((0..).zip(&self.plan).map(|(watch, (kind, scope))| {
            let mouth = Mouth { watch, sink: said.clone() };
            self.watch(*kind, scope, mouth)
        }));
        let folding = self.fold(source, hearing, &sink, &policies);
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = watches => {}
            () = folding => {}
        }
    }

    fn watch(&self, kind: Kind, scope: &Scope, mouth: Mouth) -> BoxFuture<'_, ()> {
        let Some(client) = self.clients.get(mouth.watch).cloned() else { return Box::pin(std::future::ready(())) };
        let status = &*self.status;
        let seconds = u32::try_from(self.config.watch_timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut config = watcher::Config::default().timeout(seconds);
        if kind == Kind::Pods
            && let Some(selector) = self.pod_selector()
        {
            config = config.labels(&selector);
        }
        if let Scope::Object(name) = scope {
            config = config.fields(&format!("metadata.name={}", name.name));
        }
        match (kind.resource(&self.config), scope) {
            (None, Scope::Namespace(namespace)) => {
                Box::pin(follow(Api::<Pod>::namespaced(client, namespace), config, false, mouth, status))
            }
            (None, _) => Box::pin(follow(Api::<Pod>::all(client), config, false, mouth, status)),
            (Some(of), scope) => {
                let api = match scope {
                    Scope::All => Api::<Custom>::all_with(client, &of),
                    Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, &of),
                    Scope::Object(name) => Api::namespaced_with(client, &name.namespace, &of),
                };
                Box::pin(follow(api, config, kind.is_optional(), mouth, status))
            }
        }
    }

    /// What the API server is asked to leave pods out by.
    fn pod_selector(&self) -> Option<String> {
        let local = if self.scopes.is_local_alone() { self.config.local_pool.selector.as_str() } else { "" };
        let parts: Vec<_> = [&self.config.pod_selector, local].into_iter().filter(|text| !text.is_empty()).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    async fn fold(
        &self,
        source: SourceId,
        mut hearing: mpsc::Receiver<(usize, Said)>,
        sink: &mpsc::Sender<Change>,
        policies: &PolicyReader,
    ) {
        let kinds: Vec<_> = self.plan.iter().map(|(kind, _)| *kind).collect();
        let mut picture = Picture::new(Rules::from(&self.config), self.scopes.clone(), &kinds);
        let mut batch = Vec::new();
        while hearing.recv_many(&mut batch, SAID_MAX).await > 0 {
            for (watch, said) in batch.drain(..) {
                picture.fold(watch, said);
            }
            for (kind, count) in picture.take_refused() {
                self.status.refused(kind.plural(), count);
            }
            if !picture.is_complete() {
                continue;
            }
            if let Some(changed) = picture.policies() {
                policies.publish(changed);
            }
            let patch = picture.patch();
            let first = !self.status.loaded();
            if first || !(patch.gone.is_empty() && patch.put.is_empty()) {
                if first {
                    info!(pods = picture.pods(), endpoints = patch.put.len(), "cluster listed");
                }
                let change = Change::Patch { source, gone: patch.gone, put: patch.put };
                if sink.send(change).await.is_err() {
                    return;
                }
            }
            let missing = self.scopes.named.iter().filter(|pool| !picture.has_pool(pool)).map(Name::to_string);
            self.status.set_known(picture.pods(), missing.collect());
        }
    }
}

/// Everything that is to be watched.
fn plan(config: &KubernetesDiscovery, scopes: &Scopes) -> Vec<(Kind, Scope)> {
    // A pool's pods may have a model's label too.
    let adapters = scopes.pods.iter().filter(|_| config.adapters);
    let pods = scopes.pods.iter().map(|scope| (Kind::Pods, scope.clone()));
    let pools = scopes.pools.iter().map(|scope| (Kind::Pools, scope.clone()));
    let mut plan: Vec<_> = pods.chain(pools).chain(adapters.map(|scope| (Kind::Adapters, scope.clone()))).collect();
    if config.objectives {
        for kind in [Kind::Objectives, Kind::Rewrites] {
            plan.extend(scopes.policies().into_iter().map(|scope| (kind, scope)));
        }
    }
    plan
}

impl Kind {
    /// Name of the kind in paths of the API, which metrics go by.
    const fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Pools => "inferencepools",
            Self::Adapters => "modeladapters",
            Self::Objectives => "inferenceobjectives",
            Self::Rewrites => "inferencemodelrewrites",
        }
    }

    /// Whether a cluster may do without it.
    const fn is_optional(self) -> bool {
        matches!(self, Self::Adapters | Self::Objectives | Self::Rewrites)
    }

    /// The custom resource; `None` for pods.
    fn resource(self, config: &KubernetesDiscovery) -> Option<ApiResource> {
        let of = |group: &str, version, kind| {
            Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), self.plural()))
        };
        match self {
            Self::Pods => None,
            Self::Pools => {
                let version = if config.pool_group.contains(".x-k8s.io") { "v1alpha2" } else { "v1" };
                of(&config.pool_group, version, "InferencePool")
            }
            Self::Adapters => of("model.aibrix.ai", "v1alpha1", "ModelAdapter"),
            Self::Objectives => of("llm-d.ai", "v1alpha2", "InferenceObjective"),
            Self::Rewrites => of("llm-d.ai", "v1alpha2", "InferenceModelRewrite"),
        }
    }
}
