//! The cheapest endpoint, until it is full.

use serde::Deserialize;

use crate::routing::{About, Built, Levels, Parameter, Registration, Scored, Spill};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "cost",
    aliases: &[],
    summary: "the cheapest endpoint; the next cheapest when it is full",
    about: About {
        purpose: "Own engines before rented ones, spot before on demand.",
        formula: "Lowest `cost` of the endpoint among those that are not full; equal costs are decided by the open \
                  requests. Full is (open requests + 1) / weight above `limit`, or more than `kv_limit` of the KV \
                  cache in use. If all are full, the fewest open requests.",
        missing: "Without fresh readings, our own requests alone make an endpoint full. Cost is 1 unless it is set.",
        source: "The lowest-cost routing of LiteLLM, with a limit.",
    },
    parameters: &[
        Parameter {
            name: "limit",
            default: "16",
            about: "Open requests per unit of weight, the new one included, above which an endpoint is full.",
        },
        Parameter {
            name: "kv_limit",
            default: "0.9",
            about: "Share of the KV cache in use above which an endpoint is full.",
        },
    ],
    build: |parameters| {
        let Settings { limit, kv_limit } = parameters.read()?;
        at_least("limit", limit, 0.0)?;
        at_least("kv_limit", kv_limit, 0.0)?;
        Ok(Built::Scored(Scored::new(Spill { levels: Levels::Cost, limit, kv_limit })))
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
        Self { limit: 16.0, kv_limit: 0.9 }
    }
}
