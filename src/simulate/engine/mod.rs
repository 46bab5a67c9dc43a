//! A modelled inference engine in virtual time: continuous batching, chunked prefill, a prefix cache, preemption.
//!
//! Time is a number of microseconds that the caller hands in. An engine works in *phases*: one step that computes
//! prompt chunks, or many steps in a row that only decode, which is one event, whatever their number, until the batch
//! changes. Not modelled: rounding of a sequence's last block, the gap between steps, speculative decoding.

mod adapters;
mod batch;
mod cost;
mod kv;
mod preset;
mod sequence;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use adapters::Adapters;
use sequence::Sequences;

pub use cost::CostModel;
pub(crate) use cost::whole;
pub use kv::{Blocks, KvCache};
pub use preset::{EngineSpec, PRESETS, Preset, preset};
pub use sequence::Job;

/// What an engine tells at the end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The first token of a job, of whose prompt `cached` tokens needed no computing.
    FirstToken {
        /// The job.
        key: u32,
        /// Prompt tokens found in the cache.
        cached: u64,
        /// Microseconds that it waited for the batch.
        queue_us: u64,
    },
    /// The last token of a job.
    Finished {
        /// The job.
        key: u32,
    },
}

/// What an engine did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Prompt tokens computed, those computed again after a preemption included.
    pub computed_tokens: u64,
    /// Prompt tokens found in the cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Sequences thrown out of the batch because the cache was full.
    pub preemptions: u64,
    /// Adapters loaded.
    pub adapter_loads: u64,
    /// Microseconds spent in steps.
    pub busy_us: u64,
}

/// What an engine exports, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// Sequences in the batch.
    pub running: u64,
    /// Sequences that wait for the batch.
    pub waiting: u64,
    /// Share of the KV cache held by sequences, 0 to 1.
    pub kv_usage: f64,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
    /// Tokens of a KV block.
    pub block_tokens: u64,
    /// Most sequences in the batch.
    pub sequences_max: usize,
    /// Most adapters in the batch.
    pub adapters_max: usize,
    /// Counters.
    pub counters: Counters,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing to do.
    Idle,
    /// One step with prompt chunks, and a token for each decoding sequence.
    Prefill { began: u64, ends: u64 },
    /// So many steps that only decode.
    Decode { began: u64, ends: u64, steps: u64 },
}

/// One engine.
#[derive(Debug)]
pub struct Engine {
    spec: EngineSpec,
    /// The cost model at the present speed.
    cost: CostModel,
    cache: KvCache,
    adapters: Adapters,
    sequences: Sequences,
    waiting: VecDeque<u32>,
    /// In the batch, with prompt left to compute, in the order of admission.
    prefilling: VecDeque<u32>,
    /// In the batch and decoding: the step after which each is done, its number, its admission.
    decoding: BinaryHeap<Reverse<(u64, u32, u64)>>,
    /// Number and admission in the order of admission; may hold those that left.
    admitted: Vec<(u32, u64)>,
    /// How many decode.
    active: u64,
    /// Their tokens of context together.
    context: u64,
    /// Steps made.
    steps: u64,
    admissions: u64,
    /// Number and tokens of the prompt chunks of the present step.
    chunks: Vec<(u32, u64)>,
    phase: Phase,
    counters: Counters,
    /// Prompt tokens still to compute, as guessed when each job came; for the oracle.
    backlog: u64,
}

impl Engine {
    /// An idle engine with an empty cache whose blocks hold `block_tokens` tokens.
    pub fn new(spec: EngineSpec, block_tokens: u64) -> Self {
        Self {
            spec,
            cost: spec.cost,
            cache: KvCache::new(spec.kv_tokens, block_tokens),
            adapters: Adapters::new(spec.adapters_max),
            sequences: Sequences::default(),
            waiting: VecDeque::new(),
            prefilling: VecDeque::new(),
            decoding: BinaryHeap::new(),
            admitted: Vec::new(),
            active: 0,
            context: 0,
            steps: 0,
            admissions: 0,
            chunks: Vec::new(),
            phase: Phase::Idle,
            counters: Counters::default(),
            backlog: 0,
        }
    }

