//! How much each strategy carries: the demand up to which time to first token is as it should be.

use std::fmt::Write as _;

use super::super::sweep::Cell;
use super::table::number;

/// The demand, by strategy and workload, up to which the 90th percentile of the time to first token stays within
/// `ttft_ms`; between two steps by a straight line. Nothing where no workload was run at several demands.
pub(in super::super) fn carried(cells: &[Cell], ttft_ms: f64) -> String {
    let mut text = String::new();
    let workloads = distinct(cells.iter().map(|cell| &*cell.workload));
    let strategies = distinct(cells.iter().map(|cell| &*cell.strategy));
    let steps = distinct(cells.iter().map(|cell| &*cell.demand));
    if steps.len() <= workloads.len() {
        return text;
    }
    let width = strategies.iter().map(|name| name.len()).max().unwrap_or(0).max("strategy".len());
    // Writing into a string cannot fail.
    writeln!(text, "\nDemand up to which TTFT p90 is within {} ms", number(ttft_ms)).ok();
    write!(text, "  {:width$}", "strategy").ok();
    text.extend(workloads.iter().map(|name| format!("  {name:>10}")));
    for strategy in strategies {
        write!(text, "\n  {strategy:width$}").ok();
        for workload in &workloads {
            let of_both = cells.iter().filter(|cell| cell.workload == *workload && cell.strategy == strategy);
            let mut steps: Vec<_> = of_both.map(|cell| (cell.x, cell.summary.ttft_ms.p90)).collect();
            steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            write!(text, "  {:>1$}", crossing(&steps, ttft_ms), workload.len().max(10)).ok();
        }
    }
    text.push('\n');
    text
}

/// Where the line through `steps` first goes above `most`.
fn crossing(steps: &[(f64, f64)], most: f64) -> String {
    let mut below: Option<(f64, f64)> = None;
    for (x, value) in steps.iter().copied() {
        if value > most {
            return below.map_or_else(
                || format!("< {}", number(x)),
                |(from, lower)| number(from + (x - from) * (most - lower) / (value - lower)),
            );
        }
        below = Some((x, value));
    }
    below.map_or_else(|| "-".to_owned(), |(x, _)| format!("> {}", number(x)))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = Vec::new();
    for name in names {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossing_lies_between_the_steps_around_it() {
        assert_eq!(crossing(&[(10.0, 100.0), (20.0, 300.0)], 200.0), "15.0");
        assert_eq!(crossing(&[(10.0, 100.0), (20.0, 300.0)], 50.0), "< 10.0");
        assert_eq!(crossing(&[(10.0, 100.0), (20.0, 300.0)], 500.0), "> 20.0");
        // What comes back below is luck: the first time counts.
        assert_eq!(crossing(&[(10.0, 100.0), (20.0, 300.0), (30.0, 100.0)], 200.0), "15.0");
        assert_eq!(crossing(&[], 1.0), "-");
    }
}
