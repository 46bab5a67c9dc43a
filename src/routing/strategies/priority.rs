//! The first tier of endpoints, until it is full.

use serde::Deserialize;

use crate::routing::{About, Built, Levels, Parameter, Registration, Scored, Spill};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "priority",
    aliases: &[],
    summary: "the endpoints of the first tier; the next tier when those are full",
    about: About {
        purpose: "A primary fleet with a reserve behind it.",
        formula: "Lowest place of the endpoint's `tier` in `tiers`, among those that are not full; a tier that is not \
                  listed and is a number is its own place (0 first), any other comes last. Within a tier the open \
                  requests decide. Full is (open requests + 1) / weight above `limit`, or more than `kv_limit` of the \
                  KV cache in use. If all are full, the fewest open requests.",
        missing: "Without fresh readings, our own requests alone make an endpoint full. An endpoint without a tier \
                  comes last.",
        source: "The `order` of LiteLLM deployments and the localities of Envoy, with a limit.",
    },
    parameters: &[
        Parameter { name: "tiers", default: "[]", about: "Tier names, first choice first." },
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
        let Settings { tiers, limit, kv_limit } = parameters.read()?;
        at_least("limit", limit, 0.0)?;
        at_least("kv_limit", kv_limit, 0.0)?;
        Ok(Built::Scored(Scored::new(Spill { levels: Levels::Tiers(tiers), limit, kv_limit })))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tiers: Vec<String>,
    limit: f64,
    kv_limit: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tiers: Vec::new(), limit: 16.0, kv_limit: 0.9 }
    }
}
