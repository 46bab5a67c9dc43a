//! What strategies share that go by prompts' prefixes: who holds what, and who has how much yet to prefill.

mod expectation;
mod prefill;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::{EndpointId, Gauge, GaugeSet, Moment};
use crate::index::{BLOCK_BYTES, Fill, Matches, PrefixIndex, Settings, Stats};
use crate::state::{Endpoint, SlotTable};

use super::{AnswerNeeds, Asked, Needs, RequestView};

pub use expectation::{Answering, Expectation};

use prefill::{PACE_GAUGES, Prefill};

/// Most bytes of an index, unless configured otherwise.
pub(super) const INDEX_BYTES: usize = 256 << 20;

/// Who holds which prefixes, and what each endpoint has yet to prefill. One for all strategies of a process: what one
/// of them sends somewhere, the others find there.
#[derive(Debug)]
pub struct Prefixes {
    index: PrefixIndex,
    prefill: SlotTable<Prefill>,
    /// Mean length of answers in tokens, as `f64` bits; 0 until some engine told. That is the traffic's, not one engine's: by
    /// its own, one that had no long answer lately would seem quicker.
    answer_tokens: AtomicU64,
    /// How often each engine was known to have begun anew when it was last looked at.
    restarts: SlotTable<AtomicU64>,
}

/// How fast endpoints prefill, as a strategy is told and learns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    /// Tokens a second that an endpoint prefills, until something better is known.
    pub(super) start: f64,
    /// Whether first tokens are seen, which tell more than the engine's averages.
    pub(super) measure: bool,
}

impl Speed {
    /// Tokens a second of a large model on a fast accelerator.
    pub(super) const START: f64 = 16_000.0;

    /// What has to be known of engines, prompts and answers.
    pub(super) fn needs(self) -> Needs {
        let gauges = GaugeSet::of(&[
            Gauge::Running,
            Gauge::Waiting,
            Gauge::KvCapacity,
            Gauge::KvUsage,
            Gauge::OutputLengthMean,
            Gauge::PrefixHitRate,
        ]);
        Needs {
            prefix: true,
            answers: AnswerNeeds { first_token: self.measure, usage: false },
            ..Needs::gauges(if self.measure { gauges } else { gauges.with(PACE_GAUGES) })
        }
    }
}

