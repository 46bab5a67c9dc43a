//! The endpoint that is farthest from the tightest of its limits.

use crate::routing::{About, Built, Registration, Scored, Utilization};

use super::settings::{ASSUMED_CAPACITY, kv_cache};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-utilization",
    aliases: &[],
    summary: "the endpoint that is farthest from its tightest limit: cache, batch or compute",
    about: About {
        purpose: "Engines of different make and size, each with its own bottleneck.",
        formula: "Lowest of the highest of: share of the KV cache in use; open requests / most that fit a batch; the \
                  engine's utilisation × (open now + 1) / (open at the reading + 1).",
        missing: "Of the three, those that are known. An endpoint of which none is counts as average, in proportion to \
                  its open requests; if none of any is, it hands on.",
        source: "AIBrix `least-utilization`, whose input only one engine exports.",
    },
    parameters: &[ASSUMED_CAPACITY],
    build: |parameters| Ok(Built::Scored(Scored::new(Utilization { kv: kv_cache(parameters)? }))),
};
