//! Wiring: builds the parts, owns the task tree, and knows the order of start and stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::admin::{self, AdminState, Readiness};
use crate::config::{Config, Loaded, Routing};
use crate::discovery::{self, SourceStatus};
use crate::domain::{Clock, Complaint, EndpointSpec};
use crate::exchange::Core;
use crate::ext_proc::{HEALTH_NAMES, Server, ServerOptions, Settings};
use crate::routing::{Configured, StrategySet, describe};
use crate::scrape::{self, Freshness, ScrapeStatus};
use crate::state::{Change, Observer, Reader, Registry, SourceId, run_registry};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::families;

use prompts::Prompts;

mod prompts;

/// Changes that may wait for the registry; a source waits above it.
const CHANGES_MAX: usize = 1024;
/// How often a start looks whether the first endpoints are there.
const KNOWN_POLL: Duration = Duration::from_millis(2);
/// How long background tasks may take to end.
const LAST_WAIT: Duration = Duration::from_secs(3);
/// How often gRPC health is brought in step with readiness.
const HEALTH_PACE: Duration = Duration::from_millis(50);
/// Endpoints written in the configuration.
const STATIC: SourceId = SourceId(0);
/// Endpoints of the watched file.
const FILE: SourceId = SourceId(1);

/// What is wrong with the strategies and profiles of a configuration.
pub fn check_strategies(config: &Config) -> Vec<Complaint> {
    StrategySet::configured(configured(&config.routing)).err().map(|invalid| invalid.0).unwrap_or_default()
}

fn configured(routing: &Routing) -> Configured<'_> {
    let Routing { algorithm, header, session_key_file, strategies, models, .. } = routing;
    Configured { algorithm, header: *header, session_key_file: session_key_file.as_deref(), strategies, models }
}

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once.
///
/// # Errors
/// What keeps it from starting: an address that cannot be bound, most of all.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    // The cold side: discovery, scraping, admin. The hot side has threads of its own (`ext_proc::Server`).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(Arc::new(loaded.config)))
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let cold = Cold::new(config)?;
    let served = cold.serve(&mut signals).await;
    cold.stop().await;
    served
}

/// What the cold side's tasks share.
struct Cold {
    config: Arc<Config>,
    reader: Reader,
    changes: mpsc::Sender<Change>,
    core: Arc<Core>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    clock: Clock,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Cold {
    /// Builds the parts and starts the registry, and the writer of Envoy's endpoint file behind it.
    fn new(config: Arc<Config>) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (reader, clock) = (registry.reader(), Clock::start());
        let strategies = Arc::new(StrategySet::configured(configured(&config.routing))?);
        let metrics = Metrics::new(&strategies.names().iter().map(|name| &**name).collect::<Vec<_>>());
        metrics.watch_snapshot(reader.clone(), config.scrape.stale_after, clock.clone(), config.metrics.per_endpoint);
        let combined = Arc::clone(&strategies);
        metrics.watch(families::COMBINATIONS_BUILT, &[], move || combined.combinations_built() as f64);
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());

