//! The engine's own numbers, written by its scheduler and read by `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::BLOCK_TOKENS;

/// Upper bounds of vLLM's time-to-first-token buckets, in seconds (`v1/metrics/buckets.py`, 0.32).
pub(super) const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// Upper bounds of its inter-token latency buckets.
pub(super) const ITL_BOUNDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
/// Upper bounds of its end-to-end and queue time buckets.
pub(super) const REQUEST_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

/// Upper bounds of its prompt and reply length buckets, in tokens.
pub(super) const TOKEN_BOUNDS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 50_000.0,
    100_000.0,
];
/// Label sets of adapters that a page keeps.
const ADAPTER_SETS_MAX: usize = 64;

/// A Prometheus histogram.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    buckets: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    pub(super) fn add(&mut self, sample: Duration) {
        self.add_number(sample.as_secs_f64());
    }

    pub(super) fn add_number(&mut self, sample: f64) {
        self.count += 1;
        self.sum += sample;
        let index = self.bounds.partition_point(|bound| *bound < sample);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += other;
        }
    }

    /// Each bound with the samples at or below it.
    pub(super) fn cumulative_buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.bounds.iter().zip(&self.buckets).map(move |(bound, count)| {
            sum += count;
            (*bound, sum)
        })
    }

    /// Samples at or below `bound`.
    pub(super) fn cumulative(&self, bound: f64) -> u64 {
        self.bounds.iter().zip(&self.buckets).filter(|(upper, _)| **upper <= bound).map(|(_, count)| count).sum()
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
}

impl Finish {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Everything that `/metrics` tells.
#[derive(Debug, Clone)]
pub(super) struct Stats {
    pub(super) running: usize,
    pub(super) waiting: usize,
    /// Of the waiting ones, those that wait for room for their adapter.
    pub(super) deferred: usize,
    pub(super) asleep: bool,
    pub(super) kv_usage: f64,
    /// Size of the KV cache.
    pub(super) kv_tokens: usize,
    pub(super) prefix_queries: u64,
    pub(super) prefix_hits: u64,
    pub(super) prompt_tokens: u64,
    pub(super) generation_tokens: u64,
    pub(super) finished_stop: u64,
    pub(super) finished_length: u64,
    pub(super) finished_abort: u64,
    pub(super) preemptions: u64,
    pub(super) rejections: u64,
    /// Comma lists, as vLLM prints them.
    pub(super) loras_running: String,
    pub(super) loras_waiting: String,
    /// Running and waiting adapters that were seen, with the Unix time when last.
    pub(super) lora_history: BTreeMap<(String, String), f64>,
    pub(super) ttft: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) end_to_end: Histogram,
    pub(super) queue_time: Histogram,
    pub(super) prefill_time: Histogram,
    pub(super) decode_time: Histogram,
    /// In tokens.
    pub(super) prompt_lengths: Histogram,
    pub(super) reply_lengths: Histogram,
}

impl Stats {
    /// All ranks as one: counts added up, the cache's use averaged.
    pub(super) fn merged(ranks: &[Self]) -> Self {
        let Some((first, others)) = ranks.split_first() else { return Self::default() };
        let mut all = first.clone();
        for rank in others {
            all.merge(rank);
        }
        all.kv_usage /= ranks.len() as f64;
        all
    }

    fn merge(&mut self, other: &Self) {
        self.running += other.running;
        self.waiting += other.waiting;
        self.deferred += other.deferred;
        self.kv_usage += other.kv_usage;
        self.kv_tokens += other.kv_tokens;
        let counts = [
            (&mut self.prefix_queries, other.prefix_queries),
            (&mut self.prefix_hits, other.prefix_hits),
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.generation_tokens, other.generation_tokens),
            (&mut self.finished_stop, other.finished_stop),
            (&mut self.finished_length, other.finished_length),
            (&mut self.finished_abort, other.finished_abort),
            (&mut self.preemptions, other.preemptions),
            (&mut self.rejections, other.rejections),
        ];
        for (own, other) in counts {
            *own += other;
        }
        let histograms = [
            (&mut self.ttft, &other.ttft),
            (&mut self.inter_token, &other.inter_token),
            (&mut self.end_to_end, &other.end_to_end),
            (&mut self.queue_time, &other.queue_time),
            (&mut self.prefill_time, &other.prefill_time),
            (&mut self.decode_time, &other.decode_time),
            (&mut self.prompt_lengths, &other.prompt_lengths),
            (&mut self.reply_lengths, &other.reply_lengths),
        ];
        for (own, other) in histograms {
            own.merge(other);
        }
        for (adapters, time) in &other.lora_history {
            let seen = self.lora_history.entry(adapters.clone()).or_insert(*time);
            *seen = seen.max(*time);
        }
    }

    /// Remembers which adapters run and wait at this Unix time; the oldest set goes when there are too many.
    pub(super) fn note_adapters(&mut self, now: f64) {
        self.lora_history.insert((self.loras_running.clone(), self.loras_waiting.clone()), now);
        if self.lora_history.len() > ADAPTER_SETS_MAX {
            let oldest = self.lora_history.iter().min_by(|one, other| one.1.total_cmp(other.1));
            if let Some(adapters) = oldest.map(|(adapters, _)| adapters.clone()) {
                self.lora_history.remove(&adapters);
            }
        }
    }

    /// Share of prompt tokens found in the cache since the start.
    pub(super) fn hit_rate(&self) -> f64 {
        self.prefix_hits as f64 / self.prefix_queries.max(1) as f64
    }

    /// Tokens per second of decoding, over all requests since the start.
    pub(super) fn decode_rate(&self) -> f64 {
        if self.decode_time.sum > 0.0 { self.generation_tokens as f64 / self.decode_time.sum } else { 0.0 }
    }

    pub(super) fn finished(&self) -> f64 {
        (self.finished_stop + self.finished_length) as f64
    }

    pub(super) fn blocks(&self) -> f64 {
        (self.kv_tokens / BLOCK_TOKENS) as f64
    }

    pub(super) fn blocks_used(&self) -> f64 {
        (self.kv_usage * self.blocks()).round()
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            running: 0,
            waiting: 0,
            deferred: 0,
            asleep: false,
            kv_usage: 0.0,
            kv_tokens: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            finished_stop: 0,
            finished_length: 0,
            finished_abort: 0,
            preemptions: 0,
            rejections: 0,
            loras_running: String::new(),
            loras_waiting: String::new(),
            lora_history: BTreeMap::new(),
            ttft: Histogram::new(TTFT_BOUNDS),
            inter_token: Histogram::new(ITL_BOUNDS),
            end_to_end: Histogram::new(REQUEST_BOUNDS),
            queue_time: Histogram::new(REQUEST_BOUNDS),
            prefill_time: Histogram::new(REQUEST_BOUNDS),
            decode_time: Histogram::new(REQUEST_BOUNDS),
            prompt_lengths: Histogram::new(TOKEN_BOUNDS),
            reply_lengths: Histogram::new(TOKEN_BOUNDS),
        }
    }
}
