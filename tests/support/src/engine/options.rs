//! What an engine is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use super::dialect::Dialect;

/// Settings of one simulated engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sent as `x-engine` with every answer.
    pub name: String,
    /// Where to listen; port 0 picks a free one.
    pub address: SocketAddr,
    /// Served model names; the first one labels the metrics.
    pub models: Vec<String>,
    /// `LoRA` adapters, listed with the first model as their parent.
    pub loras: Vec<String>,
    /// Adapters in use at once (`--max-loras`), 0 for all of `loras`; requests for one more wait.
    pub loras_max: usize,
    /// Whose metrics pages it shows.
    pub dialect: Dialect,
    /// Data-parallel ranks behind the address, each with the whole capacity.
    pub ranks: usize,
    /// Answers at once with a fixed small reply, without reading more of the body than `"stream":true`.
    pub fast: bool,
    /// Keeps the last request (headers and body) for tests of byte identity.
    pub record: bool,
    /// Seed of the reply texts and lengths.
    pub seed: u64,
    /// Mean number of tokens of a reply that is not cut by `max_tokens`.
    pub reply_tokens: u32,
    /// Longest prompt plus reply, in tokens.
    pub model_len_max: usize,
    /// How fast the engine works.
    pub timing: Timing,
    /// What the engine holds.
    pub capacity: Capacity,
}

impl EngineOptions {
    /// Adapters in use at once.
    pub fn adapters_max(&self) -> usize {
        if self.loras_max == 0 { self.loras.len() } else { self.loras_max }
    }
}

/// The time that one step of the engine takes.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Every step.
    pub step: Duration,
    /// Added for each prompt token that the step computes.
    pub prefill_token: Duration,
    /// Added for each sequence that the step decodes.
    pub decode_sequence: Duration,
    /// Added for each adapter that the step brings in.
    pub lora_load: Duration,
}

/// The limits of one engine's scheduler and KV cache.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Tokens computed in one step, prompt chunks and decodes together.
    pub step_tokens_max: usize,
    /// Sequences running at once.
    pub sequences_max: usize,
    /// KV blocks of [`BLOCK_TOKENS`] tokens.
    pub kv_blocks: usize,
    /// Requests waiting at once; more get 503, as with `--max-num-queued-reqs`.
    pub queue_max: usize,
}

/// Tokens in a KV block.
pub const BLOCK_TOKENS: usize = 16;

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            name: "engine-0".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            models: vec!["llama-3-8b".to_owned()],
            loras: Vec::new(),
            loras_max: 0,
            dialect: Dialect::default(),
            ranks: 1,
            fast: false,
            record: false,
            seed: 0,
            reply_tokens: 64,
            model_len_max: 32_768,
            timing: Timing::default(),
            capacity: Capacity::default(),
        }
    }
}

impl Default for Timing {
    /// Roughly an 8B model on one data-centre GPU: 16,000 prompt tokens a second, about 100 decode steps a second.
    fn default() -> Self {
        Self {
            step: Duration::from_millis(8),
            prefill_token: Duration::from_micros(60),
            decode_sequence: Duration::from_micros(100),
            lora_load: Duration::from_millis(30),
        }
    }
}

impl Timing {
    /// The shortest times that still go through the scheduler, for tests.
    pub const fn quick() -> Self {
        Self {
            step: Duration::from_millis(1),
            prefill_token: Duration::ZERO,
            decode_sequence: Duration::ZERO,
            lora_load: Duration::ZERO,
        }
    }

    /// The same engine so many times as fast; `None` unless `factor` is a number above 0.
    #[must_use]
    pub fn at_speed(self, factor: f64) -> Option<Self> {
        let scaled = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() / factor).ok();
        Some(Self {
            step: scaled(self.step)?,
            prefill_token: scaled(self.prefill_token)?,
            decode_sequence: scaled(self.decode_sequence)?,
            lora_load: scaled(self.lora_load)?,
        })
        .filter(|_| factor > 0.0)
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { step_tokens_max: 2048, sequences_max: 256, kv_blocks: 8192, queue_max: 16_384 }
    }
}
