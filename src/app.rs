//! Wiring: builds the parts, owns the task tree, and knows the order of start and stop.

mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::{Health, HealthServer};
use tracing::{error, info, warn};

use crate::admin::{self, AdminState, Readiness};
use crate::config::{Config, Loaded, Routing};
use crate::discovery;
use crate::domain::{Clock, Complaint};
use crate::exchange::Core;
use crate::ext_proc::{HealthBoard, Server, ServerOptions, Settings, serve_health};
use crate::index::Stats;
use crate::routing::{Configured, StrategySet, describe};
use crate::scrape::{self, Freshness, ScrapeStatus};
use crate::state::{Change, Observer, Reader, Registry, run_registry};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::families;

use prompts::Prompts;

mod prompts;

/// Changes that may wait for the registry; a source waits above it.
const CHANGES_MAX: usize = 1024;
/// How long background tasks may take to end.
const LAST_WAIT: Duration = Duration::from_secs(3);
/// How often gRPC health is brought in step with readiness.
const HEALTH_PACE: Duration = Duration::from_millis(50);
/// How often what is known of prefixes is put in order.
const UPKEEP_PACE: Duration = Duration::from_secs(1);
/// What is wrong with the strategies and profiles of a configuration.
pub fn check_strategies(config: &Config) -> Vec<Complaint> {
    StrategySet::configured(configured(config)).err().map(|invalid| invalid.0).unwrap_or_default()
}

fn configured(config: &Config) -> Configured<'_> {
    let Routing { algorithm, header, session_key_file, strategies, models, .. } = &config.routing;
    let (session_key_file, prefix_bytes) = (session_key_file.as_deref(), config.limits.prefix_index_bytes);
    Configured { algorithm, header: *header, session_key_file, strategies, models, prefix_bytes }
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
        let strategies = Arc::new(StrategySet::configured(configured(&config))?);
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
        let sources = self.start_discovery().await?;
        self.start_scraping();
        self.start_upkeep();
        self.start_admin().await?;
        let (health, answers) = HealthBoard::new().await;
        self.start_health(answers.clone()).await?;
        tokio::select! {
            () = self.endpoints_known(&sources) => {}
            () = signals.recv() => return Ok(()),
            failed = self.failed() => return failed,
        }
        let server = self.start_ext_proc(answers).await?;
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

    /// Keeps what is known of prefixes in order, and shows it.
    fn start_upkeep(&self) {
        let prefixes = Arc::clone(self.core.strategies.prefixes());
        let watch = |family, labels, read: fn(Stats) -> f64| {
            let prefixes = Arc::clone(&prefixes);
            self.metrics.watch(family, labels, move || read(prefixes.stats()));
        };
        watch(families::PREFIX_INDEX_BYTES, &[], |stats| stats.bytes as f64);
        watch(families::PREFIX_INDEX_BLOCKS, &[], |stats| stats.blocks as f64);
        watch(families::PREFIX_INDEX_HELD, &[], |stats| stats.held as f64);
        let dropped = families::PREFIX_INDEX_DROPPED;
        watch(dropped, &[("reason", "full")], |stats| stats.evicted_full as f64);
        watch(dropped, &[("reason", "memory")], |stats| stats.evicted_memory as f64);
        watch(dropped, &[("reason", "expired")], |stats| stats.expired as f64);
        let (reader, clock, cancel) = (self.reader.clone(), self.clock.clone(), self.cancel.clone());
        self.keep("prefix upkeep", async move {
            while cancel.run_until_cancelled(tokio::time::sleep(UPKEEP_PACE)).await.is_some() {
                prefixes.upkeep(reader.load().endpoints(), clock.now());
            }
        });
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

    /// Serves health at a port of its own, if one is asked for: probes look at it before anything else is up.
    async fn start_health<H: Health>(&self, health: HealthServer<H>) -> anyhow::Result<()> {
        let Some(address) = self.config.listen.health else { return Ok(()) };
        let served = serve_health(address, health, self.cancel.clone())
            .await
            .with_context(|| format!("cannot listen for health requests on {address}"))?;
        self.keep("health", served);
        Ok(())
    }

    async fn start_ext_proc<H: Health>(&self, health: HealthServer<H>) -> anyhow::Result<Server> {
        let config = &*self.config;
        let core = Arc::clone(&self.core);
        let settings = Arc::new(Settings::from(config));
        let server = Server::start(&ServerOptions::from(config), core, settings, health, &self.tasks, &self.cancel)
            .await
            .with_context(|| format!("cannot listen for ext_proc on {}", config.listen.ext_proc))?;
        let address = server.tcp_address().map_or_else(|| config.listen.ext_proc.to_string(), |tcp| tcp.to_string());
        self.readiness.set("ext_proc", true, "listening");
        info!(ext_proc = address, tls = ?config.listen.tls, algorithm = config.routing.algorithm, "fairlead serves");
        Ok(server)
    }

    /// Keeps gRPC health equal to readiness; never ends.
    async fn follow_readiness(&self, health: &HealthBoard) {
        let mut was_ready = false;
        loop {
            let is_ready = self.readiness.is_ready();
            if is_ready != was_ready {
                health.set_ready(is_ready).await;
                was_ready = is_ready;
            }
            tokio::time::sleep(HEALTH_PACE).await;
        }
    }

    /// Leaves in order: says so, gives gateways time to go elsewhere, lets running streams end.
    async fn drain(&self, health: &HealthBoard, server: Server) {
        let shutdown = &self.config.shutdown;
        info!(delay = ?shutdown.delay, grace = ?shutdown.grace, "draining");
        self.readiness.set("draining", false, "shutting down");
        health.set_ready(false).await;
        tokio::time::sleep(shutdown.delay).await;
        if !server.shut_down(shutdown.grace).await {
            warn!("streams were still open when the grace period ended");
        }
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
