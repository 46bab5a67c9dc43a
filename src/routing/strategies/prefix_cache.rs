//! Where the prompt's prefix is cached, unless the wait there costs more than the cache saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Deserialize;

use crate::domain::{EndpointId, Gauge, GaugeSet, Moment};
use crate::index::{BLOCK_BYTES, Matches, PrefixIndex, Settings as IndexSettings};
use crate::routing::picker::lowest;
use crate::routing::{
    About, Built, Candidates, Decision, Expectation, Needs, Parameter, Registration, RequestView, Router, Trace,
};
use crate::state::{Endpoint, SlotTable};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "prefix-cache",
    aliases: &[],
    summary: "the endpoint that will have the prompt prefilled soonest, by what its prefix cache holds",
    about: About {
        purpose: "Prompts that share beginnings: conversations, system prompts, documents asked about repeatedly.",
        formula: "Lowest seconds: prefill sent there and not yet done, plus `miss_cost` times the prefill of what the \
                  endpoint has not seen of this prompt, both at `prefill_rate`, plus `request_cost` for each open \
                  request.",
        missing: "A prompt shorter than a block of 256 bytes, or that nobody has seen, goes where the wait is shortest. \
                  What an engine evicted by itself, or lost in a restart at the same address, is not noticed.",
        source: "AIBrix's prefix-cache, with match and load on one scale as in Mooncake's conductor.",
    },
    parameters: &[
        Parameter {
            name: "prefill_rate",
            default: "16000",
            about: "Tokens that an endpoint prefills in a second. Too low a rate holds more to the cache.",
        },
        Parameter {
            name: "miss_cost",
            default: "2",
            about: "Seconds of wait that a second of prefill weighs: one of its own, and one for whom it delays. At 1, \
                    equal prompts of one moment would be spread over all endpoints.",
        },
        Parameter {
            name: "request_cost",
            default: "0.01",
            about: "Seconds that each request open at an endpoint delays a new one.",
        },
        Parameter { name: "memory_mib", default: "256", about: "Most memory for what endpoints hold, in MiB." },
    ],
    build: |parameters| {
        let given: Settings = parameters.read()?;
        at_least("prefill_rate", given.prefill_rate, 1.0)?;
        at_least("miss_cost", given.miss_cost, 0.0)?;
        at_least("request_cost", given.request_cost, 0.0)?;
        Ok(Built::Router(Arc::new(PrefixCache::new(given))))
    },
};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    prefill_rate: f64,
    miss_cost: f64,
    request_cost: f64,
    memory_mib: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { prefill_rate: 16_000.0, miss_cost: 2.0, request_cost: 0.01, memory_mib: 256 }
    }
}

/// Tokens in a block.
const BLOCK_TOKENS: u32 = BLOCK_BYTES as u32 / 4;

#[derive(Debug)]
struct PrefixCache {
    settings: Settings,
    index: Arc<PrefixIndex>,
    /// When each endpoint will have prefilled what was sent there, in microseconds. It passes by itself, so that
    /// nobody has to be told of first tokens.
    prefilled_at: SlotTable<AtomicU64>,
}

impl PrefixCache {
    fn new(settings: Settings) -> Self {
        let bytes_max = (settings.memory_mib as usize) << 20;
        let index = Arc::new(PrefixIndex::new(IndexSettings { bytes_max, ..IndexSettings::default() }));
        Self { settings, index, prefilled_at: SlotTable::default() }
    }

    /// Seconds to prefill what an endpoint has not seen of a prompt.
    fn prefill(&self, request: &RequestView<'_>, found: &Matches<'_>, endpoint: EndpointId) -> f64 {
        let seen = request.cached_tokens(endpoint, found.blocks(endpoint).saturating_mul(BLOCK_TOKENS));
        f64::from(request.asked.work.prompt_tokens.saturating_sub(seen)) / self.settings.prefill_rate
    }

    /// What it costs to send a prompt there, in seconds of wait.
    fn seconds(&self, request: &RequestView<'_>, found: &Matches<'_>, endpoint: &Endpoint) -> f64 {
        let prefilled_at = self.prefilled_at.get(endpoint.id).map_or(0, |at| at.load(Relaxed));
        let wait = request.now.until(Moment::from_micros(prefilled_at)).as_secs_f64();
        let (open, _) = endpoint.live.requests(request.now, request.stale_after);
        let miss = self.prefill(request, found, endpoint.id) * self.settings.miss_cost;
        wait + miss + open * self.settings.request_cost
    }
}