impl Prefixes {
    /// Empty ones, in at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let index = PrefixIndex::new(Settings { bytes_max, ..Settings::default() });
        Self { index, prefill: SlotTable::default(), answer_tokens: AtomicU64::new(0), restarts: SlotTable::default() }
    }

    /// Who holds what.
    pub fn index(&self) -> &PrefixIndex {
        &self.index
    }

    /// Numbers of the index, for metrics.
    pub fn stats(&self) -> Stats {
        self.index.stats()
    }

    /// An endpoint left: nothing is kept for the next in its slot.
    pub fn forget(&self, id: EndpointId) {
        self.index.remove(id);
        if let Some(prefill) = self.prefill.get(id) {
            prefill.reset();
        }
        if let Some(restarts) = self.restarts.get(id) {
            restarts.store(0, Relaxed);
        }
    }

    /// Drops what is old, and what engines that began anew no longer hold. For a cold thread, every second or so.
    pub fn upkeep(&self, endpoints: &[Arc<Endpoint>], now: Moment) {
        self.index.upkeep(now);
        for endpoint in endpoints {
            self.note_restart(endpoint);
        }
    }

    /// An engine that began anew has an empty cache.
    fn note_restart(&self, endpoint: &Endpoint) {
        let (restarts, Some(seen)) = (endpoint.live.restarts(), self.restarts.get(endpoint.id)) else { return };
        if seen.load(Relaxed) != restarts && seen.swap(restarts, Relaxed) != restarts {
            self.index.clear(endpoint.id);
        }
    }

    /// Looks a request's prompt up, for all endpoints at once.
    pub(super) fn look<'a>(&'a self, request: &RequestView<'a>, speed: Speed) -> Look<'a> {
        let found = self.index.matches(&request.asked.prefix);
        Look { prefixes: self, found, request: *request, speed }
    }

    /// How many times the usual length answers have.
    fn answer_length(&self) -> f64 {
        /// Those that `request_cost` is meant for.
        const USUAL: f64 = 256.0;
        match self.answer_tokens.load(Relaxed) {
            0 => 1.0,
            bits => (f64::from_bits(bits) / USUAL).clamp(0.1, 100.0),
        }
    }

    fn learn_answer_length(&self, tokens: f64) {
        const WEIGHT: f64 = 0.01;
        let known = match self.answer_tokens.load(Relaxed) {
            0 => tokens,
            bits => f64::from_bits(bits),
        };
        self.answer_tokens.store((known + WEIGHT * (tokens - known)).to_bits(), Relaxed);
    }

    /// A request was sent to an endpoint, which will prefill its prompt and then hold it.
    pub(super) fn send(self: &Arc<Self>, request: &RequestView<'_>, endpoint: &Endpoint, speed: Speed) -> Expectation {
        let (asked, id, now) = (request.asked, endpoint.id, request.now);
        self.note_restart(endpoint);
        let block_tokens = asked.block_tokens();
        let cached = asked.tokens_of(self.index.blocks(id, &asked.prefix));
        endpoint.live.measured.prefix_expected(whole(cached), u64::from(asked.work.prompt_tokens), now);
        let start_pace = 1.0 / speed.start;
        let booked = self.prefill.get(id).map(|prefill| {
            if let Some(pace) = engine_pace(request, endpoint, speed) {
                let tokens = f64::from(asked.work.prompt_tokens);
                prefill.learn(tokens, tokens * pace, start_pace);
            }
            if let Some(trust) = prefill::engine_trust(request, endpoint) {
                prefill.believe(trust);
            }
            let missed = f64::from(asked.work.prompt_tokens) - cached * prefill.trust();
            prefill.book(missed, prefill.pace(start_pace), now)
        });
        let told = |gauge| endpoint.live.signals.gauge(gauge, now, request.stale_after).filter(|value| *value > 0.0);
        if let Some(tokens) = told(Gauge::OutputLengthMean) {
            self.learn_answer_length(tokens);
        }
        if let Some(tokens) = told(Gauge::KvCapacity) {
            self.index.set_capacity(id, whole(tokens / block_tokens) as usize);
        }
        let claim = (!asked.prefix.is_empty()).then(|| self.index.pend(id, &asked.prefix, now));
        Expectation {
            prefixes: Arc::clone(self),
            endpoint: id,
            chain: asked.prefix.clone(),
            claim,
            booked,
            start_pace,
            block_tokens,
            cached_tokens: whole(cached),
        }
    }
}

fn engine_pace(request: &RequestView<'_>, endpoint: &Endpoint, speed: Speed) -> Option<f64> {
    if speed.measure { None } else { prefill::engine_pace(request, endpoint) }
}

impl Asked {
    /// Tokens in a block of the prompt's chain, by this prompt's own bytes per token.
    pub(super) fn block_tokens(&self) -> f64 {
        /// English and code.
        const USUAL: f64 = BLOCK_BYTES as f64 / 4.0;
        let (tokens, bytes) = (self.work.prompt_tokens, self.prompt_bytes);
        if tokens == 0 || bytes == 0 { USUAL } else { f64::from(tokens) / f64::from(bytes) * BLOCK_BYTES as f64 }
    }

    /// Tokens of the prompt's first blocks; never more than it has.
    pub(super) fn tokens_of(&self, blocks: u32) -> f64 {
        (f64::from(blocks) * self.block_tokens()).min(f64::from(self.work.prompt_tokens))
    }
}

/// A number of tokens or blocks.
fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "a negative number becomes 0")]
    let whole = number as u64;
    whole
}

/// Whole microseconds of a time in seconds, an hour at most.
pub(super) fn micros(seconds: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "held above 0")]
    let micros = (seconds.clamp(0.0, 3600.0) * 1e6) as u64;
    micros
}

/// One prompt, and how it stands with each endpoint.
#[derive(Debug)]
pub(super) struct Look<'a> {
    prefixes: &'a Prefixes,
    pub(super) found: Matches<'a>,
    request: RequestView<'a>,
    speed: Speed,
}

