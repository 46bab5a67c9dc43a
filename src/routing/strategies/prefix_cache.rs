//! Where the prompt's prefix is cached, unless the wait there costs more than the cache saves.

use std::sync::Arc;

use serde::Deserialize;

use crate::routing::picker::lowest;
use crate::routing::prefix::{Look, Prefixes, Speed};
use crate::routing::scorers::ByPrefix;
use crate::routing::{
    About, Built, Candidates, Decision, Expectation, Needs, Parameter, Registration, RequestView, Router, Scored, Trace,
};
use crate::state::Endpoint;

use super::settings::{MEASURE, PREFILL_RATE, at_least};

pub(super) const REGISTRATION: Registration = Registration {
    name: "prefix-cache",
    aliases: &[("prefixaware", "the vLLM production stack's `--routing-logic`, which has no regard for load")],
    summary: "the endpoint that will have the prompt prefilled soonest, by what its prefix cache holds",
    about: About {
        purpose: "Prompts that share beginnings: conversations, system prompts, documents asked about repeatedly.",
        formula: "Lowest seconds: prefill sent there and not yet done, plus `miss_cost` times the prefill of what the \
                  endpoint has not seen of this prompt, both at the endpoint's prefill rate, plus `request_cost` for \
                  each open request per weight, and `excess_cost` for each above `bound` times the mean. In \
                  combinations: the highest share of the prompt that the endpoint holds.",
        missing: "A prompt shorter than a block of 256 bytes, or that nobody has seen, goes where the wait is shortest. \
                  Without the engine's prefill times, `prefill_rate`. What an engine evicted by itself is not \
                  noticed; a restart is, where its metrics are read.",
        source: "AIBrix's prefix-cache, with match and load on one scale as in Mooncake's conductor.",
    },
    parameters: &[
        PREFILL_RATE,
        MEASURE,
        Parameter {
            name: "miss_cost",
            default: "2",
            about: "Seconds of wait that a second of prefill weighs: one of its own, and one for whom it delays. At 1, \
                    equal prompts of one moment would be spread over all endpoints.",
        },
        Parameter {
            name: "request_cost",
            default: "0.003",
            about: "Seconds that each request open at an endpoint of weight 1 delays a new one. Too high a value trades hits of short \
                    prompts for an even load.",
        },
        Parameter {
            name: "bound",
            default: "1.25",
            about: "Times the mean of open requests per weight above which an endpoint has more than its share.",
        },
        Parameter {
            name: "excess_cost",
            default: "0.1",
            about: "Seconds that each request above that share costs in addition.",
        },
    ],
    build: |parameters| {
        let given: Settings = parameters.read()?;
        at_least("prefill_rate", given.prefill_rate, 1.0)?;
        at_least("miss_cost", given.miss_cost, 0.0)?;
        at_least("request_cost", given.request_cost, 0.0)?;
        at_least("bound", given.bound, 1.0)?;
        at_least("excess_cost", given.excess_cost, 0.0)?;
        let strategy = PrefixCache::new(given, parameters.prefixes());
        let scorer = ByPrefix::matched(Arc::clone(&strategy.prefixes), strategy.speed);
        Ok(Built::Both(Arc::new(strategy), Scored::new(scorer)))
    },
};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    prefill_rate: f64,
    measure: bool,
    miss_cost: f64,
    request_cost: f64,
    bound: f64,
    excess_cost: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefill_rate: Speed::START,
            measure: false,
            miss_cost: 2.0,
            request_cost: 0.003,
            bound: 1.25,
            excess_cost: 0.1,
        }
    }
}

#[derive(Debug)]
struct PrefixCache {
    settings: Settings,
    speed: Speed,
    prefixes: Arc<Prefixes>,
}

impl PrefixCache {
    fn new(settings: Settings, prefixes: Arc<Prefixes>) -> Self {
        let speed = Speed { start: settings.prefill_rate, measure: settings.measure };
        Self { settings, speed, prefixes }
    }

    /// Open requests per unit of weight above which an endpoint has more than its share.
    fn fair(&self, request: &RequestView<'_>, candidates: Candidates<'_>) -> f64 {
        let (mut open, mut weights) = (0.0, 0.0);
        for endpoint in candidates.iter() {
            open += endpoint.live.requests(request.now, request.stale_after).0;
            weights += endpoint.weight();
        }
        self.settings.bound * open / weights
    }

    /// What it costs to send a prompt there, in seconds of wait.
    fn seconds(&self, request: &RequestView<'_>, look: &Look<'_>, fair: f64, endpoint: &Endpoint) -> f64 {
        let Settings { miss_cost, request_cost, excess_cost, .. } = self.settings;
        let open = endpoint.live.requests(request.now, request.stale_after).0 / endpoint.weight();
        let excess = (open - fair).max(0.0);
        look.wait(endpoint.id) + look.miss(endpoint.id) * miss_cost + open * request_cost + excess * excess_cost
    }
}

impl Router for PrefixCache {
    fn needs(&self) -> Needs {
        self.speed.needs()
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let look = self.prefixes.compare(request, candidates, self.speed);
        let fair = self.fair(request, candidates);
        let seconds = |endpoint: &Endpoint| self.seconds(request, &look, fair, endpoint);
        let best = lowest(candidates.iter(), seconds, &mut request.rng()).unwrap_or_else(|| candidates.at(0));
        trace.note(|| format!("{}; {:.3} s", look.describe(best), seconds(best)));
        Decision::Send(Arc::clone(best))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        Some(self.prefixes.send(request, endpoint, self.speed))
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{Moment, Work};
    use crate::index::Chain;
    use crate::routing::Asked;
    use crate::routing::conformance::{fleet, view};

    /// Tokens in a block.
    const BLOCK_TOKENS: u32 = 64;

    use super::*;

    fn strategy() -> PrefixCache {
        PrefixCache::new(Settings::default(), Arc::new(Prefixes::new(1 << 20)))
    }

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
        let (router, fleet) = (strategy(), fleet(8));
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
        let (router, fleet) = (strategy(), fleet(8));
        let herd: Vec<_> = (0..6).map(|seed| turn(&router, &fleet, &asked(1, 100), seed, 0)).collect();
        assert!(herd.iter().all(|(at, _)| *at == herd[0].0));
        let sent: Vec<_> = (2..9).map(|prompt| turn(&router, &fleet, &asked(prompt, 100), prompt, 0)).collect();
        let mut others: Vec<_> = sent.iter().map(|(at, _)| *at).collect();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), 7, "each cold prompt waits least at somebody else's");
    }

    #[test]
    fn a_wait_longer_than_the_prefill_that_the_cache_saves_sends_elsewhere() {
        let (router, fleet) = (strategy(), fleet(2));
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
        let (router, fleet) = (strategy(), fleet(2));
        let (first, expectation) = turn(&router, &fleet, &asked(1, 10), 1, 0);
        drop(expectation);
        assert_eq!(router.prefixes.stats().held, 0);
        let (_, expectation) = turn(&router, &fleet, &asked(1, 10), 1, 0);
        // Somebody else answered in its place.
        expectation.unwrap().come_true(fleet[1 - first].id, view(0).now);
        assert_eq!(router.prefixes.stats().held, 10);
    }
}
