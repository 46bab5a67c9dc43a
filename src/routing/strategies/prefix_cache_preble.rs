//! Preble's E2: exploit what is cached, or explore where it costs the fleet least.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Deserialize;

use crate::domain::{EndpointId, Gauge, GaugeSet, Moment};
use crate::routing::picker::lowest;
use crate::routing::prefix::{Look, Prefixes, Speed};
use crate::routing::{
    About, Built, Candidates, Decision, Expectation, Needs, Parameter, Prefer, Registration, RequestView, Router,
    Score, Scored, Scorer, Scores, Trace,
};
use crate::state::{Endpoint, SlotTable};

use super::settings::{MEASURE, PREFILL_RATE, at_least};

pub(super) const REGISTRATION: Registration = Registration {
    name: "prefix-cache-preble",
    aliases: &[],
    summary: "the least loaded endpoint that has most of the prompt cached, or else the one where it costs least",
    about: About {
        purpose: "Few large prefixes that very many requests share, as tools, documents and few-shot prompts.",
        formula: "*Exploit*, if more of the prompt is cached somewhere than is not: of the endpoints that hold most of it, \
                  the one with the least load. *Explore* otherwise, or if that endpoint has more than `balance` times \
                  the load of the least loaded, and what the cache saves, and nine seconds: lowest load + eviction + miss. \
                  Load: seconds of work sent there, prefill of what was not cached and decode, fading over three minutes. \
                  Eviction: seconds to prefill again what the prompt pushes out of the cache, times the share of prompt \
                  tokens that the cache there answers, less the longer it was not used. Miss: seconds to prefill what the endpoint does not hold.",
        missing: "Without the engine's prefill times, `prefill_rate`; without its inter-token latency, `decode_rate`; \
                  without its cache's capacity, a million tokens. The load is that of this process's requests.",
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
            about: "Tokens that an endpoint generates in a second, all its answers together, where the engine does not \
                    tell its inter-token latency.",
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

/// Clones share what they know.
#[derive(Debug, Clone)]
struct Preble {
    settings: Settings,
    speed: Speed,
    prefixes: Arc<Prefixes>,
    recent: Arc<SlotTable<Recent>>,
}

/// The paper's.
const HISTORY: Duration = Duration::from_mins(3);

/// Seconds of work that was sent to an endpoint, fading over [`HISTORY`]. Two additions at once may lose
/// one of them, which a load bears.
#[derive(Debug, Default)]
struct Recent {
    /// `f64` bits, as of `at`.
    seconds: AtomicU64,
    /// Microseconds.
    at: AtomicU64,
}

impl Recent {
    fn seconds(&self, now: Moment) -> f64 {
        let seconds = f64::from_bits(self.seconds.load(Relaxed));
        if seconds > 0.0 {
            let age = Moment::from_micros(self.at.load(Relaxed)).until(now);
            return seconds * (-age.as_secs_f64() / HISTORY.as_secs_f64()).exp();
        }
        0.0
    }

    fn add(&self, seconds: f64, now: Moment) {
        self.seconds.store((self.seconds(now) + seconds).to_bits(), Relaxed);
        self.at.store(now.as_micros(), Relaxed);
    }
}

impl Preble {
    fn new(settings: Settings, prefixes: Arc<Prefixes>) -> Self {
        let speed = Speed { start: settings.prefill_rate, measure: settings.measure };
        Self { settings, speed, prefixes, recent: Arc::default() }
    }

    /// Seconds of work that was sent to an endpoint lately.
    fn load(&self, id: EndpointId, now: Moment) -> f64 {
        self.recent.get(id).map_or(0.0, |recent| recent.seconds(now))
    }

    /// What a prompt costs the fleet at an endpoint, in seconds.
    fn cost(&self, look: &Look<'_>, endpoint: &Endpoint, now: Moment) -> f64 {
        self.load(endpoint.id, now) + look.eviction(endpoint) + look.miss(endpoint.id)
    }

    /// Where to use what is cached; `None` if too little is, or if those that hold it have too much to do.
    fn exploit<'a>(
        &self,
        request: &RequestView<'_>,
        look: &Look<'_>,
        candidates: Candidates<'a>,
    ) -> Option<&'a Arc<Endpoint>> {
        let most = candidates.iter().map(|endpoint| look.found.blocks(endpoint.id)).max()?;
        if request.asked.tokens_of(most) * 2.0 <= f64::from(request.asked.work.prompt_tokens) {
            return None;
        }
        let seconds = |endpoint: &Endpoint| self.load(endpoint.id, request.now);
        let holders = candidates.iter().filter(|endpoint| look.found.blocks(endpoint.id) == most);
        let best = lowest(holders, seconds, &mut request.rng())?;
        let least = candidates.iter().map(|endpoint| seconds(endpoint)).fold(f64::INFINITY, f64::min);
        // What it has done, and what the prompt would cost elsewhere; below a twentieth of its time nobody is heavy.
        let spared = look.seconds(best.id, look.cached_tokens(best.id)) + HISTORY.as_secs_f64() / 20.0;
        (seconds(best) <= least * self.settings.balance + spared).then_some(best)
    }

    /// Seconds of an endpoint's time that a request's answer takes: its share of the steps that it is in, for a batch of
    /// usual size. By the batch's own size, an endpoint that is flooded would seem to work well.
    fn decode(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> f64 {
        const BATCH: f64 = 32.0;
        let step = endpoint.live.signals.gauge(Gauge::ItlMean, request.now, request.stale_after);
        let token = step.map_or(1.0 / self.settings.decode_rate, |step| step / BATCH);
        f64::from(request.asked.work.output_tokens) * token
    }

    fn sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Expectation {
        let expectation = self.prefixes.send(request, endpoint, self.speed);
        if let Some(recent) = self.recent.get(endpoint.id) {
            recent.add(expectation.prefill_seconds() + self.decode(request, endpoint), request.now);
        }
        expectation
    }
}

fn needs(speed: Speed) -> Needs {
    speed.needs().with(Needs::gauges(GaugeSet::of(&[Gauge::ItlMean])))
}

impl Router for Preble {
    fn needs(&self) -> Needs {
        needs(self.speed)
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let look = self.prefixes.look(request, self.speed);
        if let Some(best) = self.exploit(request, &look, candidates) {
            trace.note(|| format!("exploits: {}", look.describe(best)));
            return Decision::Send(Arc::clone(best));
        }
        let cost = |endpoint: &Endpoint| self.cost(&look, endpoint, request.now);
        let best = lowest(candidates.iter(), cost, &mut request.rng()).unwrap_or_else(|| candidates.at(0));
        trace.note(|| format!("explores: {}; {:.3} s", look.describe(best), cost(best)));
        Decision::Send(Arc::clone(best))
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        Some(self.sent(request, endpoint))
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        if let Some(recent) = self.recent.get(id) {
            recent.seconds.store(0, Relaxed);
        }
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
        needs(self.speed)
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        Score::of(self.cost(&self.prefixes.look(request, self.speed), endpoint, request.now))
    }

    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, _: &mut Trace) {
        let look = self.prefixes.look(request, self.speed);
        scores.extend(candidates.iter().map(|endpoint| Score::of(self.cost(&look, endpoint, request.now))));
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        Some(self.sent(request, endpoint))
    }
}
