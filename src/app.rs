//! Wiring: builds the parts, owns the task tree, and knows the order of start and stop.

mod prompts;
mod reload;
mod signals;
mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::{Health, HealthServer};
use tracing::{error, info, warn};

use crate::admin::{self, AdminState, Readiness, ReloadStatus};
use crate::config::{Config, ListenAddress, Loaded, Routing};
use crate::discovery;
use crate::domain::{Clock, Complaint};
use crate::exchange::{Core, CoreReader};
use crate::ext_proc::{BoundServer, HealthBoard, Processor, Server, ServerOptions, serve_health};
use crate::files::{Locked, PathLock};
use crate::index::Stats;
use crate::routing::{Configured, StrategySet};
use crate::scrape::{self, Freshness, ScrapeOptions, ScrapeStatus};
use crate::state::{Change, Observer, Reader, Registry, run_registry};
use crate::telemetry::Metrics;
use crate::telemetry::log::LogControl;
use crate::telemetry::metrics::families;

use prompts::Prompts;
use reload::Reloader;
use signals::{Signals, StopLimit};
use sources::FileSource;

pub use reload::ReadAgain;

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

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once. SIGHUP and a change of the file have
/// the configuration read again.
///
/// # Errors
/// What keeps it from starting: an address that cannot be bound, most of all.
pub fn run(loaded: Loaded, read_again: ReadAgain, log: LogControl) -> anyhow::Result<()> {
    let signals = Signals::start(&loaded.config.shutdown)?;
    // The cold side: discovery, scraping, admin. The hot side has threads of its own (`ext_proc::Server`).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(loaded, read_again, log, signals));
    // What still waits for a file system or a resolver is left behind.
    runtime.shutdown_background();
    served
}

async fn serve(loaded: Loaded, read_again: ReadAgain, log: LogControl, mut signals: Signals) -> anyhow::Result<()> {
    let Loaded { config, file, .. } = loaded;
    let cold = Cold::new(Arc::new(config))?;
    let (reloader, scraping) = cold.reloader(log, signals.limit().clone());
    let hangups = signals.take_hangups();
    let reload = reloader.run(file, read_again, hangups, cold.cancel.clone());
    let served = Box::pin(cold.serve(&mut signals, reload, scraping)).await;
    cold.stop().await;
    served
}

/// What the cold side's tasks share.
struct Cold {
    /// What the start goes by; what is in effect later is the core's.
    config: Arc<Config>,
    reader: Reader,
    changes: mpsc::Sender<Change>,
    /// Changes with each snapshot.
    versions: watch::Receiver<u64>,
    core: CoreReader,
    processor: Processor,
    /// Where discovery reads a file.
    file: FileSource,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    reloads: Arc<ReloadStatus>,
    clock: Clock,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// What no other process may use while we do.
    _locks: Vec<PathLock>,
}

impl Cold {
    /// Builds the parts and starts the registry. Nothing outside of the process is touched.
    fn new(config: Arc<Config>) -> anyhow::Result<Self> {
        let locks = lock_paths(&config)?;
        let registry = Registry::new();
        let (reader, clock) = (registry.reader(), Clock::start());
        let strategies = Arc::new(StrategySet::configured(configured(&config))?);
        let metrics = Metrics::new(&strategies.names().iter().map(|name| &**name).collect::<Vec<_>>());
        metrics.watch_snapshot(reader.clone(), config.scrape.stale_after, clock.clone(), config.metrics.per_endpoint);
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let prompts = Prompts::new(&config, &reader, &clock)?;
        let core = Core::new(&config, reader.clone(), strategies, Arc::clone(&metrics), clock.clone());
        let core = CoreReader::new(core.looking_up(prompts.as_ref().map(Prompts::lookup)));
        let processor = Processor::new(core.load(), &config);
        let file = FileSource::new(&config.discovery);
        let combined = core.clone();
        metrics
            .watch(families::COMBINATIONS_BUILT, &[], move || combined.load().strategies.combinations_built() as f64);

        let (changes, received) = mpsc::channel(CHANGES_MAX);
        let (version, versions) = watch::channel(0);
        let forgetting = core.clone();
        let forget: Observer = Box::new(move |applied, _| {
            let core = forgetting.load();
            applied.removed.iter().for_each(|endpoint| core.strategies.on_endpoint_removed(endpoint.id));
        });
        let tell: Observer = Box::new(move |_, snapshot| {
            version.send_replace(snapshot.version());
        });
        let (readiness, reloads) = (Arc::new(Readiness::default()), Arc::<ReloadStatus>::default());
        let cold = Self {
            config,
            reader,
            changes,
            versions,
            core,
            processor,
            file,
            metrics,
            readiness,
            reloads,
            clock,
            tasks,
            cancel,
            _locks: locks,
        };
        cold.keep("registry", run_registry(registry, received, vec![forget, tell], cold.cancel.clone()));
        if let Some(prompts) = prompts {
            prompts.start(&cold);
        }
        Ok(cold)
    }

