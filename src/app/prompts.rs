//! Wiring of what is known about prompts: events of engines, token ids, `LMCache`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::Config;
use crate::domain::Clock;
use crate::index::{HeldIndex, Tier};
use crate::kv_events::{self, EventStatus};
use crate::lookup::{self, Lookup, Outcome, Worker};
use crate::state::Reader;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::families;

use super::Cold;

/// Its parts, before they run.
pub(super) struct Prompts {
    index: Arc<HeldIndex>,
    lookup: Arc<Lookup>,
    worker: Worker,
}

impl Prompts {
    /// `None` where the configuration wants none of it.
    pub(super) fn new(config: &Config, reader: &Reader, clock: &Clock) -> anyhow::Result<Option<Self>> {
        let (events, lmcache) = (&config.kv_events, &config.lmcache);
        if !events.enabled && lmcache.controller.is_none() && lmcache.coordinator.is_none() {
            return Ok(None);
        }
        let index = HeldIndex::new((events.memory_mib as usize) << 20, events.expected_life);
        let (lookup, worker) =
            Worker::new(Arc::clone(&index), config, reader, clock).map_err(|error| anyhow::anyhow!(error))?;
        Ok(Some(Self { index, lookup, worker }))
    }

    /// The side of the requests.
    pub(super) fn lookup(&self) -> Arc<Lookup> {
        Arc::clone(&self.lookup)
    }

    /// Starts it all, metrics included.
    pub(super) fn start(self, cold: &Cold) {
        let Self { index, lookup, worker } = self;
        watch_lookups(&cold.metrics, &lookup);
        cold.keep("lookups", lookup::run(worker, cold.cancel.clone()));
        let events = cold.config.kv_events.clone();
        if events.enabled {
            let status = Arc::new(EventStatus::default());
            watch_events(&cold.metrics, &status);
            watch_index(&cold.metrics, &index);
            let (reader, clock, cancel) = (cold.reader.clone(), cold.clock.clone(), cold.cancel.clone());
            cold.keep("KV events", kv_events::run(reader, index, events, clock, status, cancel));
        }
    }
}

type Labels = &'static [(&'static str, &'static str)];

fn watch_lookups(metrics: &Metrics, lookup: &Arc<Lookup>) {
    for outcome in Outcome::ALL {
        let status = Arc::clone(lookup.status());
        metrics.watch(families::PREFIX_LOOKUPS, outcome.labels(), move || status.times(outcome) as f64);
    }
    let cache = Arc::clone(lookup);
    metrics.watch(families::TOKEN_CACHE_BYTES, &[], move || cache.cache_bytes() as f64);
    let (ok, failed) = (Arc::clone(lookup.status()), Arc::clone(lookup.status()));
    let family = families::LMCACHE_LOOKUPS;
    metrics.watch(family, &[("result", "ok")], move || ok.lmcache_ok.load(Relaxed) as f64);
    metrics.watch(family, &[("result", "failed")], move || failed.lmcache_failed.load(Relaxed) as f64);
}

fn watch_events(metrics: &Metrics, status: &Arc<EventStatus>) {
    let watch = |family, labels: Labels, read: fn(&EventStatus) -> u64| {
        let status = Arc::clone(status);
        metrics.watch(family, labels, move || read(&status) as f64);
    };
    watch(families::KV_PUBLISHERS, &[], |status| status.connected.load(Relaxed).unsigned_abs());
    watch(families::KV_CONNECTS_FAILED, &[], |status| status.connects_failed.load(Relaxed));
    watch(families::KV_BATCHES, &[], |status| status.batches.load(Relaxed));
    let blocks = families::KV_EVENT_BLOCKS;
    watch(blocks, &[("kind", "stored")], |status| status.stored.load(Relaxed));
    watch(blocks, &[("kind", "removed")], |status| status.removed.load(Relaxed));
    watch(blocks, &[("kind", "orphan")], |status| status.orphans.load(Relaxed));
    let skipped = families::KV_EVENTS_SKIPPED;
    watch(skipped, &[("reason", "unknown")], |status| status.unknown.load(Relaxed));
    watch(skipped, &[("reason", "unreadable")], |status| status.unreadable.load(Relaxed));
    let replays = families::KV_REPLAYS;
    watch(replays, &[("result", "begun")], |status| status.replays.load(Relaxed));
    watch(replays, &[("result", "failed")], |status| status.replays_failed.load(Relaxed));
    let cleared = families::KV_CACHES_CLEARED;
    watch(cleared, &[("reason", "gap")], EventStatus::gaps);
    watch(cleared, &[("reason", "restart")], EventStatus::restarts);
    watch(cleared, &[("reason", "lost")], EventStatus::losses);
}

fn watch_index(metrics: &Metrics, index: &Arc<HeldIndex>) {
    let watch = |family, labels: Labels, read: fn(&HeldIndex) -> f64| {
        let index = Arc::clone(index);
        metrics.watch(family, labels, move || read(&index));
    };
    watch(families::KV_CACHES_COMPLETE, &[], |index| index.complete_rows() as f64);
    watch(families::KV_BLOCKS, &[("tier", "device")], |index| index.on_tier(Tier::Device) as f64);
    watch(families::KV_BLOCKS, &[("tier", "host")], |index| index.on_tier(Tier::Host) as f64);
    watch(families::KV_BLOCKS, &[("tier", "storage")], |index| index.on_tier(Tier::Storage) as f64);
    watch(families::KV_BLOCKS_REFUSED, &[], |index| index.refused() as f64);
    watch(families::KV_EXPECTATIONS_REFUSED, &[], |index| index.expectations_refused() as f64);
    watch(families::KV_INDEX_BYTES, &[], |index| index.bytes() as f64);
}
