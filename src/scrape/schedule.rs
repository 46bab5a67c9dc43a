//! The one task that reads all metrics: it asks the plan who is due, and runs the reads side by side.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config;
use crate::domain::{Clock, Gauge, GaugeSet};
use crate::state::{Demand, Endpoint, Reader};

use super::ScrapeStatus;
use super::book::Context;
use super::fetch::{FetchError, Fetcher, on_grid};
use super::lens::Lenses;
use super::plan::{LOOK, Plan, Trend, Turn};

/// Read along with whatever is needed: they cost nothing beside it, and tell who is busy and who sleeps.
const ALONG: GaugeSet = GaugeSet::of(&[Gauge::Running, Gauge::Waiting, Gauge::Awake]);

/// What is read, and how. A reload of the configuration changes it.
#[derive(Debug, Clone)]
pub struct ScrapeOptions {
    /// What strategies need.
    pub demand: Arc<Demand>,
    /// How it is read.
    pub config: config::Scrape,
}

/// Reads what the strategies want from all endpoints that `reader` shows, each at its own jittered pace, until `cancel`
/// fires. While nothing is wanted, nothing is read.
///
/// Endpoints that fail are read ever more rarely, and never hold up the others.
pub async fn run(
    reader: Reader,
    mut options: watch::Receiver<ScrapeOptions>,
    clock: Clock,
    status: Arc<ScrapeStatus>,
    cancel: CancellationToken,
) {
    let reading = async {
        loop {
            let config = options.borrow_and_update().config.clone();
            read_by(&config, &reader, &mut options, &clock, &status).await;
        }
    };
    cancel.run_until_cancelled(reading).await;
}

/// The same by one configuration, until that changes. Windows of former readings begin anew then.
async fn read_by(
    config: &config::Scrape,
    reader: &Reader,
    options: &mut watch::Receiver<ScrapeOptions>,
    clock: &Clock,
    status: &Arc<ScrapeStatus>,
) {
    let start = Instant::now();
    let (clock, status) = (clock.clone(), Arc::clone(status));
    let context = &Context { fetcher: Fetcher::new(config.timeout, config.page_bytes_max, start), clock, status };
    let together = config.interval_min / TOGETHER;
    let mut plan = Plan::new(config, fastrand::Rng::new());
    let mut lenses = Arc::new(Lenses::new(GaugeSet::NONE, config.generic.clone()));
    let mut reads = FuturesUnordered::new();
    let mut looked_at = start;
    loop {
        if options.borrow().config != *config {
            return;
        }
        let demand = Arc::clone(&options.borrow().demand);
        let now = Instant::now();
        plan.follow(&reader.load(), now);
        if now - looked_at >= LOOK {
            plan.rouse(now);
            looked_at = now;
        }
        let needed = if config.everything { GaugeSet::ALL } else { demand.gauges(context.clock.now()) };
        if needed.is_empty() {
            context.status.needs_nothing.store(true, Relaxed);
        } else {
            context.status.needs_nothing.store(false, Relaxed);
            if lenses.needed() != needed.with(ALONG) {
                lenses = Arc::new(Lenses::new(needed.with(ALONG), config.generic.clone()));
            }
            // Some are due a little later, as others of this moment were due a little before.
            while let Some(turn) = plan.next_due(on_grid(start, together, now) + together / 2) {
                reads.push(take_turn(turn, Arc::clone(&lenses), context));
            }
        }
        let wake = if needed.is_empty() { now + LOOK } else { on_grid(start, together, plan.wake(now) + together / 2) };
        tokio::select! {
            Some(first) = reads.next() => {
                let mut finished = Some(first);
                while let Some((turn, result)) = finished {
                    let endpoint = Arc::clone(&turn.endpoint);
                    let trend = plan.finished(turn, result.is_ok(), Instant::now());
                    tell(&endpoint, trend, &result);
                    finished = reads.next().now_or_never().flatten();
                }
            }
            () = demand.begun() => {}
            Ok(()) = options.changed() => {}
            () = time::sleep_until(wake) => {}
        }
    }
}

/// Reads begin together where they are due within this part of the shortest pause, so that one wake-up begins many.
const TOGETHER: u32 = 10;

async fn take_turn(mut turn: Turn, lenses: Arc<Lenses>, context: &Context) -> (Turn, Result<(), FetchError>) {
    let result = turn.book.read(&turn.endpoint, &lenses, context).await;
    let status = &context.status;
    let count = if result.is_ok() { &status.reads_ok } else { &status.reads_failed };
    count.fetch_add(1, Relaxed);
    if matches!(result, Err(FetchError::TooLarge(_))) {
        status.pages_too_large.fetch_add(1, Relaxed);
    }
    (turn, result)
}

/// Says when an endpoint begins or ends to be unreadable, not each time that it is.
fn tell(endpoint: &Endpoint, trend: Trend, result: &Result<(), FetchError>) {
    let address = endpoint.address_text();
    match (trend, result) {
        (Trend::Broke, Err(error)) => info!(endpoint = address, %error, "metrics cannot be read"),
        (Trend::Mended, _) => info!(endpoint = address, "metrics can be read again"),
        _ => {}
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
