//! Preble's E2: exploit what is cached, or explore where it costs the fleet least.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::EndpointId;
use crate::routing::picker::lowest;
use crate::routing::prefix::{Look, Prefixes, Speed, micros};
use crate::routing::{
    About, Built, Candidates, Decision, Expectation, Needs, Parameter, Prefer, Registration, RequestView, Router,
    Score, Scored, Scorer, Scores, Trace,
};
use crate::state::{Endpoint, SlotTable, Window};

use super::settings::{MEASURE, PREFILL_RATE, at_least};

pub(super) const REGISTRATION: Registration = Registration {
    name: "prefix-cache-preble",
    aliases: &[],
    summary: "the least loaded endpoint that has most of the prompt cached, or else the one where it costs least",
    about: About {
        purpose: "Few large prefixes that very many requests share, as tools, documents and few-shot prompts.",
        formula: "*Exploit*, if more of the prompt is cached somewhere than is not: of the endpoints that hold most of it, \
                  the one with the least load. *Explore* otherwise, or if that endpoint has more than `balance` times \
                  the load of the least loaded, and a wait longer than its cache saves or more than 4 open requests \
                  beyond as many times their mean: lowest load + eviction + miss. Load: seconds of work sent there in \
                  the last three minutes or open still, prefill of what was not cached and the answer at \
                  `decode_rate`. Eviction: seconds to prefill again what the prompt pushes out of the cache, times the \
                  share of prompt tokens that the cache there answers. Miss: seconds to prefill what the endpoint does \
                  not hold.",
        missing: "Without the engine's prefill times, `prefill_rate`; without its cache's capacity, a million tokens. \
                  The load of the last minutes is that of requests which this strategy sent from this process, by \
                  itself or in a combination; open requests are everybody's.",
        source: "Preble's E2 (Srivatsa and others, 2024), under AIBrix's name for it.",
    },
    parameters: &[
        PREFILL_RATE,
        MEASURE,
        Parameter {
            name: "balance",
            default: "1.5",
            about: "How many times the load of the least loaded endpoint one may have before it loses prompts that it \
                    has cached.",
        },
        Parameter {
            name: "decode_rate",
            default: "2000",
            about: "Tokens that an endpoint generates in a second, all its answers together.",
        },
    ],
    build: |parameters| {
        let given: Settings = parameters.read()?;
        at_least("prefill_rate", given.prefill_rate, 1.0)?;
        at_least("balance", given.balance, 1.0)?;
        at_least("decode_rate", given.decode_rate, 1.0)?;
        let preble = Preble::new(given, parameters.prefixes());
        Ok(Built::Both(Arc::new(preble.clone()), Scored::new(preble)))
    },
};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    prefill_rate: f64,
    measure: bool,
    balance: f64,
    decode_rate: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { prefill_rate: Speed::START, measure: false, balance: 1.5, decode_rate: 2000.0 }
    }
}

/// So many open requests are no crowd.
const CROWD_MIN: f64 = 4.0;

/// Clones share what they know.
#[derive(Debug, Clone)]
struct Preble {
    settings: Settings,
    speed: Speed,
    prefixes: Arc<Prefixes>,
    recent: Arc<SlotTable<Recent>>,
}

/// Microseconds of work that was sent to an endpoint lately.
#[derive(Debug)]
struct Recent(Window<1>);

impl Default for Recent {
    fn default() -> Self {
        /// The paper's history.
        const HISTORY: Duration = Duration::from_mins(3);
        Self(Window::over(HISTORY))
    }
}

impl Preble {
    fn new(settings: Settings, prefixes: Arc<Prefixes>) -> Self {
        let speed = Speed { start: settings.prefill_rate, measure: settings.measure };
        Self { settings, speed, prefixes, recent: Arc::default() }
    }

