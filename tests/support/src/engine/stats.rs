//! The engine's own numbers, written by its scheduler and read by `/metrics`.

use std::time::Duration;

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
        let seconds = sample.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
    }

    /// Samples at or below `bound` seconds.
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
    pub(super) kv_usage: f64,
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
    pub(super) ttft: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) end_to_end: Histogram,
    pub(super) queue_time: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            running: 0,
            waiting: 0,
            kv_usage: 0.0,
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
            ttft: Histogram::new(TTFT_BOUNDS),
            inter_token: Histogram::new(ITL_BOUNDS),
            end_to_end: Histogram::new(REQUEST_BOUNDS),
            queue_time: Histogram::new(REQUEST_BOUNDS),
        }
    }
}