impl Look<'_> {
    /// Share of the prompt that an endpoint holds, 0 to 1.
    pub(super) fn share(&self, id: EndpointId) -> f64 {
        match self.request.asked.prefix.len() {
            0 => 0.0,
            blocks => f64::from(self.found.blocks(id)) / blocks as f64 * self.trust(id),
        }
    }

    /// Tokens of the prompt that an endpoint holds.
    pub(super) fn cached_tokens(&self, id: EndpointId) -> f64 {
        self.request.asked.tokens_of(self.found.blocks(id)) * self.trust(id)
    }

    fn trust(&self, id: EndpointId) -> f64 {
        self.prefixes.prefill.get(id).map_or(1.0, Prefill::trust)
    }

    /// Seconds that what is at an endpoint delays a request that is sent there: the prefill ahead of it, the steps that it
    /// shares with open requests, and the wait for room in the KV cache.
    pub(super) fn ahead(&self, endpoint: &Endpoint, request_cost: f64) -> f64 {
        let RequestView { now, stale_after, .. } = self.request;
        let (open, _) = endpoint.live.requests(now, stale_after);
        let steps = open * request_cost * self.prefixes.answer_length();
        self.wait(endpoint.id) + steps + self.room(endpoint)
    }

    /// Seconds to wait for room in an endpoint's KV cache: next to none while it is half empty, and ever more the fuller
    /// it is, as in a queue with one server.
    fn room(&self, endpoint: &Endpoint) -> f64 {
        const HALF_FULL: f64 = 0.15;
        const FULLEST: f64 = 0.999;
        let RequestView { now, stale_after, asked, .. } = self.request;
        let Some(usage) = endpoint.live.kv_usage(now, stale_after) else { return 0.0 };
        let capacity = endpoint.live.signals.gauge(Gauge::KvCapacity, now, stale_after).filter(|tokens| *tokens > 0.0);
        let own = f64::from(asked.work.prompt_tokens) - self.cached_tokens(endpoint.id);
        let full = (usage + capacity.map_or(0.0, |tokens| own / tokens)).min(FULLEST);
        HALF_FULL * full / (1.0 - full)
    }

    /// Seconds until an endpoint has prefilled what was sent there.
    pub(super) fn wait(&self, id: EndpointId) -> f64 {
        self.prefixes.prefill.get(id).map_or(0.0, |prefill| prefill.wait(self.request.now).as_secs_f64())
    }

    /// Seconds that an endpoint takes to prefill so many tokens.
    pub(super) fn seconds(&self, id: EndpointId, tokens: f64) -> f64 {
        let start = 1.0 / self.speed.start;
        tokens * self.prefixes.prefill.get(id).map_or(start, |prefill| prefill.pace(start))
    }

    /// Seconds to prefill what an endpoint does not hold of the prompt.
    pub(super) fn miss(&self, id: EndpointId) -> f64 {
        self.seconds(id, f64::from(self.request.asked.work.prompt_tokens) - self.cached_tokens(id))
    }

    /// Seconds that it costs others if the prompt pushes something out of an endpoint's cache: its prefill, times the share
    /// of prompt tokens that the cache there answers, times how likely what goes is asked for again. After a minute without
    /// use that is half as likely, after nine a tenth.
    pub(super) fn eviction(&self, endpoint: &Endpoint) -> f64 {
        const HALF: f64 = 60.0;
        let RequestView { asked, now, .. } = self.request;
        let Fill { held, capacity, oldest } = self.prefixes.index.fill(endpoint.id);
        let new = asked.prefix.len() - self.found.blocks(endpoint.id) as usize;
        let evicted = (held + new).saturating_sub(capacity).min(held);
        if evicted == 0 {
            return 0.0;
        }
        let hits = endpoint.live.measured.expected_hits(now).unwrap_or(0.0);
        let again = HALF / (HALF + oldest.until(now).as_secs_f64());
        self.seconds(endpoint.id, evicted as f64 * asked.block_tokens()) * hits * again
    }

    /// For explanations: what is cached where.
    pub(super) fn describe(&self, endpoint: &Endpoint) -> String {
        let (blocks, most) = (self.request.asked.prefix.len(), self.found.most());
        format!("of {blocks} blocks {} are cached there, {most} at most anywhere", self.found.blocks(endpoint.id))
    }
}
