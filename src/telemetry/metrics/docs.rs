//! The reference page of the metrics, made from their declarations.

use std::fmt::Write;

use super::families::{ALL, Kind};

const INTRODUCTION: &str = "\
# Metrics

<!-- Made by `fairlead docs metrics`; a test compares. Change `src/telemetry/metrics/families.rs` instead. -->

At `/metrics` of the admin port, as OpenMetrics text. Label `endpoint` is the address, `name` the endpoint's name for
people. Numbers of an endpoint are those of this process; an endpoint that left is gone from the page at once.

| name | kind | labels | meaning |
|---|---|---|---|
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
