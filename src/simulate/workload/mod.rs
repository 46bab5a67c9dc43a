//! Traffic: who asks what, and when. Prompts are block ids, so a million requests need no text.

mod arrivals;
mod named;
mod trace;

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::engine::{Blocks, EngineSpec};

pub use arrivals::{Arrivals, Pattern};
pub use named::{WORKLOADS, Workload};
pub use trace::{Trace, TraceError};

/// One request of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Tokens of the prompt, all that was said before included.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Pause between the answer before and this request, in microseconds.
    pub pause_us: u64,
}

/// Requests that follow one another, each after the answer to the one before: a conversation, or a single request.
#[derive(Debug, Clone)]
pub struct Script {
    /// Who asks.
    pub tenant: u16,
    /// The adapter that is asked for; `None` is the base model.
    pub adapter: Option<u16>,
    /// What its tokens are, by blocks.
    pub blocks: Blocks,
    /// The requests; at least one.
    pub turns: SmallVec<[Turn; 1]>,
}

impl Script {
    /// A script of one request.
    pub fn single(tenant: u16, blocks: Blocks, prompt_tokens: u64, output_tokens: u64) -> Self {
        let turn = Turn { prompt_tokens, output_tokens, pause_us: 0 };
        Self { tenant, adapter: None, blocks, turns: SmallVec::from_buf([turn]) }
    }
}

/// An endless supply of scripts.
pub trait Scripts: Send {
    /// The next one.
    fn next(&mut self, rng: &mut Rng) -> Script;
}

impl<F: FnMut(&mut Rng) -> Script + Send> Scripts for F {
    fn next(&mut self, rng: &mut Rng) -> Script {
        self(rng)
    }
}

/// What scripts are like on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Typical {
    /// Requests of a script.
    pub turns: f64,
    /// Prompt tokens of a request.
    pub prompt_tokens: f64,
    /// Answer tokens of a request.
    pub output_tokens: f64,
    /// Tokens of context while it decodes, averaged over time: long answers weigh more.
    pub context_tokens: f64,
}

impl Typical {
    /// Averages over a sample of what `scripts` supplies.
    pub fn drawn(scripts: &mut dyn Scripts, rng: &mut Rng) -> Self {
        const SAMPLE: usize = 4000;
        let sample: Vec<_> = (0..SAMPLE).map(|_| scripts.next(rng)).collect();
        Self::of(sample.iter())
    }

    /// Averages over `scripts`, of which there is at least one.
    pub fn of<'a>(scripts: impl Iterator<Item = &'a Script>) -> Self {
        let (mut count, mut turns, mut prompts, mut outputs, mut contexts) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for script in scripts {
            count += 1.0;
            for turn in &script.turns {
                let (prompt, output) = (turn.prompt_tokens as f64, turn.output_tokens as f64);
                turns += 1.0;
                prompts += prompt;
                outputs += output;
                contexts += output * (prompt + output / 2.0);
            }
        }
        Self {
            turns: turns / count,
            prompt_tokens: prompts / turns,
            output_tokens: outputs / turns,
            context_tokens: contexts / outputs,
        }
    }

    /// Requests a second that one engine can carry without any help from its prefix cache: what load 1 means.
    pub fn capacity(&self, engine: &EngineSpec) -> f64 {
        let context = self.context_tokens;
        let sequences = (engine.kv_tokens as f64 / context).clamp(1.0, engine.sequences_max as f64);
        let cost = &engine.cost;
        let step_us = cost.step_us + sequences * (cost.sequence_us + cost.context_us * context);
        let prefill_us = self.prompt_tokens * (cost.prefill_token_us + cost.attention_us * self.prompt_tokens / 2.0);
        1e6 / (prefill_us + self.output_tokens * step_us / sequences)
    }
}

/// Ids for blocks, in ranges that do not touch.
#[derive(Debug, Default)]
pub struct Ids(u64);

impl Ids {
    /// Blocks in a range at most.
    const RANGE: u64 = 1 << 20;

    /// The first id of a fresh range.
    pub fn range(&mut self) -> u64 {
        self.0 += Self::RANGE;
        self.0
    }

    /// The ids of a prefix of so many tokens: its whole blocks.
    pub fn prefix(&mut self, tokens: u64, block_tokens: u64) -> Arc<[u64]> {
        let first = self.range();
        (first..first + tokens / block_tokens).collect()
    }
}

/// Draws that workloads are made of.
pub(super) mod draw {
    use fastrand::Rng;

    use super::super::engine::whole;

    /// Exponential with that mean.
    pub(in super::super) fn exponential(rng: &mut Rng, mean: f64) -> f64 {
        -mean * (1.0 - rng.f64()).ln()
    }

    /// Lognormal with that median and sigma, within bounds: most are small, some are large.
    pub(super) fn skewed(rng: &mut Rng, median: f64, sigma: f64, bounds: (u64, u64)) -> u64 {
        // Twelve uniform draws make a normal one, and no trigonometry that differs between machines.
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        whole(median * (sigma * normal).exp()).clamp(bounds.0, bounds.1)
    }

    /// A position of `0..count` by Zipf's law with exponent 1: the first is the most popular.
    pub(super) fn zipf(rng: &mut Rng, count: u32) -> u32 {
        let total: f64 = (1..=count).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut left = rng.f64() * total;
        for rank in 1..=count {
            left -= 1.0 / f64::from(rank);
            if left < 0.0 {
                return rank - 1;
            }
        }
        count - 1
    }
}
