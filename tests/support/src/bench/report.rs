//! The table and the JSON of a benchmark.

use std::io::{self, Write};

use serde::Serialize;

use super::rig::Case;
use super::streams::Streams;

/// What ends the name of a service that is asked over TLS.
pub(super) const TLS: &str = ", TLS";

/// One turn of one case.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Per request, in microseconds.
    pub(super) envoy_cpu_us: f64,
    /// The service's, per request, in microseconds.
    pub(super) own_cpu_us: f64,
    pub(super) failed: u64,
}

/// All turns of one case.
#[derive(Debug, Serialize)]
struct Row {
    prompt_bytes: usize,
    mode: &'static str,
    service: String,
    samples: Vec<Sample>,
}

/// Everything measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    rows: Vec<Row>,
    /// Share of a core that Fairlead uses without requests.
    pub(super) idle_cpu_share: f64,
    pub(super) streams: Option<Streams>,
}

impl Row {
    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    }

    fn is_noop(&self) -> bool {
        self.service == "no-op"
    }

    /// The median of the ratios to another row in the same round: neighbours in time share the machine's mood.
    fn ratio(&self, other: &Self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let mut ratios: Vec<f64> =
            self.samples.iter().zip(&other.samples).map(|(own, other)| of(own) / of(other)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().filter(|ratio| ratio.is_finite())
    }
}

impl Report {
    pub(super) fn add(&mut self, prompt_bytes: usize, case: &Case, service: &str, sample: Sample) {
        let is_same =
            |row: &&mut Row| row.prompt_bytes == prompt_bytes && row.mode == case.mode && row.service == service;
        match self.rows.iter_mut().find(is_same) {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                prompt_bytes,
                mode: case.mode,
                service: service.to_owned(),
                samples: vec![sample],
            }),
        }
    }

    /// The row of the same bodies whose service is like that.
    fn beside(&self, row: &Row, is_it: impl Fn(&Row) -> bool) -> Option<&Row> {
        self.rows.iter().find(|other| other.mode == row.mode && other.prompt_bytes == row.prompt_bytes && is_it(other))
    }

    fn to_noop(&self, row: &Row, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        row.ratio(self.beside(row, Row::is_noop)?, of)
    }

    /// What TLS costs: each row with it beside the same one without.
    fn write_tls(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.rows {
            let Some(plain) = row.service.strip_suffix(TLS) else { continue };
            let Some(plain) = self.beside(row, |other| other.service == plain) else { continue };
            let ratio = |of: fn(&Sample) -> f64| row.ratio(plain, of).unwrap_or(f64::NAN);
            writeln!(
                out,
                "TLS ÷ plaintext, {} bytes, {}, {}: own CPU {:.2}, Envoy CPU {:.2}, p50 {:.2}, p99 {:.2}",
                row.prompt_bytes,
                row.mode,
                plain.service,
                ratio(|sample| sample.own_cpu_us),
                ratio(|sample| sample.envoy_cpu_us),
                ratio(|sample| sample.p50_ms),
                ratio(|sample| sample.p99_ms),
            )?;
        }
        Ok(())
    }

    pub(super) fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "| prompt bytes | bodies | service | requests/s | p50 ms | p99 ms | Envoy CPU µs | own CPU µs | failed | \
             requests/s ÷ no-op | own CPU ÷ no-op |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            let failed: u64 = row.samples.iter().map(|sample| sample.failed).sum();
            let ratio = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
            writeln!(
                out,
                "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} | {failed} | {} | {} |",
                row.prompt_bytes,
                row.mode,
                row.service,
                row.median(|sample| sample.requests_per_second),
                row.median(|sample| sample.p50_ms),
                row.median(|sample| sample.p99_ms),
                row.median(|sample| sample.envoy_cpu_us),
                row.median(|sample| sample.own_cpu_us),
                ratio(self.to_noop(row, |sample| sample.requests_per_second)),
                ratio(self.to_noop(row, |sample| sample.own_cpu_us).filter(|_| !row.service.starts_with("no ext"))),
            )?;
        }
        writeln!(out, "\nFairlead without requests: {:.1} % of a core (reading metrics)", 100.0 * self.idle_cpu_share)?;
        self.write_tls(out)?;
        if let Some(streams) = &self.streams {
            writeln!(
                out,
                "{} streams open: {:.1} MiB resident, {:.1} MiB before; {} in flight afterwards, {} failed",
                streams.in_flight,
                streams.open_kib as f64 / 1024.0,
                streams.before_kib as f64 / 1024.0,
                streams.left_in_flight,
                streams.failed
            )?;
        }
        Ok(())
    }
}
