//! The endpoint with the most room in its KV cache.

use crate::routing::{About, Built, Registration, Scored};

use super::settings::{ASSUMED_CAPACITY, kv_cache};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-kv-cache",
    aliases: &[("least-gpu-cache", "AIBrix; today's engines have one cache, and it is this one")],
    summary: "the endpoint that uses the smallest share of its KV cache",
    about: About {
        purpose: "Long contexts, where engines run out of cache before they run out of time.",
        formula: "Lowest share in use: the engine's last word + (tokens sent since − tokens ended since) / capacity. \
                  Equal shares are decided by the open requests.",
        missing: "Without the engine's capacity, `assumed_capacity`. An endpoint without a fresh reading counts as \
                  average, in proportion to its open requests; if none has one, it hands on.",
        source: "AIBrix `least-kv-cache` and `least-gpu-cache`, without the CPU cache that engines no longer have.",
    },
    parameters: &[ASSUMED_CAPACITY],
    build: |parameters| Ok(Built::Scored(Scored::new(kv_cache(parameters)?))),
};
