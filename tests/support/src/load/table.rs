//! Several runs side by side.

use std::io::Write;

use serde::Serialize;

use super::{Report, Spread};

/// One row for each strategy.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    strategy: String,
    report: Report,
}

impl Table {
    /// Adds a run.
    pub fn add(&mut self, strategy: &str, report: Report) {
        self.rows.push(Row { strategy: strategy.to_owned(), report });
    }

    /// The report, if there is one row.
    pub fn into_only(mut self) -> Option<Report> {
        self.rows.pop().map(|row| row.report)
    }

    /// Writes all rows, for people or as JSON.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, &self.rows)?;
            writeln!(out)?;
            return Ok(());
        }
        writeln!(
            out,
            "| strategy | ok | failed | ok/s | TTFT p50 ms | p90 | p99 | ITL p50 ms | p99 | max ÷ mean | variation | TTFT p50 ÷ first | p99 ÷ first |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        let first = self.rows.first().map(|row| row.report.ttft).unwrap_or_default();
        for Row { strategy, report } in &self.rows {
            let Report { ok, failed, rps, ttft, itl, spread, .. } = report;
            let Spread { max_over_mean, variation } = spread;
            let (p50, p99) = (ttft.p50_ms / first.p50_ms, ttft.p99_ms / first.p99_ms);
            writeln!(
                out,
                "| {strategy} | {ok} | {failed} | {rps:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {max_over_mean:.2} | {variation:.2} \
                 | {p50:.2} | {p99:.2} |",
                ttft.p50_ms, ttft.p90_ms, ttft.p99_ms, itl.p50_ms, itl.p99_ms,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Quantiles;

    #[test]
    fn rows_are_compared_with_the_first_one() {
        let with = |p50_ms, p99_ms| Report {
            ok: 7,
            ttft: Quantiles { p50_ms, p99_ms, ..Quantiles::default() },
            ..Report::default()
        };
        let mut table = Table::default();
        table.add("random", with(100.0, 400.0));
        table.add("least-request", with(50.0, 100.0));
        let mut out = Vec::new();
        table.write(false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().nth(2).unwrap().ends_with("| 1.00 | 1.00 |"), "{text}");
        assert!(text.lines().nth(3).unwrap().starts_with("| least-request | 7 | 0 |"), "{text}");
        assert!(text.lines().nth(3).unwrap().ends_with("| 0.50 | 0.25 |"), "{text}");
    }
}
