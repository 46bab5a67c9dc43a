//! Showing results: a table, plots, JSON.

mod carried;
mod svg;
mod table;

use serde::Serialize;

use super::scenario::Scenario;
use super::sweep::Cell;

pub(super) use carried::carried;
pub use svg::plots;
pub use table::table;

/// All results with what they are results of.
#[derive(Debug, Serialize)]
struct Document<'a> {
    seed: u64,
    requests: u64,
    replicas: usize,
    scrape_interval_us: u64,
    block_tokens: u64,
    objective: &'a super::Slo,
    engines: &'a [super::engine::EngineSpec],
    runs: &'a [Cell],
}

/// Everything, as JSON.
///
/// # Errors
/// None that is known of: every number is finite.
pub fn json(scenario: &Scenario, cells: &[Cell]) -> Result<Vec<u8>, serde_json::Error> {
    let document = Document {
        seed: scenario.seed,
        requests: scenario.requests,
        replicas: scenario.replicas,
        scrape_interval_us: scenario.scrape_us,
        block_tokens: scenario.block_tokens,
        objective: &scenario.slo,
        engines: &scenario.engines,
        runs: cells,
    };
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}