    /// What a configuration that is read again is put into, and how the scraper learns of it.
    fn reloader(&self, log: LogControl, limit: StopLimit) -> (Reloader, watch::Receiver<ScrapeOptions>) {
        let demand = Arc::clone(self.core.load().strategies.demand());
        let (scraping, options) = watch::channel(ScrapeOptions { demand, config: self.config.scrape.clone() });
        let reloader = Reloader {
            core: self.core.clone(),
            processor: self.processor.clone(),
            file: self.file.clone(),
            changes: self.changes.clone(),
            scraping,
            metrics: Arc::clone(&self.metrics),
            reader: self.reader.clone(),
            clock: self.clock.clone(),
            readiness: Arc::clone(&self.readiness),
            status: Arc::clone(&self.reloads),
            limit,
            log,
        };
        (reloader, options)
    }

    /// Everything from start to drain.
    async fn serve(
        &self,
        signals: &mut Signals,
        reload: impl Future<Output = ()> + Send + 'static,
        scraping: watch::Receiver<ScrapeOptions>,
    ) -> anyhow::Result<()> {
        // A start that waits, for endpoints or a file system that does not answer, can be stopped.
        let (health, server) = tokio::select! {
            started = self.start(reload, scraping) => started?,
            () = signals.stop() => return Ok(()),
            failed = self.failed() => return failed,
        };
        tokio::select! {
            () = signals.stop() => {}
            () = self.follow_readiness(&health) => {}
            failed = self.failed() => return failed,
        }
        tokio::select! {
            () = self.drain(&health, server) => {}
            () = signals.stop() => warn!("second signal: leaving at once"),
        }
        Ok(())
    }

    /// Binds every socket, so that it is clear that we may run; then has an effect outside; serves when the endpoints are
    /// known.
    async fn start(
        &self,
        reload: impl Future<Output = ()> + Send + 'static,
        scraping: watch::Receiver<ScrapeOptions>,
    ) -> anyhow::Result<(HealthBoard, Server)> {
        self.start_admin().await?;
        let bound = self.bind_ext_proc().await?;
        let (health, answers) = HealthBoard::new().await;
        self.start_health(answers.clone()).await?;
        let sources = self.start_discovery().await?;
        self.start_eds();
        self.start_scraping(scraping);
        self.start_upkeep();
        self.keep("configuration", reload);
        self.endpoints_known(&sources).await;
        Ok((health, self.serve_ext_proc(bound, &answers)?))
    }

    /// Keeps the file that a plain Envoy reads equal to the endpoints.
    fn start_eds(&self) {
        let Some(file) = self.config.envoy.eds_file.clone() else { return };
        let (reader, cluster) = (self.reader.clone(), self.config.envoy.eds_cluster.clone());
        self.keep("eds", discovery::run_eds(reader, self.versions.clone(), file, cluster, self.cancel.clone()));
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

    fn start_scraping(&self, options: watch::Receiver<ScrapeOptions>) {
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
        let freshness = Freshness::new(self.reader.clone(), self.clock.clone(), Arc::clone(&status));
        let core = self.core.clone();
        self.readiness.watch("scraping", move || (true, freshness.text(core.load().policy.stale_after)));
        let (reader, clock) = (self.reader.clone(), self.clock.clone());
        self.keep("scraping", scrape::run(reader, options, clock, status, self.cancel.clone()));
    }

    /// Keeps what is known of prefixes in order, and shows it.
    fn start_upkeep(&self) {
        let prefixes = Arc::clone(self.core.load().strategies.prefixes());
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
            clock: self.clock.clone(),
            core: self.core.clone(),
            reloads: Arc::clone(&self.reloads),
            explains: Arc::new(Semaphore::new(admin::EXPLAINS_MAX)),
        };
        self.keep("admin", admin::serve(listener, state, self.cancel.clone()));
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

    async fn bind_ext_proc(&self) -> anyhow::Result<BoundServer> {
        let bound = BoundServer::bind(ServerOptions::from(&*self.config)).await;
        bound.with_context(|| format!("cannot listen for ext_proc on {}", self.config.listen.ext_proc))
    }

    fn serve_ext_proc<H: Health>(&self, bound: BoundServer, health: &HealthServer<H>) -> anyhow::Result<Server> {
        let config = &*self.config;
        let server = bound
            .serve(&self.processor, &self.metrics, health, &self.tasks, &self.cancel)
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
        let core = self.core.load();
        let shutdown = &core.config.shutdown;
        info!(delay = ?shutdown.delay, grace = ?shutdown.grace, "draining");
        self.readiness.set("draining", false, "shutting down");
        health.set_ready(false).await;
        tokio::time::sleep(shutdown.delay).await;
        if !server.shut_down(shutdown.grace).await {
            warn!("streams were still open when the grace period ended");
        }
    }
}

/// Takes the files that are ours alone, so that a second process with the same configuration leaves ours as they are.
fn lock_paths(config: &Config) -> anyhow::Result<Vec<PathLock>> {
    let socket = match &config.listen.ext_proc {
        ListenAddress::Unix(path) => Some(path),
        ListenAddress::Tcp(_) => None,
    };
    let mut locks = Vec::new();
    for path in socket.into_iter().chain(&config.envoy.eds_file) {
        match PathLock::take(path) {
            Ok(lock) => locks.push(lock),
            Err(taken @ Locked::Taken { .. }) => return Err(taken.into()),
            Err(impossible) => {
                let error = format!("{:#}", anyhow::Error::from(impossible));
                warn!(error, "nothing keeps a second process away from this path");
            }
        }
    }
    Ok(locks)
}