    /// What it is.
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Whether a job could ever be served: prompt and answer must fit into the cache.
    pub fn can_serve(&self, job: &Job) -> bool {
        job.prompt_tokens + job.output_tokens <= self.spec.kv_tokens
    }

    /// When the present phase ends; `None` when there is nothing to do.
    pub fn due(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle => None,
            Phase::Prefill { ends, .. } | Phase::Decode { ends, .. } => Some(ends),
        }
    }

    /// Takes a job in that [`Engine::can_serve`] allows. `expected` is how many prompt tokens it will have to compute,
    /// as far as anybody knows; only [`Engine::forecast`] uses it.
    pub fn submit(&mut self, job: Job, expected: u64, now: u64) {
        debug_assert!(self.can_serve(&job) && job.prompt_tokens > 0 && job.output_tokens > 0);
        let at = self.sequences.add(job, expected, now);
        self.backlog += expected;
        self.waiting.push_back(at);
        match self.phase {
            Phase::Idle => self.plan(now),
            Phase::Prefill { .. } => {}
            Phase::Decode { began, steps, .. } => {
                // Whoever waits already waits for more than the end of a step.
                if (self.waiting.len() == 1 || self.adapters.loads > 0) && self.has_room_for(at) {
                    let reached = self.steps_by(began, now).min(steps);
                    self.phase = self.decode_phase(began, reached);
                }
            }
        }
    }

    /// Ends the phase that is due now, tells what came of it, and begins the next.
    pub fn advance(&mut self, now: u64, outputs: &mut Vec<Output>) {
        debug_assert_eq!(self.due(), Some(now));
        self.finish_phase(outputs);
        self.plan(now);
    }

    /// What its metrics page would say.
    pub fn status(&self, now: u64) -> Status {
        let grown = match self.phase {
            Phase::Decode { began, steps, .. } => self.active * self.steps_by(began, now).min(steps),
            _ => 0,
        };
        Status {
            running: self.active + self.prefilling.len() as u64,
            waiting: self.waiting.len() as u64,
            kv_usage: ((self.cache.used() + grown) as f64 / self.spec.kv_tokens as f64).min(1.0),
            kv_tokens: self.spec.kv_tokens,
            block_tokens: self.cache.block_tokens(),
            sequences_max: self.spec.sequences_max,
            adapters_max: self.spec.adapters_max,
            counters: Counters { generated_tokens: self.counters.generated_tokens + grown, ..self.counters() },
        }
    }

    /// What it did up to the last end of a phase.
    pub fn counters(&self) -> Counters {
        Counters { adapter_loads: self.adapters.loads, ..self.counters }
    }

    /// Adapters of sequences in the batch, and of those that wait for it.
    pub fn adapters(&self) -> (Vec<u16>, Vec<u16>) {
        let mut waiting: Vec<_> = self.waiting.iter().filter_map(|at| self.sequences.get(*at)?.job.adapter).collect();
        waiting.sort_unstable();
        waiting.dedup();
        (self.adapters.used().collect(), waiting)
    }

    /// Requests inside.
    pub fn load(&self) -> u64 {
        self.active + (self.prefilling.len() + self.waiting.len()) as u64
    }

    /// Sets the speed of the phases that begin from now on: 1 is that of the specification.
    pub fn set_speed(&mut self, speed: f64) {
        self.cost = self.spec.cost.at_speed(speed);
    }

    /// Dies and comes back empty. The jobs that were inside are lost; their keys.
    pub fn restart(&mut self) -> Vec<u32> {
        let lost = self.sequences.drain();
        let fresh = Self::new(self.spec, self.cache.block_tokens());
        let (cost, counters) = (self.cost, self.counters());
        let loads = counters.adapter_loads;
        *self = Self { cost, counters, ..fresh };
        self.adapters.loads = loads;
        lost
    }

    /// What a job would go through here if nothing else came: microseconds to its first token and to its last, and the
    /// prompt tokens that it would have to compute. Sees everything, the answer's length included: for the oracle.
    pub fn forecast(&self, job: &Job, now: u64) -> (f64, f64, u64) {
        let block = self.cache.block_tokens();
        let most = (job.prompt_tokens - 1) / block;
        let (cached, _) = self.cache.peek(&job.blocks, most);
        let hits = cached + self.coming(job, cached, most);
        let expected = job.prompt_tokens - hits * block;
        let ahead = self.backlog + expected;
        let steps = ahead.div_ceil(self.spec.step_tokens.saturating_sub(self.active).max(1)) as f64;
        let decode = self.cost.step_us + self.cost.decode_us(self.active, self.context);
        let load = if self.adapters.is_loaded(job.adapter) { 0.0 } else { self.spec.adapter_load_us };
        let prefill = steps * decode + self.cost.prefill_us(ahead, hits * block) + load;
        let rest = self.due().map_or(0, |due| due.saturating_sub(now));
        let rest = if matches!(self.phase, Phase::Prefill { .. }) { rest as f64 } else { decode / 2.0 };
        // Waiting for room in the cache or in the batch: those inside leave one by one.
        let queued: u64 = self.waiting.len() as u64;
        let missing = (expected + self.backlog).saturating_sub(self.cache.available());
        let inside = self.active.max(1) as f64;
        let is_full = self.load() >= self.spec.sequences_max as u64;
        let slots = if is_full { (queued + 1) as f64 } else { 0.0 };
        let departures = slots.max(missing as f64 / (self.context as f64 / inside).max(1.0));
        let until_next = self.until_departure() as f64 * decode;
        let ttft = rest + prefill + departures * until_next.max(decode);
        let sequences = self.active + 1 + queued + self.prefilling.len() as u64;
        let context = self.context + job.prompt_tokens + self.backlog;
        (ttft, ttft + self.cost.steps_us(sequences, context, job.output_tokens - 1), expected)
    }

    /// How many blocks of a job, from block `from` on and up to `most`, those who are before it will have computed.
    fn coming(&self, job: &Job, from: u64, most: u64) -> u64 {
        let ahead = self.prefilling.iter().chain(&self.waiting).filter_map(|at| self.sequences.get(*at));
        let common = |other: &Job| {
            let most = most.min(other.prompt_tokens / self.cache.block_tokens());
            let is_same = |at: &u64| job.blocks.id(*at as usize) == other.blocks.id(*at as usize);
            (from..most).take_while(is_same).count() as u64
        };
        ahead.map(|sequence| common(&sequence.job)).max().unwrap_or(0)
    }

    /// What taking a job costs everybody, in microseconds, and the prompt tokens that it would have to compute here: its
    /// own time to the last token, and the time by which its prefill holds up each sequence that decodes, and `later`
    /// further ones.
    pub fn cost_of(&self, job: &Job, later: f64, now: u64) -> (f64, u64) {
        let (_, own, expected) = self.forecast(job, now);
        let held_up = self.cost.prefill_us(expected, job.prompt_tokens - expected);
        (own + held_up * (self.active as f64 + later), expected)
    }

    /// Steps until the next decoding sequence is done.
    fn until_departure(&self) -> u64 {
        self.decoding.peek().map_or(0, |Reverse((step, ..))| step.saturating_sub(self.steps))
    }

    /// Steps of the present decode phase that will have been made at the first end of a step from `now` on.
    fn steps_by(&self, began: u64, now: u64) -> u64 {
        self.cost.steps_until(self.active, self.context, now.saturating_sub(began) as f64)
    }

    fn decode_phase(&self, began: u64, steps: u64) -> Phase {
        let us = whole(self.cost.steps_us(self.active, self.context, steps)).max(1);
        Phase::Decode { began, ends: began + us, steps }
    }
}
