//! The endpoint with the most room in its KV cache.

use serde::Deserialize;

use crate::routing::{About, Built, KvCache, Parameter, Registration, Scored};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-kv-cache",
    aliases: &[("least-gpu-cache", "AIBrix; today's engines have one cache, and it is this one")],
    summary: "the endpoint that uses the smallest share of its KV cache",
    about: About {
        purpose: "Long contexts, where engines run out of cache before they run out of time.",
        formula: "Lowest share in use: the engine's last word + (tokens sent since − tokens ended since) / capacity. \
                  Equal shares are decided by the open requests.",
        missing: "Without the engine's capacity, `assumed_capacity`. An endpoint without a fresh reading counts as \
                  average, in proportion to its open requests; if none has one, the open requests decide.",
        source: "AIBrix `least-kv-cache` and `least-gpu-cache`, without the CPU cache that engines no longer have.",
    },
    parameters: &[Parameter {
        name: "assumed_capacity",
        default: "100000",
        about: "Tokens that the cache of an engine holds that does not say.",
    }],
    build: |parameters| {
        let Settings { assumed_capacity } = parameters.read()?;
        at_least("assumed_capacity", assumed_capacity, 1.0)?;
        Ok(Built::Scored(Scored::new(KvCache { assumed_capacity })))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    assumed_capacity: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { assumed_capacity: 100_000.0 }
    }
}
