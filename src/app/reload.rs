//! Reading the configuration again: when its file changes, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{Readiness, ReloadStatus};
use crate::config::{CONFIG_BYTES_MAX, Config, Fault, Loaded, Reload};
use crate::discovery::{Reading, WatchedFile};
use crate::domain::Clock;
use crate::exchange::CoreReader;
use crate::ext_proc::Processor;
use crate::routing::StrategySet;
use crate::scrape::ScrapeOptions;
use crate::state::{Change, Reader};
use crate::telemetry::Metrics;
use crate::telemetry::log::LogControl;
use crate::telemetry::metrics::families;

use super::configured;
use super::signals::StopLimit;
use super::sources::{self, FileSource};

/// The file is read at least this often, should the file system not report a change.
const POLL: Duration = Duration::from_secs(5);
/// Faults that a log line tells; the rest is counted.
const FAULTS_TOLD: usize = 20;

/// Reads the text of the configuration file as the start did, with the same flags and environment over it.
pub type ReadAgain = Box<dyn Fn(String) -> Result<Loaded, Vec<Fault>> + Send>;

/// What a configuration that was read again is put into.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) core: CoreReader,
    pub(super) processor: Processor,
    pub(super) file: FileSource,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) scraping: watch::Sender<ScrapeOptions>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reader: Reader,
    pub(super) clock: Clock,
    pub(super) readiness: Arc<Readiness>,
    pub(super) status: Arc<ReloadStatus>,
    pub(super) limit: StopLimit,
    pub(super) log: LogControl,
}

/// A configuration that was read again, and its strategies. Large, so it is handed on in a box.
struct Prepared {
    config: Config,
    strategies: StrategySet,
}

impl Reloader {
    /// Follows the file, if there is one, and SIGHUP, until `cancel` fires.
    pub(super) async fn run(
        self,
        file: Option<PathBuf>,
        read_again: ReadAgain,
        hangups: mpsc::Receiver<()>,
        cancel: CancellationToken,
    ) {
        self.watch_status();
        let follow = async {
            match file {
                Some(file) if file.is_file() => Box::pin(self.follow(&file, read_again, hangups)).await,
                Some(file) => refuse(hangups, &format!("\"{}\" is a pipe, which is read once", file.display())).await,
                None => refuse(hangups, "no configuration file was given").await,
            }
        };
        cancel.run_until_cancelled(follow).await;
    }

    fn watch_status(&self) {
        let watch = |family, labels, read: fn(&ReloadStatus) -> u64| {
            let status = Arc::clone(&self.status);
            self.metrics.watch(family, labels, move || read(&status) as f64);
        };
        watch(families::CONFIG_RELOADS, &[("result", "ok")], ReloadStatus::times_ok);
        watch(families::CONFIG_RELOADS, &[("result", "failed")], ReloadStatus::times_failed);
        watch(families::CONFIG_LOADED, &[], ReloadStatus::loaded_at);
        watch(families::CONFIG_WAITING, &[], |status| status.report().waiting_for_restart.len() as u64);
    }

