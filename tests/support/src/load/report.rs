//! What a run has seen.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::spread::Spread;

/// Longest time that is told apart, in microseconds: one hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// How one request ended.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) end: End,
    pub(super) status: Option<u16>,
    /// Who served it: `target-pod-ip`, else `x-engine`.
    pub(super) endpoint: Option<String>,
    pub(super) latency: Duration,
    pub(super) ttft: Option<Duration>,
    /// The conversation was given another session than it had.
    pub(super) moved: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Ok,
    /// Dropped by us on purpose.
    Aborted,
    Failed(String),
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

/// The result of a run. `requests = ok + failed + aborted`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Requests started (or refused by the limit of requests in flight).
    pub requests: u64,
    /// Answered with 2xx, to the end.
    pub ok: u64,
    /// Everything else that was not aborted on purpose.
    pub failed: u64,
    /// Dropped on purpose (`abort_fraction`).
    pub aborted: u64,
    /// Length of the run in seconds.
    pub seconds: f64,
    /// Requests per second that were ok.
    pub rps: f64,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
    /// Answers by who served them.
    pub endpoints: BTreeMap<String, u64>,
    /// How evenly those answers lie over the endpoints that gave any.
    pub spread: Spread,
    /// Answers that gave a conversation another session than it had.
    pub sessions_moved: u64,
    /// Time to the end of the answer (ok only).
    pub latency: Quantiles,
    /// Time to the first event of a stream (ok only).
    pub ttft: Quantiles,
    /// Time between events of a stream.
    pub itl: Quantiles,
}

/// Collects samples during a run.
#[derive(Debug)]
pub(super) struct Recorder {
    report: Report,
    latency: Histogram<u64>,
    ttft: Histogram<u64>,
    itl: Histogram<u64>,
}

impl Recorder {
    pub(super) fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Ok(Self { report: Report::default(), latency: histogram()?, ttft: histogram()?, itl: histogram()? })
    }

    pub(super) fn finished(&self) -> u64 {
        self.report.requests
    }

    pub(super) fn gap(&mut self, gap: Duration, events: u64) {
        let micros = gap.as_micros() as u64 / events.max(1);
        self.itl.saturating_record_n(micros, events);
    }

    pub(super) fn add(&mut self, sample: Sample) {
        let report = &mut self.report;
        report.requests += 1;
        if let Some(status) = sample.status {
            *report.statuses.entry(status).or_default() += 1;
        }
        if let Some(endpoint) = sample.endpoint {
            *report.endpoints.entry(endpoint).or_default() += 1;
        }
        report.sessions_moved += u64::from(sample.moved);
        match sample.end {
            End::Ok => {
                report.ok += 1;
                self.latency.saturating_record(sample.latency.as_micros() as u64);
                if let Some(ttft) = sample.ttft {
                    self.ttft.saturating_record(ttft.as_micros() as u64);
                }
            }
            End::Aborted => report.aborted += 1,
            End::Failed(reason) => {
                report.failed += 1;
                *report.failures.entry(reason).or_default() += 1;
            }
        }
    }

    pub(super) fn report(&self, elapsed: Duration) -> Report {
        let seconds = elapsed.as_secs_f64();
        Report {
            seconds,
            rps: self.report.ok as f64 / seconds.max(1e-9),
            spread: Spread::of(self.report.endpoints.values().copied()),
            latency: quantiles(&self.latency),
            ttft: quantiles(&self.ttft),
            itl: quantiles(&self.itl),
            ..self.report.clone()
        }
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    if histogram.is_empty() {
        return Quantiles::default();
    }
    let max_ms = histogram.max() as f64 / 1e3;
    Quantiles { count: histogram.len(), p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), max_ms }
}

impl Report {
    /// Writes the report as a table for people.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { requests, ok, failed, aborted, seconds, rps, .. } = self;
        writeln!(
            out,
            "requests {requests}   ok {ok}   failed {failed}   aborted {aborted}   {rps:.1} ok/s over {seconds:.1} s"
        )?;
        writeln!(out, "{:<12}{:>10}{:>12}{:>12}{:>12}{:>12}", "ms", "samples", "p50", "p90", "p99", "max")?;
        for (name, q) in [("latency", &self.latency), ("first token", &self.ttft), ("inter-token", &self.itl)] {
            if q.count > 0 {
                let Quantiles { count, p50_ms, p90_ms, p99_ms, max_ms } = q;
                writeln!(out, "{name:<12}{count:>10}{p50_ms:>12.2}{p90_ms:>12.2}{p99_ms:>12.2}{max_ms:>12.2}")?;
            }
        }
        for (status, count) in &self.statuses {
            writeln!(out, "status {status:<30}{count:>10}")?;
        }
        for (endpoint, count) in &self.endpoints {
            writeln!(out, "served by {endpoint:<27}{count:>10}")?;
        }
        if self.endpoints.len() > 1 {
            let Spread { max_over_mean, variation } = self.spread;
            writeln!(out, "spread: the busiest got {max_over_mean:.2} times the mean, variation {variation:.2}")?;
        }
        if self.sessions_moved > 0 {
            writeln!(out, "{:<37}{:>10}", "sessions moved", self.sessions_moved)?;
        }
        for (reason, count) in &self.failures {
            writeln!(out, "failed: {reason:<29}{count:>10}")?;
        }
        Ok(())
    }
}