impl Router for PrefixCache {
    fn needs(&self) -> Needs {
        Needs { prefix: true, ..Needs::gauges(GaugeSet::of(&[Gauge::KvCapacity, Gauge::Running, Gauge::Waiting])) }
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let found = self.index.matches(&request.asked.prefix);
        let seconds = |endpoint: &Endpoint| self.seconds(request, &found, endpoint);
        let best = lowest(candidates.iter(), seconds, &mut request.rng()).unwrap_or_else(|| candidates.at(0));
        trace.note(|| {
            let (blocks, seen) = (request.asked.prefix.len(), found.blocks(best.id));
            let most = found.most();
            format!("of {blocks} blocks {seen} are cached there, {most} at most anywhere; {:.3} s", seconds(best))
        });
        Decision::Send(Arc::clone(best))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        let prefix = &request.asked.prefix;
        let seconds = self.prefill(request, &self.index.matches(prefix), endpoint.id);
        if let Some(cell) = self.prefilled_at.get(endpoint.id) {
            #[expect(clippy::cast_sign_loss, reason = "seconds are not negative")]
            let micros = (seconds * 1e6) as u64;
            let later = |at: u64| Some(at.max(request.now.as_micros()).saturating_add(micros));
            // Never fails: the closure always gives a value.
            cell.fetch_update(Relaxed, Relaxed, later).ok();
        }
        let capacity = endpoint.live.signals.gauge(Gauge::KvCapacity, request.now, request.stale_after);
        if let Some(tokens) = capacity.filter(|tokens| *tokens > 0.0) {
            #[expect(clippy::cast_sign_loss, reason = "gauges are not negative")]
            self.index.set_capacity(endpoint.id, tokens as usize / BLOCK_TOKENS as usize);
        }
        let is_long = !prefix.is_empty();
        is_long.then(|| Expectation::new(Arc::clone(&self.index), endpoint.id, prefix.clone(), request.now))
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        self.index.remove(id);
        if let Some(cell) = self.prefilled_at.get(id) {
            cell.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Work;
    use crate::index::Chain;
    use crate::routing::Asked;
    use crate::routing::conformance::{fleet, view};

    use super::*;

    fn asked(prompt: u64, blocks: u32) -> Asked {
        let hashes: Vec<u64> = (0..u64::from(blocks)).map(|at| prompt << 32 | at).collect();
        let work = Work { prompt_tokens: blocks * BLOCK_TOKENS + 30, output_tokens: 0 };
        Asked { work, prefix: Chain::of_hashes(&hashes), ..Asked::default() }
    }

    fn turn(
        router: &PrefixCache,
        fleet: &[Arc<Endpoint>],
        asked: &Asked,
        seed: u64,
        after_ms: u64,
    ) -> (usize, Option<Expectation>) {
        let now = Moment::from_micros(10_000_000 + after_ms * 1000);
        let request = RequestView { asked, now, ..view(seed) };
        let all = Candidates::all(fleet).unwrap();
        let Decision::Send(chosen) = router.route(&request, all, &mut Trace::off()) else { panic!() };
        let expectation = router.on_sent(&request, &chosen);
        (fleet.iter().position(|endpoint| endpoint.id == chosen.id).unwrap(), expectation)
    }

    #[test]
    fn a_conversation_stays_where_it_began() {
        let (router, fleet) = (PrefixCache::new(Settings::default()), fleet(8));
        let (home, first) = turn(&router, &fleet, &asked(1, 20), 1, 0);
        first.unwrap().come_true(fleet[home].id, view(0).now);
        for seed in 2..20 {
            let (next, expectation) = turn(&router, &fleet, &asked(1, 20 + seed as u32), seed, seed * 1000);
            assert_eq!(next, home);
            expectation.unwrap().come_true(fleet[next].id, view(0).now);
        }
    }

    #[test]
    fn equal_cold_prompts_of_a_moment_go_together_and_others_do_not() {
        let (router, fleet) = (PrefixCache::new(Settings::default()), fleet(8));
        let herd: Vec<_> = (0..6).map(|seed| turn(&router, &fleet, &asked(1, 100), seed, 0)).collect();
        assert!(herd.iter().all(|(at, _)| *at == herd[0].0));
        let mut others: Vec<_> = (2..9).map(|prompt| turn(&router, &fleet, &asked(prompt, 100), prompt, 0).0).collect();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), 7, "each cold prompt waits least at somebody else's");
    }

    #[test]
    fn a_wait_longer_than_the_prefill_that_the_cache_saves_sends_elsewhere() {
        let (router, fleet) = (PrefixCache::new(Settings::default()), fleet(2));
        let (home, first) = turn(&router, &fleet, &asked(1, 10), 1, 0);
        first.unwrap().come_true(fleet[home].id, view(0).now);
        // A long prompt with the same beginning keeps that endpoint busy for seconds.
        let long = asked(1, 1000);
        let mut request = view(2);
        request.asked = &long;
        let _busy = router.on_sent(&request, &fleet[home]);
        assert_ne!(turn(&router, &fleet, &asked(1, 10), 3, 10).0, home);
    }

    #[test]
    fn a_failed_engine_is_not_expected_to_hold_anything() {
        let (router, fleet) = (PrefixCache::new(Settings::default()), fleet(2));
        let (first, expectation) = turn(&router, &fleet, &asked(1, 10), 1, 0);
        drop(expectation);
        assert_eq!(router.index.stats().held, 0);
        let (_, expectation) = turn(&router, &fleet, &asked(1, 10), 1, 0);
        // Somebody else answered in its place.
        expectation.unwrap().come_true(fleet[1 - first].id, view(0).now);
        assert_eq!(router.index.stats().held, 10);
    }
}
