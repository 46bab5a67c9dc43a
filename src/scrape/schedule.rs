//! The one task that reads all metrics: it asks the plan who is due, and runs the reads side by side.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config;
use crate::domain::Clock;
use crate::state::{Endpoint, Reader};

use super::engines::{self, Reading};
use super::fetch::{FetchError, Fetcher};
use super::plan::{Plan, Trend, Turn};
use super::{ScrapeStatus, text};

/// Reads the metrics of all endpoints that `reader` shows, each at its own jittered pace, until `cancel` fires.
///
/// Endpoints that fail are read ever more rarely, and never hold up the others.
pub async fn run(
    reader: Reader,
    config: config::Scrape,
    clock: Clock,
    status: Arc<ScrapeStatus>,
    cancel: CancellationToken,
) {
    let fetcher = Fetcher::new(config.timeout, config.page_bytes_max);
    let mut plan = Plan::new(&config, fastrand::Rng::new());
    let mut reads = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        plan.follow(&reader.load(), now);
        while let Some(turn) = plan.next_due(now) {
            reads.push(take_turn(&fetcher, turn, &clock, &status));
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            Some((turn, result)) = reads.next() => {
                let trend = plan.finished(&turn, result.is_ok(), Instant::now());
                tell(&turn.endpoint, trend, &result);
            }
            () = time::sleep_until(plan.wake(now)) => {}
        }
    }
}

async fn take_turn(
    fetcher: &Fetcher,
    turn: Turn,
    clock: &Clock,
    status: &ScrapeStatus,
) -> (Turn, Result<(), FetchError>) {
    let result = read(fetcher, &turn.endpoint, clock, status).await;
    let count = if result.is_ok() { &status.reads_ok } else { &status.reads_failed };
    count.fetch_add(1, Relaxed);
    if matches!(result, Err(FetchError::TooLarge(_))) {
        status.pages_too_large.fetch_add(1, Relaxed);
    }
    (turn, result)
}

/// One read, into the endpoint's gauges. After a failure they stay as they were and grow stale by themselves.
async fn read(fetcher: &Fetcher, endpoint: &Endpoint, clock: &Clock, status: &ScrapeStatus) -> Result<(), FetchError> {
    let signals = engines::table(endpoint.spec.engine).unwrap_or_default();
    let mut reading = Reading::new(signals);
    let page = fetcher.page(endpoint.spec.metrics_address()).await?;
    let report = text::scan_wanted(&page, engines::wants(signals), |sample| reading.add(sample.name, sample.value));
    status.unreadable_lines.fetch_add(report.unreadable_lines as u64, Relaxed);
    let gauges = reading.gauges();
    if gauges.is_empty() {
        return Err(FetchError::NothingKnown);
    }
    endpoint.live.publish(&gauges, endpoint.live.mark(), clock.now());
    Ok(())
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
