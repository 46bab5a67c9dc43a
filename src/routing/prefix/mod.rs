//! What strategies share that go by prompts' prefixes: who holds what, and who has how much yet to prefill.

mod expectation;
mod prefill;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

use crate::domain::{EndpointId, Gauge, GaugeSet, Moment};
use crate::index::{BLOCK_BYTES, Fill, Matches, PrefixIndex, Settings, Stats};
use crate::state::{Endpoint, SlotTable};

use super::{AnswerNeeds, Asked, Candidates, Needs, RequestView};

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
        let gauges = GaugeSet::of(&[Gauge::KvCapacity, Gauge::Running, Gauge::Waiting]);
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
        Self { index, prefill: SlotTable::default(), restarts: SlotTable::default() }
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
        Look { prefixes: self, found, asked: request.asked, now: request.now, speed, usual_pace: None }
    }

    /// The same, to compare `candidates` with one another.
    pub(super) fn compare<'a>(
        &'a self,
        request: &RequestView<'a>,
        candidates: Candidates<'_>,
        speed: Speed,
    ) -> Look<'a> {
        let look = self.look(request, speed);
        let mut paces: SmallVec<[f64; 64]> = candidates.iter().map(|endpoint| look.pace(endpoint.id)).collect();
        let middle = paces.len() / 2;
        let (_, median, _) = paces.select_nth_unstable_by(middle, f64::total_cmp);
        Look { usual_pace: Some(*median), ..look }
    }

    /// A request was sent to an endpoint, which will prefill its prompt and then hold it.
    pub(super) fn send(self: &Arc<Self>, request: &RequestView<'_>, endpoint: &Endpoint, speed: Speed) -> Expectation {
        let (asked, id, now) = (request.asked, endpoint.id, request.now);
        self.note_restart(endpoint);
        let block_tokens = asked.block_tokens();
        let cached = asked.cached_tokens(id, self.index.blocks(id, &asked.prefix));
        let missed = f64::from(asked.work.prompt_tokens) - cached;
        endpoint.live.measured.prefix_expected(whole(cached), u64::from(asked.work.prompt_tokens), now);
        let start_pace = 1.0 / speed.start;
        let booked = self.prefill.get(id).map(|prefill| {
            if let Some(pace) = engine_pace(request, endpoint, speed) {
                prefill.learn_pace(pace, start_pace);
            }
            prefill.book(missed, prefill.pace(start_pace), now)
        });
        let capacity = endpoint.live.signals.gauge(Gauge::KvCapacity, now, request.stale_after);
        if let Some(tokens) = capacity.filter(|tokens| *tokens > 0.0) {
            self.index.set_capacity(id, whole(tokens / asked.usual_block_tokens()) as usize);
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
        let (tokens, bytes) = (self.work.prompt_tokens, self.prompt_bytes);
        if tokens == 0 || bytes == 0 {
            return self.usual_block_tokens();
        }
        f64::from(tokens) / f64::from(bytes) * BLOCK_BYTES as f64
    }

    /// Tokens in a block of the prompts for its model. An engine's cache is measured by this: one prompt that is unlike
    /// the others must not make it look smaller.
    fn usual_block_tokens(&self) -> f64 {
        /// English and code.
        const USUAL: f64 = 4.0;
        let bytes = if self.bytes_per_token > 0.0 { self.bytes_per_token } else { USUAL };
        BLOCK_BYTES as f64 / bytes
    }

    /// Tokens of the prompt's first blocks; never more than it has.
    pub(super) fn tokens_of(&self, blocks: u32) -> f64 {
        (f64::from(blocks) * self.block_tokens()).min(f64::from(self.work.prompt_tokens))
    }

    /// Tokens of the prompt that an endpoint has cached: as its engine tells, or else as they are guessed by the blocks of
    /// its text that were sent there.
    fn cached_tokens(&self, id: EndpointId, blocks: u32) -> f64 {
        let guess = self.tokens_of(blocks);
        if self.held.is_empty() {
            return guess;
        }
        f64::from(self.held.or_guess(id, u32::try_from(whole(guess)).unwrap_or(u32::MAX)))
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
    asked: &'a Asked,
    now: Moment,
    speed: Speed,
    /// The median of those that are compared, in seconds a token.
    usual_pace: Option<f64>,
}

/// Engines whose paces differ by less than this factor are taken for equal. What is learned of equal engines differs
/// with the prompts that each of them had, and a strategy that believed it would send all new prompts to one.
const SAME_PACE: f64 = 2.0;

impl Look<'_> {
    /// Share of the prompt that an endpoint holds, 0 to 1.
    pub(super) fn share(&self, id: EndpointId) -> f64 {
        match self.asked.prefix.len() {
            _ if !self.asked.held.is_empty() => {
                (self.cached_tokens(id) / f64::from(self.asked.work.prompt_tokens.max(1))).min(1.0)
            }
            0 => 0.0,
            blocks => f64::from(self.found.blocks(id)) / blocks as f64,
        }
    }

    /// Tokens of the prompt that an endpoint holds.
    pub(super) fn cached_tokens(&self, id: EndpointId) -> f64 {
        self.asked.cached_tokens(id, self.found.blocks(id))
    }

    /// Seconds until an endpoint has prefilled what was sent there.
    pub(super) fn wait(&self, id: EndpointId) -> f64 {
        self.prefixes.prefill.get(id).map_or(0.0, |prefill| prefill.wait(self.now).as_secs_f64())
    }

    /// Seconds that an endpoint takes to prefill so many tokens.
    pub(super) fn seconds(&self, id: EndpointId, tokens: f64) -> f64 {
        tokens * self.pace(id)
    }

    /// Seconds that an endpoint takes for a token.
    fn pace(&self, id: EndpointId) -> f64 {
        let start = 1.0 / self.speed.start;
        let own = self.prefixes.prefill.get(id).map_or(start, |prefill| prefill.pace(start));
        let is_same = |usual: &f64| own < usual * SAME_PACE && *usual < own * SAME_PACE;
        self.usual_pace.filter(is_same).unwrap_or(own)
    }

    /// Seconds to prefill what an endpoint does not hold of the prompt.
    pub(super) fn miss(&self, id: EndpointId) -> f64 {
        self.seconds(id, f64::from(self.asked.work.prompt_tokens) - self.cached_tokens(id))
    }

    /// Tokens that the prompt would push out of an endpoint's cache.
    pub(super) fn evicted_tokens(&self, id: EndpointId) -> f64 {
        let Fill { held, capacity } = self.prefixes.index.fill(id);
        let new = self.asked.prefix.len() - self.found.blocks(id) as usize;
        (held + new).saturating_sub(capacity).min(held) as f64 * self.asked.block_tokens()
    }

    /// For explanations: what is cached where.
    pub(super) fn describe(&self, endpoint: &Endpoint) -> String {
        let (blocks, most) = (self.asked.prefix.len(), self.found.most());
        format!("of {blocks} blocks {} are cached there, {most} at most anywhere", self.found.blocks(endpoint.id))
    }
}
