//! How scraping goes, for metrics and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::{Clock, EngineKind};
use crate::state::Reader;

/// Counts of scraping, over all endpoints since the start. Written by the scraper, read by metrics.
#[derive(Debug, Default)]
pub struct ScrapeStatus {
    /// Pages read that told at least one gauge.
    pub reads_ok: AtomicU64,
    /// Reads that gave nothing, whatever the reason.
    pub reads_failed: AtomicU64,
    /// Lines that are not in the text format; the rest of their page counts.
    pub unreadable_lines: AtomicU64,
    /// Engines that began anew: counters went back, or the process was another one.
    pub engine_restarts: AtomicU64,
    /// Pages dropped because they were larger than `scrape.page_bytes_max`; each is a failed read as well.
    pub pages_too_large: AtomicU64,
    /// No strategy in use needs anything of the engines, so nothing is read.
    pub needs_nothing: AtomicBool,
}

/// Endpoints named where some are stale; of more only the number is told.
const NAMED: usize = 3;

/// Says how fresh the endpoints' numbers are. It is never a reason not to be ready: strategies go by our own counts then.
#[derive(Debug)]
pub struct Freshness {
    reader: Reader,
    clock: Clock,
    status: Arc<ScrapeStatus>,
}

impl Freshness {
    /// Of the endpoints that `reader` shows.
    pub fn new(reader: Reader, clock: Clock, status: Arc<ScrapeStatus>) -> Self {
        Self { reader, clock, status }
    }

    /// One line for people. Readings older than `stale_after` are not fresh.
    pub fn text(&self, stale_after: Duration) -> String {
        if self.status.needs_nothing.load(Relaxed) {
            return "no strategy in use needs the engines' metrics".to_owned();
        }
        let (snapshot, now) = (self.reader.load(), self.clock.now());
        let expected = || snapshot.endpoints().iter().filter(|endpoint| endpoint.spec.engine != EngineKind::None);
        let is_stale = |endpoint: &&Arc<_>| {
            let endpoint: &crate::state::Endpoint = endpoint;
            !endpoint.live.signals.is_fresh(now, stale_after)
        };
        let (all, stale) = (expected().count(), expected().filter(is_stale).count());
        let mut text = format!("metrics of {} of {all} endpoints are fresh", all - stale);
        let names = expected().filter(is_stale).take(NAMED).map(|endpoint| endpoint.address_text());
        for (at, name) in names.enumerate() {
            text.push_str(if at == 0 { "; stale: " } else { ", " });
            text.push_str(name);
        }
        if stale > NAMED {
            text.push_str(", …");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::domain::{EndpointId, EndpointSpec, Gauge, Gauges};
    use crate::state::{Endpoint, Snapshot};

    use super::*;

    #[test]
    fn the_text_names_those_that_are_stale() {
        let (reader, clock, status) = (Reader::default(), Clock::start(), Arc::<ScrapeStatus>::default());
        let endpoint = |slot: u32| {
            let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], slot as u16 + 1)));
            Arc::new(Endpoint::new(EndpointId { slot, generation: 0 }, spec, Arc::default()))
        };
        let endpoints: Vec<_> = (0..6).map(endpoint).collect();
        let fresh = &endpoints[0].live;
        fresh.publish(&Gauges::default().with(Gauge::Running, 1.0), fresh.mark(), clock.now());
        reader.publish(Snapshot::build(1, endpoints));
        let freshness = Freshness::new(reader, clock, Arc::clone(&status));
        let text = freshness.text(Duration::from_mins(1));
        assert_eq!(text, "metrics of 1 of 6 endpoints are fresh; stale: 127.0.0.1:2, 127.0.0.1:3, 127.0.0.1:4, …");
        status.needs_nothing.store(true, Relaxed);
        assert!(freshness.text(Duration::from_mins(1)).starts_with("no strategy"));
    }
}