        let (changes, received) = mpsc::channel(CHANGES_MAX);
        let (version, versions) = watch::channel(0);
        let forgetting = Arc::clone(&strategies);
        let forget: Observer = Box::new(move |applied, _| {
            applied.removed.iter().for_each(|endpoint| forgetting.on_endpoint_removed(endpoint.id));
        });
        let tell: Observer = Box::new(move |_, snapshot| {
            version.send_replace(snapshot.version());
        });
        let readiness = Arc::new(Readiness::default());
        let prompts = Prompts::new(&config, &reader, &clock)?;
        let core = Core::new(&config, reader.clone(), strategies, Arc::clone(&metrics), clock.clone());
        let core = Arc::new(core.looking_up(prompts.as_ref().map(Prompts::lookup)));
        let cold = Self { config, reader, changes, core, metrics, readiness, clock, tasks, cancel };
        cold.keep("registry", run_registry(registry, received, vec![forget, tell], cold.cancel.clone()));
        if let Some(prompts) = prompts {
            prompts.start(&cold);
        }
        if let Some(file) = cold.config.envoy.eds_file.clone() {
            let (reader, cluster) = (cold.reader.clone(), cold.config.envoy.eds_cluster.clone());
            cold.keep("eds", discovery::run_eds(reader, versions, file, cluster, cold.cancel.clone()));
        }
        Ok(cold)
    }

    /// Everything from start to drain.
    async fn serve(&self, signals: &mut Signals) -> anyhow::Result<()> {
        let sources = self.start_discovery().await;
        self.start_scraping();
        self.start_admin().await?;
        tokio::select! {
            () = self.endpoints_known(&sources) => {}
            () = signals.recv() => return Ok(()),
            failed = self.failed() => return failed,
        }
        let (health, server) = self.start_ext_proc().await?;
        tokio::select! {
            () = signals.recv() => {}
            () = self.follow_readiness(&health) => {}
            failed = self.failed() => return failed,
        }
        tokio::select! {
            () = self.drain(&health, server) => {}
            () = signals.recv() => warn!("second signal: leaving at once"),
        }
        Ok(())
    }

    /// Ends when a part of the service has ended by itself.
    async fn failed(&self) -> anyhow::Result<()> {
        self.cancel.cancelled().await;
        anyhow::bail!("a part of the service ended by itself; see the log above")
    }

    /// Ends all tasks.
    async fn stop(&self) {
        self.cancel.cancel();
        self.tasks.close();
        // Nothing waits that is not cancelled; should it, the process ends all the same.
        if tokio::time::timeout(LAST_WAIT, self.tasks.wait()).await.is_err() {
            warn!("a background task did not end");
        }
    }

    /// Runs a background task that must not end before the process does. If it does, by panicking most likely, the
    /// process ends: half a service that looks healthy is worse than a restart.
    fn keep(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (running, cancel) = (self.tasks.spawn(task), self.cancel.clone());
        self.tasks.spawn(async move {
            let ended = running.await;
            if !cancel.is_cancelled() {
                error!(task = name, panicked = ended.is_err(), "a background task ended by itself");
                cancel.cancel();
            }
        });
    }

    /// Starts the sources, and tells those that give their endpoints only later. Ready when each has done so once.
    async fn start_discovery(&self) -> Vec<Arc<SourceStatus>> {
        let discovery = &self.config.discovery;
        if !discovery.fixed.is_empty() {
            let specs = discovery.fixed.iter().map(EndpointSpec::from).collect();
            // The registry's task lives as long as we do; if it is gone, so is the process.
            drop(self.changes.send(Change::Replace(STATIC, specs)).await);
        }
        let mut sources = Vec::new();
        if let Some(file) = discovery.file.clone() {
            let status = Arc::new(SourceStatus::default());
            self.watch_source(&status);
            let (sink, cancel) = (self.changes.clone(), self.cancel.clone());
            sources.push(Arc::clone(&status));
            self.keep("endpoint file", discovery::run_file(file, FILE, sink, status, cancel));
        } else if discovery.fixed.is_empty() {
            self.readiness.set("discovery", true, "no source of endpoints is configured");
        } else {
            self.readiness.set("discovery", true, "endpoints are written in the configuration");
        }
        sources
    }

    /// Waits until every source has given its endpoints once and the registry has taken them. Whoever listens before
    /// refuses requests that the proxy could have sent on without us.
    async fn endpoints_known(&self, sources: &[Arc<SourceStatus>]) {
        let taken = || self.changes.capacity() == self.changes.max_capacity();
        while !(sources.iter().all(|source| source.loaded()) && taken()) {
            tokio::time::sleep(KNOWN_POLL).await;
        }
    }

    fn watch_source(&self, status: &Arc<SourceStatus>) {
        let source = Arc::clone(status);
        self.readiness.watch("discovery", move || match (source.loaded(), source.last_error()) {
            (true, None) => (true, "endpoint file loaded".to_owned()),
            (true, Some(error)) => (true, format!("the last good endpoints stay in use: {error}")),
            (false, Some(error)) => (false, error),
            (false, None) => (false, "endpoint file not read yet".to_owned()),
        });
        let (ok, failed) = (Arc::clone(status), Arc::clone(status));
        let family = families::DISCOVERY_RELOADS;
        self.metrics.watch(family, &[("source", "file"), ("result", "ok")], move || ok.reloads_ok() as f64);
        self.metrics.watch(family, &[("source", "file"), ("result", "failed")], move || failed.reloads_failed() as f64);
    }

    fn start_scraping(&self) {
        let status = Arc::new(ScrapeStatus::default());
        let watch = |family, labels, count: fn(&ScrapeStatus) -> &AtomicU64| {
            let status = Arc::clone(&status);
            self.metrics.watch(family, labels, move || count(&status).load(Relaxed) as f64);
        };
        watch(families::SCRAPES, &[("result", "ok")], |status| &status.reads_ok);
        watch(families::SCRAPES, &[("result", "failed")], |status| &status.reads_failed);
        watch(families::SCRAPE_UNREADABLE, &[], |status| &status.unreadable_lines);
        watch(families::SCRAPE_TOO_LARGE, &[], |status| &status.pages_too_large);
        watch(families::ENGINE_RESTARTS, &[], |status| &status.engine_restarts);
        let (reader, clock, stale) = (self.reader.clone(), self.clock.clone(), self.config.scrape.stale_after);
        let freshness = Freshness::new(reader, clock, stale, Arc::clone(&status));
        self.readiness.watch("scraping", move || (true, freshness.text()));
        let (reader, config) = (self.reader.clone(), self.config.scrape.clone());
        let demand = Arc::clone(self.core.strategies.demand());
        self.keep("scraping", scrape::run(reader, demand, config, self.clock.clone(), status, self.cancel.clone()));
    }

    async fn start_admin(&self) -> anyhow::Result<()> {
        let address = self.config.listen.admin;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen for admin requests on {address}"))?;
        self.readiness.set("ext_proc", false, "does not listen before the first endpoints are known");
        info!(admin = %listener.local_addr()?, "admin pages are served");
        let state = AdminState {
            reader: self.reader.clone(),
            metrics: Arc::clone(&self.metrics),
            readiness: Arc::clone(&self.readiness),
            config: Arc::clone(&self.config),
            clock: self.clock.clone(),
            stale_after: self.config.scrape.stale_after,
            core: Arc::clone(&self.core),
            strategies: describe::describe(&self.core.strategies),
        };
        let served = admin::serve(listener, state, self.cancel.clone());
        self.keep("admin", async move {
            if let Err(error) = served.await {
                error!(%error, "admin requests can no longer be served");
            }
        });
        Ok(())
    }

    async fn start_ext_proc(&self) -> anyhow::Result<(HealthReporter, Server)> {
        let config = &*self.config;
        let (health, health_server) = tonic_health::server::health_reporter();
        set_health(&health, ServingStatus::NotServing).await;
        let core = Arc::clone(&self.core);
        let settings = Arc::new(Settings::from(config));
        let server =
            Server::start(&ServerOptions::from(config), core, settings, health_server, &self.tasks, &self.cancel)
                .await
                .with_context(|| format!("cannot listen for ext_proc on {}", config.listen.ext_proc))?;
        let address = server.tcp_address().map_or_else(|| config.listen.ext_proc.to_string(), |tcp| tcp.to_string());
        self.readiness.set("ext_proc", true, "listening");
        info!(ext_proc = address, algorithm = config.routing.algorithm, "fairlead serves");
        Ok((health, server))
    }

    /// Keeps gRPC health equal to readiness; never ends.
    async fn follow_readiness(&self, health: &HealthReporter) {
        let mut was_ready = false;
        loop {
            let is_ready = self.readiness.is_ready();
            if is_ready != was_ready {
                let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                set_health(health, status).await;
                was_ready = is_ready;
            }
            tokio::time::sleep(HEALTH_PACE).await;
        }
    }

    /// Leaves in order: says so, gives gateways time to go elsewhere, lets running streams end.
    async fn drain(&self, health: &HealthReporter, server: Server) {
        let shutdown = &self.config.shutdown;
        info!(delay = ?shutdown.delay, grace = ?shutdown.grace, "draining");
        self.readiness.set("draining", false, "shutting down");
        set_health(health, ServingStatus::NotServing).await;
        tokio::time::sleep(shutdown.delay).await;
        if !server.shut_down(shutdown.grace).await {
            warn!("streams were still open when the grace period ended");
        }
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// SIGTERM and SIGINT as one.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