    /// Seconds of work that was sent to an endpoint lately, and of answers that it is at, which may be older.
    fn load(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> f64 {
        let recent = self.recent.get(endpoint.id);
        let sent = recent.map_or(0.0, |Recent(window)| window.sums(request.now).iter().sum::<u64>() as f64 / 1e6);
        let (open, _) = endpoint.live.requests(request.now, request.stale_after);
        sent + open * self.decode(request)
    }

    /// What a prompt costs the fleet at an endpoint, in seconds.
    fn cost(&self, request: &RequestView<'_>, look: &Look<'_>, endpoint: &Endpoint) -> f64 {
        let evicted = look.seconds(endpoint.id, look.evicted_tokens(endpoint.id));
        // Where nothing is pushed out, nobody has to know.
        let hits = if evicted > 0.0 { endpoint.live.measured.expected_hits(request.now).unwrap_or(0.0) } else { 0.0 };
        self.load(request, endpoint) + evicted * hits + look.miss(endpoint.id)
    }

    /// Where to use what is cached; `None` if too little is, or if those that hold it have too much to do.
    fn exploit<'a>(
        &self,
        request: &RequestView<'_>,
        look: &Look<'_>,
        candidates: Candidates<'a>,
    ) -> Option<&'a Arc<Endpoint>> {
        let most = candidates.iter().map(|endpoint| look.cached_tokens(endpoint.id)).fold(0.0, f64::max);
        if most * 2.0 <= f64::from(request.asked.work.prompt_tokens) {
            return None;
        }
        let seconds = |endpoint: &Endpoint| self.load(request, endpoint);
        let holders = candidates.iter().filter(|endpoint| look.cached_tokens(endpoint.id) >= most);
        let best = lowest(holders, seconds, &mut request.rng())?;
        let least = candidates.iter().map(|endpoint| seconds(endpoint)).fold(f64::INFINITY, f64::min);
        let is_heavy = seconds(best) > least * self.settings.balance;
        let is_late = || look.wait(best.id) > look.seconds(best.id, look.cached_tokens(best.id));
        let open = |endpoint: &Endpoint| endpoint.live.requests(request.now, request.stale_after).0;
        let mean = || candidates.iter().map(|endpoint| open(endpoint)).sum::<f64>() / candidates.len() as f64;
        let is_crowded = || open(best) > CROWD_MIN + mean() * self.settings.balance;
        // The load of some minutes alone is too coarse to give up a long prefix for.
        (!is_heavy || !(is_late() || is_crowded())).then_some(best)
    }

    /// Seconds of an endpoint's time that a request's answer takes. The same everywhere: an engine that is crowded
    /// gives each token a smaller share of its time, and must not look cheap for it.
    fn decode(&self, request: &RequestView<'_>) -> f64 {
        f64::from(request.asked.work.output_tokens) / self.settings.decode_rate
    }

    fn sent(&self, request: &RequestView<'_>, endpoint: &Endpoint, expected: &mut Option<Expectation>) {
        let expectation = expected.get_or_insert_with(|| self.prefixes.send(request, endpoint, self.speed));
        if let Some(Recent(window)) = self.recent.get(endpoint.id) {
            let seconds = expectation.prefill_seconds() + self.decode(request);
            window.add(request.now, [micros(seconds)]);
        }
    }

    fn forget(&self, id: EndpointId) {
        if let Some(Recent(window)) = self.recent.get(id) {
            window.clear();
        }
    }
}

impl Router for Preble {
    fn needs(&self) -> Needs {
        self.speed.needs()
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let look = self.prefixes.compare(request, candidates, self.speed);
        if let Some(best) = self.exploit(request, &look, candidates) {
            trace.note(|| format!("exploits: {}", look.describe(best)));
            return Decision::Send(Arc::clone(best));
        }
        let cost = |endpoint: &Endpoint| self.cost(request, &look, endpoint);
        let best = lowest(candidates.iter(), cost, &mut request.rng()).unwrap_or_else(|| candidates.at(0));
        trace.note(|| format!("explores: {}; {:.3} s", look.describe(best), cost(best)));
        Decision::Send(Arc::clone(best))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        let mut expected = None;
        self.sent(request, endpoint, &mut expected);
        expected
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        self.forget(id);
    }
}

impl Scorer for Preble {
    fn name(&self) -> &'static str {
        "preble-cost"
    }

    fn unit(&self) -> &'static str {
        "seconds"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn needs(&self) -> Needs {
        self.speed.needs()
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        Score::of(self.cost(request, &self.prefixes.look(request, self.speed), endpoint))
    }

    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, _: &mut Trace) {
        let look = self.prefixes.compare(request, candidates, self.speed);
        scores.extend(candidates.iter().map(|endpoint| Score::of(self.cost(request, &look, endpoint))));
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint, expected: &mut Option<Expectation>) {
        self.sent(request, endpoint, expected);
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        self.forget(id);
    }
}
