//! What all exchanges of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::admission::BodyBudget;
use crate::config::{Config, ObserveAnswers, UnknownPaths};
use crate::domain::{Clock, Moment};
use crate::lookup::Lookup;
use crate::routing::StrategySet;
use crate::state::{Cooldown, PolicyReader, Reader};
use crate::telemetry::{DecisionCounters, Events, Metrics};

use super::DecisionRing;
use super::token_sizes::TokenSizes;

/// The part of the configuration that an exchange goes by.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What to do with paths that we do not route.
    pub unknown_paths: UnknownPaths,
    /// Endpoints in the list.
    pub list: usize,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Age at which a scraped value counts as absent.
    pub stale_after: Duration,
    /// How failing endpoints are put aside.
    pub cooldown: Cooldown,
    /// Tokens that an answer is expected to have where the request does not limit it to fewer.
    pub expected_output_tokens: u32,
    /// Whether the answer tells the client who served it.
    pub response_headers: bool,
    /// Whether conformance tests may choose and are told who served.
    pub conformance_hooks: bool,
    /// Whose answers are looked at.
    pub observe_answers: ObserveAnswers,
    /// Whether a client may ask for a decision's reasons.
    pub explain: bool,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        Self {
            unknown_paths: config.routing.unknown_paths,
            list: config.destination.list,
            body_bytes_max: config.limits.body_bytes_max,
            stale_after: config.scrape.stale_after,
            cooldown: Cooldown { base: config.health.cooldown_base, max: config.health.cooldown_max },
            expected_output_tokens: config.routing.expected_output_tokens,
            response_headers: config.destination.response_headers,
            conformance_hooks: config.destination.conformance_hooks,
            observe_answers: config.routing.observe_answers,
            explain: config.routing.explain,
        }
    }
}

/// Shared by the exchanges that began under one configuration. What lives longer than that is behind an `Arc` or a
/// handle, so a clone shares it.
#[derive(Debug, Clone)]
pub struct Core {
    /// The configuration in effect.
    pub config: Arc<Config>,
    /// The endpoint cache.
    pub reader: Reader,
    /// Priorities and rewrites.
    pub policies: PolicyReader,
    /// The strategies.
    pub strategies: Arc<StrategySet>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Happenings worth a word.
    pub events: Arc<Events>,
    /// What to go by.
    pub policy: Policy,
    /// Memory for bodies.
    pub budget: BodyBudget,
    /// The clock.
    pub clock: Clock,
    /// Request headers that strategies need.
    pub kept_headers: Arc<[Box<str>]>,
    /// Counters of the strategies' decisions.
    pub decision_counters: DecisionCounters,
    /// Decisions that were kept, to be looked at.
    pub decisions: Arc<DecisionRing>,
    /// Bytes per token of the models' prompts.
    pub token_sizes: Arc<TokenSizes>,
    /// What is asked of others about prompts; `None` where everything is guessed by their texts.
    pub lookup: Option<Arc<Lookup>>,
    seeds: Arc<AtomicU64>,
    holds: Arc<HoldWatch>,
}

impl Core {
    /// Puts the parts together; `seed` starts the tie-breaking generator.
    pub fn new(
        config: &Config,
        reader: Reader,
        strategies: Arc<StrategySet>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let budget = BodyBudget::new(config.limits.body_budget_bytes, metrics.body_bytes_held.clone());
        let events = Arc::new(Events::new(Arc::clone(&metrics)));
        let (policy, holds, seeds) = (Policy::from(config), Arc::default(), Arc::new(first_seed(config)));
        let decisions = DecisionRing::new(config.routing.decision_ring, config.routing.decision_interval);
        let decision_counters = decision_counters(&metrics, &strategies);
        Self {
            config: Arc::new(config.clone()),
            reader,
            policies: PolicyReader::default(),
            kept_headers: strategies.needs().headers.into(),
            strategies,
            metrics,
            events,
            policy,
            budget,
            clock,
            decision_counters,
            decisions: Arc::new(decisions),
            token_sizes: Arc::default(),
            lookup: None,
            seeds,
            holds,
        }
    }

    /// The core of the exchanges that begin under a changed configuration. Everything that outlives a configuration is
    /// shared with this one, counts and learned numbers included.
    #[must_use]
    pub fn renewed(&self, config: Arc<Config>, strategies: Arc<StrategySet>) -> Self {
        let (routing, former) = (&config.routing, &self.config.routing);
        let mut core = self.clone();
        core.policy = Policy::from(&*config);
        core.budget.set_max(config.limits.body_budget_bytes);
        core.kept_headers = strategies.needs().headers.into();
        core.decision_counters = decision_counters(&self.metrics, &strategies);
        if routing.seed != former.seed {
            core.seeds = Arc::new(first_seed(&config));
        }
        if (routing.decision_ring, routing.decision_interval) != (former.decision_ring, former.decision_interval) {
            core.decisions = Arc::new(self.decisions.resized(routing.decision_ring, routing.decision_interval));
        }
        Self { config, strategies, ..core }
    }

