//! The cheapest endpoint, until it is full.

use serde::Deserialize;

use crate::routing::{About, Built, Levels, Registration, Scored};

use super::settings::{Full, KV_LIMIT, LIMIT};

pub(super) const REGISTRATION: Registration = Registration {
    name: "cost",
    aliases: &[],
    summary: "the cheapest endpoint; the next cheapest when it is full",
    about: About {
        purpose: "Own engines before rented ones, spot before on demand.",
        formula: "Lowest `cost` of the endpoint among those that are not full; equal costs are decided by the open \
                  requests. Full is (open requests + 1) / weight above `limit`, or more than `kv_limit` of the KV \
                  cache in use. If all are full, the fewest open requests. In combinations counts \
                  the place among the candidates' costs, the full ones last.",
        missing: "Without fresh readings, our own requests alone make an endpoint full. Cost is 1 unless it is set.",
        source: "The lowest-cost routing of LiteLLM, with a limit.",
    },
    parameters: &[LIMIT, KV_LIMIT],
    build: |parameters| {
        let Settings { limit, kv_limit } = parameters.read()?;
        Ok(Built::Scored(Scored::new(Full { limit, kv_limit }.spill(Levels::Cost)?)))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    limit: f64,
    kv_limit: f64,
}

impl Default for Settings {
    fn default() -> Self {
        let Full { limit, kv_limit } = Full::DEFAULT;
        Self { limit, kv_limit }
    }
}
