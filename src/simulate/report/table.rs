//! Results as a table for people.

use std::fmt::Write as _;

use super::super::sweep::Cell;

const HEADS: [&str; 12] =
    ["TTFT p50", "p90", "p99", "ITL p50", "p90", "req/s", "out tok/s", "good/s", "hits", "spread", "fair", "regret"];

/// One table for each workload and demand, a line for each strategy. Times are in milliseconds.
pub fn table(cells: &[Cell]) -> String {
    let mut text = String::new();
    let width = cells.iter().map(|cell| cell.strategy.len()).max().unwrap_or(0).max("strategy".len());
    let mut last = None;
    for cell in cells {
        let group = (&cell.workload, &cell.demand);
        if last != Some(group) {
            let gap = if last.is_some() { "\n" } else { "" };
            last = Some(group);
            // Writing into a string cannot fail.
            writeln!(text, "{gap}{}, {}", cell.workload, cell.demand).ok();
            write!(text, "  {:width$}", "strategy").ok();
            text.extend(HEADS.map(|head| format!(" {head:>9}")));
            text.push('\n');
        }
        write!(text, "  {:width$}", cell.strategy).ok();
        text.extend(values(cell).map(|value| format!(" {value:>9}")));
        text.push_str(&troubles(cell));
        text.push('\n');
    }
    text
}

fn values(cell: &Cell) -> [String; HEADS.len()] {
    let s = &cell.summary;
    let dash = || "-".to_owned();
    [
        number(s.ttft_ms.p50),
        number(s.ttft_ms.p90),
        number(s.ttft_ms.p99),
        number(s.itl_ms.p50),
        number(s.itl_ms.p90),
        number(s.requests_per_s),
        number(s.output_tokens_per_s),
        number(s.goodput_per_s),
        percent(s.hit_rate),
        format!("{:.2}", s.spread),
        s.fairness.map_or_else(dash, |index| format!("{index:.2}")),
        s.regret.map_or_else(dash, percent),
    ]
}

/// What should not have happened, if it did.
fn troubles(cell: &Cell) -> String {
    let s = &cell.summary;
    let troubles = [(s.failed, "failed"), (s.refused, "too large"), (s.preemptions, "preempted")];
    let said: Vec<_> = troubles.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if said.is_empty() { String::new() } else { format!("  ({})", said.join(", ")) }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Three digits that say something.
pub(super) fn number(value: f64) -> String {
    match value {
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
