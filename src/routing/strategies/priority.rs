//! The first tier of endpoints, until it is full.

use serde::Deserialize;

use crate::routing::{About, Built, Levels, Parameter, Registration, Scored};

use super::settings::{Full, KV_LIMIT, LIMIT};

pub(super) const REGISTRATION: Registration = Registration {
    name: "priority",
    aliases: &[],
    summary: "the endpoints of the first tier; the next tier when those are full",
    about: About {
        purpose: "A primary fleet with a reserve behind it.",
        formula: "Lowest place of the endpoint's `tier` in `tiers`, among those that are not full; a tier that is not \
                  listed and is a number is its own place (0 first), any other comes last. Within a tier the open \
                  requests decide. Full is (open requests + 1) / weight above `limit`, or more than `kv_limit` of the \
                  KV cache in use. If all are full, the fewest open requests. In combinations counts \
                  the place among the candidates' tiers, the full ones last.",
        missing: "Without fresh readings, our own requests alone make an endpoint full. An endpoint without a tier \
                  comes last.",
        source: "The `order` of LiteLLM deployments and the localities of Envoy, with a limit.",
    },
    parameters: &[
        Parameter { name: "tiers", default: "[]", about: "Tier names, first choice first." },
        LIMIT,
        KV_LIMIT,
    ],
    build: |parameters| {
        let Settings { tiers, limit, kv_limit } = parameters.read()?;
        Ok(Built::Scored(Scored::new(Full { limit, kv_limit }.spill(Levels::Tiers(tiers))?)))
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
        let Full { limit, kv_limit } = Full::DEFAULT;
        Self { tiers: Vec::new(), limit, kv_limit }
    }
}
