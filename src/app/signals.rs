//! Signals, on a thread of their own, so that no call that hangs can keep the process from ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::config::Shutdown;

/// How long an orderly stop may take beyond `shutdown.delay` and `shutdown.grace`.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long the end may take after a second signal.
const END_MAX: Duration = Duration::from_secs(4);

/// SIGTERM and SIGINT as one, and SIGHUP.
#[derive(Debug)]
pub(super) struct Signals {
    /// How many stop signals came.
    stops: watch::Receiver<u32>,
    /// How many of them were told.
    told: u32,
    hangups: Option<mpsc::Receiver<()>>,
    limit: StopLimit,
}

/// The longest time that an orderly stop takes. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct StopLimit(Arc<AtomicU64>);

impl StopLimit {
    pub(super) fn set(&self, shutdown: &Shutdown) {
        let most = shutdown.delay.saturating_add(shutdown.grace).saturating_add(STOP_MAX);
        self.0.store(u64::try_from(most.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }
}

impl Signals {
    /// From now on signals are ours.
    pub(super) fn start(shutdown: &Shutdown) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (count, stops) = watch::channel(0);
        let (hangup, hangups) = mpsc::channel(1);
        let limit = StopLimit::default();
        limit.set(shutdown);
        let follower = {
            let _inside = runtime.enter();
            let [terminate, interrupt, hung_up] =
                [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
            let (terminate, interrupt, hung_up) = (terminate?, interrupt?, hung_up?);
            Follower { terminate, interrupt, hung_up, count, hangup, limit: limit.clone() }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(follower.follow()))?;
        Ok(Self { stops, told: 0, hangups: Some(hangups), limit })
    }

    /// Waits for the next signal to stop. Each is told once.
    pub(super) async fn stop(&mut self) {
        let told = self.told;
        if self.stops.wait_for(|count| *count > told).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.told += 1;
    }

    /// The channel on which each SIGHUP comes, for one reader.
    pub(super) fn take_hangups(&mut self) -> mpsc::Receiver<()> {
        self.hangups.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// The longest time that a stop may take.
    pub(super) fn limit(&self) -> &StopLimit {
        &self.limit
    }
}

struct Follower {
    terminate: Signal,
    interrupt: Signal,
    hung_up: Signal,
    count: watch::Sender<u32>,
    hangup: mpsc::Sender<()>,
    limit: StopLimit,
}

impl Follower {
    async fn follow(mut self) {
        let mut end: Option<Instant> = None;
        loop {
            let is_stop = tokio::select! {
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = self.hung_up.recv() => false,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    // Without a word: standard error may be what hangs.
                    std::process::exit(0);
                }
            };
            if is_stop {
                self.count.send_modify(|count| *count += 1);
                let most = if *self.count.borrow() == 1 { self.limit.get() } else { END_MAX };
                let latest = Instant::now() + most;
                end = Some(end.map_or(latest, |end| end.min(latest)));
            } else if self.hangup.try_send(()).is_err() {
                tracing::debug!("SIGHUP is dealt with already");
            }
        }
    }
}