    async fn follow(&self, path: &Path, read_again: ReadAgain, mut hangups: mpsc::Receiver<()>) {
        let core = self.core.clone();
        // Checking reads files too, so it happens where the file is read.
        let prepare = move |text| prepare(&read_again, &core, text);
        let mut file = match WatchedFile::start(path, POLL, CONFIG_BYTES_MAX, prepare) {
            Ok(file) => file,
            Err(error) => return error!(%error, "no thread to read the configuration on"),
        };
        let status = Arc::clone(&self.status);
        self.readiness.watch("configuration", move || {
            let error = status.report().error.map(|error| format!("the configuration before stays in effect: {error}"));
            (true, error.unwrap_or_else(|| "as in the file".to_owned()))
        });
        // What the start has read is read once more, so that no change in between is missed.
        let mut is_first = true;
        let mut is_asked = false;
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => {
                    is_asked = true;
                    file.read_now();
                }
                reading = file.next() => {
                    Box::pin(self.take(path, reading, is_first && !is_asked)).await;
                    (is_first, is_asked) = (false, false);
                }
            }
        }
    }

    async fn take(&self, path: &Path, reading: Reading<Box<Prepared>>, is_first: bool) {
        let path = path.display();
        match reading {
            Ok(prepared) => {
                let Prepared { config, strategies } = *prepared;
                let reload = Box::new(Reload::new(&self.core.load().config, &config));
                if is_first && reload.changed.is_empty() && reload.waiting.is_empty() {
                    return;
                }
                let changed = reload.changed.join(", ");
                Box::pin(self.apply(reload.config, strategies, &reload.changed)).await;
                let waiting = reload.waiting.join(", ");
                let is_news = self.status.succeeded(reload.waiting);
                info!(%path, changed, "configuration read again");
                if is_news && !waiting.is_empty() {
                    warn!(%path, settings = waiting, "these settings changed and take effect after a restart");
                }
            }
            Err(error) => {
                error!(%path, %error, "configuration refused, the one before stays in effect");
                self.status.failed(error);
            }
        }
    }

    /// Puts a configuration into effect: requests that begin from now on go by it.
    async fn apply(&self, config: Config, strategies: StrategySet, changed: &[String]) {
        if changed.is_empty() {
            return;
        }
        let (config, former) = (Arc::new(config), self.core.load());
        let is_same = configured(&config) == configured(&former.config);
        let strategies = if is_same { Arc::clone(&former.strategies) } else { Arc::new(strategies) };
        let demand = Arc::clone(strategies.demand());
        let core = former.renewed(Arc::clone(&config), strategies);
        let (stale_after, detail) = (core.policy.stale_after, config.metrics.per_endpoint);
        self.core.publish(core);
        self.processor.replace(self.core.load(), &config);
        self.metrics.watch_snapshot(self.reader.clone(), stale_after, self.clock.clone(), detail);
        self.scraping.send_replace(ScrapeOptions { demand, config: config.scrape.clone() });
        // The scraper may wait for the strategies of before.
        former.strategies.demand().wake();
        self.limit.set(&config.shutdown);
        if config.log.filter != former.config.log.filter
            && let Err(error) = self.log.set_filter(&config.log.filter)
        {
            warn!(%error, "log filter not changed");
        }
        let (discovery, before) = (&config.discovery, &former.config.discovery);
        if discovery.fixed != before.fixed {
            sources::send_static(&self.changes, discovery).await;
        }
        if discovery.file != before.file {
            self.file.change(discovery);
        }
        if discovery != before {
            self.file.tell(&self.readiness, discovery);
        }
    }
}

fn prepare(read_again: &ReadAgain, core: &CoreReader, text: String) -> Reading<Box<Prepared>> {
    let config = read_again(text).map_err(|faults| tell(&faults))?.config;
    let strategies = core.load().strategies.renewed(configured(&config)).map_err(|error| error.to_string())?;
    Ok(Box::new(Prepared { config, strategies }))
}

fn tell(faults: &[Fault]) -> String {
    let mut told: Vec<_> = faults.iter().take(FAULTS_TOLD).map(Fault::to_string).collect();
    if faults.len() > FAULTS_TOLD {
        told.push(format!("and {} more", faults.len() - FAULTS_TOLD));
    }
    told.join("; ")
}

