//! What an engine's metrics page lets a reader work out: its gauges, and what its counters and histograms gained lately.

use std::collections::VecDeque;

use crate::domain::{Gauge, Gauges};

use super::engine::{Counters, Status};

/// How far back gains count, in microseconds: production's default.
const WINDOW_US: u64 = 30_000_000;
/// How often a point to count from is kept.
const POINT_US: u64 = 2_500_000;
/// Upper bounds of the buckets double from 1 ms; the last one is open.
const BUCKETS: usize = 22;

/// A histogram of microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Histogram {
    sum: u64,
    count: u64,
    buckets: [u32; BUCKETS],
}

impl Histogram {
    fn add(&mut self, us: u64) {
        self.sum += us;
        self.count += 1;
        let bucket = (64 - (us / 1000).leading_zeros() as usize).min(BUCKETS - 1);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }

    /// What was added since `before`, in seconds: mean, median, 95th percentile.
    fn since(&self, before: &Self) -> Option<[f64; 3]> {
        let count = self.count - before.count;
        let mean = (count > 0).then(|| (self.sum - before.sum) as f64 / count as f64 / 1e6)?;
        let quantile = |share: f64| {
            let (rank, mut below) = (share * count as f64, 0.0);
            for (at, (now, then)) in (0_i32..).zip(self.buckets.iter().zip(&before.buckets)) {
                let held = f64::from(now - then);
                if held > 0.0 && below + held >= rank {
                    let (lower, upper) = (if at == 0 { 0.0 } else { 2_f64.powi(at - 1) }, 2_f64.powi(at));
                    return (lower + (upper - lower) * (rank - below) / held) / 1e3;
                }
                below += held;
            }
            mean
        };
        Some([mean, quantile(0.5), quantile(0.95)])
    }
}

/// Everything that only grows.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    ttft: Histogram,
    itl: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: u64,
    output_tokens: u64,
    finished: u64,
    engine: Counters,
}

/// The metrics of one engine.
#[derive(Debug, Default)]
pub(super) struct Exporter {
    /// How often the engine began anew, which readers tell by counters that went back.
    pub(super) restarts: u64,
    totals: Totals,
    /// Earlier totals and their times, the oldest first.
    points: VecDeque<(u64, Totals)>,
}

impl Exporter {
    /// A first token came, so long after the request arrived; it had waited so long before.
    pub(super) fn first_token(&mut self, ttft_us: u64, queue_us: u64, prompt_tokens: u64) {
        self.totals.ttft.add(ttft_us);
        self.totals.queue.add(queue_us);
        self.totals.prefill.add(ttft_us.saturating_sub(queue_us));
        self.totals.prompt_tokens += prompt_tokens;
    }

    /// An answer ended, so long after its first token.
    pub(super) fn finished(&mut self, decode_us: u64, output_tokens: u64) {
        self.totals.finished += 1;
        self.totals.output_tokens += output_tokens;
        self.totals.decode.add(decode_us);
        if output_tokens > 1 {
            self.totals.itl.add(decode_us / (output_tokens - 1));
        }
    }

    /// What can be read now.
    pub(super) fn gauges(&mut self, status: &Status, now: u64) -> Gauges {
        self.totals.engine = status.counters;
        let mut gauges = Gauges::default()
            .with(Gauge::Running, status.running as f64)
            .with(Gauge::Waiting, status.waiting as f64)
            .with(Gauge::KvUsage, status.kv_usage)
            .with(Gauge::KvCapacity, status.kv_tokens as f64)
            .with(Gauge::BlockTokens, status.block_tokens as f64)
            .with(Gauge::MaxRunning, status.sequences_max as f64)
            .with(Gauge::MaxAdapters, status.adapters_max as f64);
        while self.points.get(1).is_some_and(|(at, _)| at + WINDOW_US <= now) {
            self.points.pop_front();
        }
        if let Some((at, before)) = self.points.front()
            && *at < now
        {
            gains(&mut gauges, &self.totals, before, (now - at) as f64 / 1e6);
        }
        if self.points.back().is_none_or(|(at, _)| at + POINT_US <= now) {
            self.points.push_back((now, self.totals));
        }
        gauges
    }
}

fn gains(gauges: &mut Gauges, now: &Totals, before: &Totals, seconds: f64) {
    let times = [
        (&now.ttft, &before.ttft, [Gauge::TtftMean, Gauge::TtftP50, Gauge::TtftP95]),
        (&now.itl, &before.itl, [Gauge::ItlMean, Gauge::ItlP50, Gauge::ItlP95]),
        (&now.queue, &before.queue, [Gauge::QueueTimeMean, Gauge::QueueTimeP50, Gauge::QueueTimeP95]),
        (&now.prefill, &before.prefill, [Gauge::PrefillTimeMean, Gauge::PrefillTimeP50, Gauge::PrefillTimeP95]),
        (&now.decode, &before.decode, [Gauge::DecodeTimeMean, Gauge::DecodeTimeP50, Gauge::DecodeTimeP95]),
    ];
    for (now, before, names) in times {
        for (gauge, value) in names.into_iter().zip(now.since(before).into_iter().flatten()) {
            gauges.set(gauge, Some(value));
        }
    }
    let rate = |now: u64, before: u64| Some((now - before) as f64 / seconds);
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let (answered, finished) = (now.ttft.count - before.ttft.count, now.finished - before.finished);
    let cached = now.engine.cached_tokens - before.engine.cached_tokens;
    let computed = now.engine.computed_tokens - before.engine.computed_tokens;
    gauges.set(Gauge::PromptLengthMean, share(now.prompt_tokens - before.prompt_tokens, answered));
    gauges.set(Gauge::OutputLengthMean, share(now.output_tokens - before.output_tokens, finished));
    gauges.set(Gauge::PromptTokensRate, rate(now.prompt_tokens, before.prompt_tokens));
    gauges.set(Gauge::GenerationTokensRate, rate(now.engine.generated_tokens, before.engine.generated_tokens));
    gauges.set(Gauge::FinishedRate, rate(now.finished, before.finished));
    gauges.set(Gauge::PreemptionRate, rate(now.engine.preemptions, before.engine.preemptions));
    gauges.set(Gauge::PrefixHitRate, share(cached, cached + computed));
}

#[cfg(test)]
mod tests {
    use super::super::engine::{Engine, preset};
    use super::*;

    #[test]
    fn gains_are_those_of_the_last_half_minute() {
        let status = Engine::new(preset("llama-3-8b-a100").unwrap().spec, 16).status(0);
        let mut exporter = Exporter::default();
        assert_eq!(exporter.gauges(&status, 1).get(Gauge::TtftMean), None);
        for second in 1..=120 {
            let ttft = if second <= 30 { 8_000_000 } else { 200_000 };
            exporter.first_token(ttft, 50_000, 1000);
            exporter.finished(1_000_000, 101);
            exporter.gauges(&status, second * 1_000_000);
        }
        let gauges = exporter.gauges(&status, 120_000_000);
        let read = |gauge| gauges.get(gauge).unwrap();
        assert!((read(Gauge::TtftMean) - 0.2).abs() < 1e-9 && (read(Gauge::ItlMean) - 0.01).abs() < 1e-9);
        assert!((0.128..=0.256).contains(&read(Gauge::TtftP95)), "{}", read(Gauge::TtftP95));
        assert!((read(Gauge::FinishedRate) - 1.0).abs() < 0.02);
        assert!((read(Gauge::PrefillTimeMean) - 0.15).abs() < 1e-9);
        assert!((read(Gauge::OutputLengthMean) - 101.0).abs() < 1e-9);
    }
}
