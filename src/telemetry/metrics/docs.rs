//! The reference page of the metrics, made from their declarations.

use std::fmt::Write;

use crate::domain::Gauge;

use super::families::{ALL, Kind};

const INTRODUCTION: &str = "\
# Metrics

<!-- Made by `fairlead docs metrics`; a test compares. Change `src/telemetry/metrics/families.rs` instead. -->

At `/metrics` of the admin port, as OpenMetrics text. Label `endpoint` is the address, `name` the endpoint's name for
people. Numbers of an endpoint are those of this process; an endpoint that left is gone from the page at once.

| name | kind | labels | meaning |
|---|---|---|---|
";

const GAUGES: &str = "
## Gauges of endpoints

What an engine tells, and what its counters and histograms gained lately (`scrape.window`); labels `endpoint` and `name`.
Only what a strategy in use needs is read ([signals.md](signals.md)); what is not known or too old is absent.
`metrics.per_endpoint` says how much is shown.

| name | unit | meaning |
|---|---|---|
";

/// The whole page, in Markdown.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for family in ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a `String` cannot fail.
        writeln!(page, "| `{}` | {kind} | {} | {}. |", family.name, labels.join(", "), family.help).ok();
    }
    page.push_str(GAUGES);
    for gauge in Gauge::ALL {
        writeln!(page, "| `{}` | {} | {}. |", gauge.metric(), gauge.unit(), gauge.summary()).ok();
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_one_that_is_made() {
        let kept = include_str!("../../../docs/metrics.md");
        assert!(kept == super::page(), "run `cargo run -- docs metrics > docs/metrics.md`");
    }
}