/// Says at each SIGHUP why nothing is read.
async fn refuse(mut hangups: mpsc::Receiver<()>, why: &str) {
    while hangups.recv().await.is_some() {
        warn!(why, "SIGHUP: there is nothing to read again");
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crate::config::{Effect, FileDiscovery, KubernetesDiscovery, SETTINGS, with_another};
    use crate::exchange::Core;
    use crate::routing::names;

    use super::*;

    /// A process as far as a reload reaches.
    struct Bench {
        reloader: Reloader,
        options: watch::Receiver<ScrapeOptions>,
        filter: Arc<Mutex<String>>,
        changes: mpsc::Receiver<Change>,
    }

    impl Bench {
        fn new(config: &Config) -> Self {
            let (reader, clock, metrics) = (Reader::default(), Clock::start(), Metrics::new(&names()));
            let strategies = Arc::new(StrategySet::configured(configured(config)).unwrap());
            let demand = Arc::clone(strategies.demand());
            let core = Core::new(config, reader.clone(), strategies, Arc::clone(&metrics), clock.clone());
            let core = CoreReader::new(core);
            let (scraping, options) = watch::channel(ScrapeOptions { demand, config: config.scrape.clone() });
            let (sink, changes) = mpsc::channel(1);
            let filter = Arc::<Mutex<String>>::default();
            let seen = Arc::clone(&filter);
            metrics.watch_snapshot(
                reader.clone(),
                config.scrape.stale_after,
                clock.clone(),
                config.metrics.per_endpoint,
            );
            let limit = StopLimit::default();
            limit.set(&config.shutdown);
            let reloader = Reloader {
                processor: Processor::new(core.load(), config),
                file: FileSource::new(&config.discovery),
                core,
                changes: sink,
                scraping,
                metrics,
                reader,
                clock,
                readiness: Arc::default(),
                status: Arc::default(),
                limit,
                log: LogControl::new(move |filter| *seen.lock().unwrap() = filter.to_string()),
            };
            Self { reloader, options, filter, changes }
        }

        /// Everything that requests and tasks go by, in which the configuration itself does not count.
        fn in_effect(&self) -> String {
            let mut core = Core::clone(&self.reloader.core.load());
            core.config = Arc::default();
            let Reloader { processor, file, limit, .. } = &self.reloader;
            let parts = (core, processor, file, &self.options.borrow().config, limit, &self.filter);
            format!("{parts:?}")
        }

        async fn take(&mut self, config: &Config) {
            let strategies = self.reloader.core.load().strategies.renewed(configured(config)).unwrap();
            let prepared = Box::new(Prepared { config: config.clone(), strategies });
            self.reloader.take("fairlead.yaml".as_ref(), Ok(prepared), false).await;
        }
    }

    #[tokio::test]
    async fn every_setting_is_in_effect_after_a_reload_or_waits_for_a_restart_by_name() {
        let mut config = Config::default();
        config.discovery.file = Some(FileDiscovery { path: "x".into(), poll: POLL });
        config.discovery.kubernetes = Some(KubernetesDiscovery::default());
        for setting in SETTINGS {
            let mut bench = Bench::new(&config);
            let before = bench.in_effect();
            bench.take(&with_another(setting, &config)).await;
            let waiting = bench.reloader.status.report().waiting_for_restart;
            match setting.effect() {
                Effect::OnReload => {
                    assert_ne!(bench.in_effect(), before, "{} has no effect", setting.key);
                    assert!(waiting.is_empty(), "{}: {waiting:?}", setting.key);
                }
                Effect::OnRestart => {
                    assert_eq!(bench.in_effect(), before, "{} has an effect at once", setting.key);
                    assert_eq!(waiting, [setting.key]);
                }
            }
            bench.take(&config).await;
            assert_eq!(bench.reloader.core.load().config.as_ref(), &config, "{}", setting.key);
        }
    }

    #[tokio::test]
    async fn endpoints_of_the_configuration_reach_the_registry_and_readiness() {
        let config = Config::default();
        let mut bench = Bench::new(&config);
        let mut read = config.clone();
        read.discovery.fixed = vec![serde_json::from_str(r#"{"address":"127.0.0.1:1"}"#).unwrap()];
        bench.take(&read).await;
        assert!(bench.reloader.readiness.is_ready());
        let Some(Change::Replace(_, specs)) = bench.changes.recv().await else { panic!("no change") };
        assert_eq!(specs.len(), 1);
        bench.take(&config).await;
        assert!(!bench.reloader.readiness.is_ready());
        assert!(matches!(bench.changes.recv().await, Some(Change::Replace(_, specs)) if specs.is_empty()));
    }
}