    /// The same, looking prompts up.
    #[must_use]
    pub fn looking_up(self, lookup: Option<Arc<Lookup>>) -> Self {
        Self { lookup, ..self }
    }

    /// The next request's seed (`SplitMix64`).
    pub(super) fn next_seed(&self) -> u64 {
        let mut z = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Notes when a stream ended after it was last heard of.
    pub(super) fn note_end(&self, last_heard: Moment, now: Moment) -> Hold {
        self.holds.note(now - last_heard)
    }

    /// Whether the proxy has to be asked to keep our streams open to the end of the exchange.
    pub fn asks_to_hold(&self) -> bool {
        self.holds.asks.load(Relaxed)
    }
}

fn first_seed(config: &Config) -> AtomicU64 {
    AtomicU64::new(config.routing.seed.unwrap_or_else(|| fastrand::u64(..)))
}

fn decision_counters(metrics: &Metrics, strategies: &StrategySet) -> DecisionCounters {
    metrics.decision_counters(strategies.names().iter().map(|name| &**name))
}

/// Watches whether the proxy keeps our stream open while an answer runs (`response_trailer_mode: SEND`).
///
/// The protocol does not tell how it is configured, but it shows: without it every stream ends within moments of our
/// last message, and requests would count as finished while they still run. Then the proxy is asked for it, request by
/// request, which costs it some time; where that changes nothing, it does not allow to be asked.
#[derive(Debug, Default)]
struct HoldWatch {
    /// Streams looked at, and how many of them ended early.
    seen: AtomicU64,
    early: AtomicU64,
    asks: AtomicBool,
    /// Nothing more to find out.
    settled: AtomicBool,
}

/// What the end of a stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing, or nothing yet.
    Unsuspicious,
    /// Streams are not held; from now on the proxy is asked to.
    AskFromNow,
    /// Streams are not held although the proxy was asked.
    Refused,
}

impl HoldWatch {
    /// An answer that streams lasts longer than this after its headers; the end of a stream that is not held comes sooner.
    const EARLY: Duration = Duration::from_millis(20);
    /// Streams by which to judge; nine of ten make a verdict.
    const SAMPLES: u64 = 100;

    fn note(&self, after: Duration) -> Hold {
        if self.settled.load(Relaxed) {
            return Hold::Unsuspicious;
        }
        let is_early = after <= Self::EARLY;
        let early = self.early.fetch_add(u64::from(is_early), Relaxed) + u64::from(is_early);
        let seen = self.seen.fetch_add(1, Relaxed) + 1;
        let are_held = early * 10 < seen * 9;
        match seen {
            Self::SAMPLES if are_held => self.settled.store(true, Relaxed),
            Self::SAMPLES => {
                self.asks.store(true, Relaxed);
                return Hold::AskFromNow;
            }
            // Those that were under way when we began to ask are allowed for.
            seen if seen >= 3 * Self::SAMPLES && early * 10 >= seen * 8 => {
                return if is_early { Hold::Refused } else { Hold::Unsuspicious };
            }
            seen if seen >= 3 * Self::SAMPLES => self.settled.store(true, Relaxed),
            _ => {}
        }
        Hold::Unsuspicious
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_nearly_all_end_early_are_asked_for_and_then_complained_about() {
        let watch = HoldWatch::default();
        let late = |n: u64| Duration::from_millis(if n.is_multiple_of(20) { 50 } else { 1 });
        let told: Vec<_> = (0..400).map(|n| watch.note(late(n))).collect();
        assert_eq!(told.iter().position(|hold| *hold == Hold::AskFromNow), Some(99));
        assert_eq!(told.iter().filter(|hold| **hold == Hold::Refused).count(), 96);
    }

    #[test]
    fn streams_that_are_held_clear_the_suspicion_for_good() {
        let watch = HoldWatch::default();
        for n in 0..1000 {
            let after = Duration::from_millis(if n < 30 { 100 } else { 0 });
            assert_eq!(watch.note(after), Hold::Unsuspicious);
        }
        assert!(!watch.asks.load(Relaxed));
    }

    #[test]
    fn asking_that_helps_is_not_complained_about() {
        let watch = HoldWatch::default();
        for _ in 0..120 {
            watch.note(Duration::ZERO);
        }
        assert!((0..1000).all(|_| watch.note(Duration::from_secs(1)) == Hold::Unsuspicious));
        assert!(watch.asks.load(Relaxed));
    }
}
