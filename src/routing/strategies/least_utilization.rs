//! The endpoint that is farthest from the tightest of its limits.

use serde::Deserialize;

use crate::routing::{About, Built, KvCache, Parameter, Registration, Scored, Utilization};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-utilization",
    aliases: &[],
    summary: "the endpoint that is farthest from its tightest limit: cache, batch or compute",
    about: About {
        purpose: "Engines of different make and size, each with its own bottleneck.",
        formula: "Lowest of the highest of: share of the KV cache in use; open requests / most that fit a batch; the \
                  engine's utilisation × (open now + 1) / (open at the reading + 1).",
        missing: "Of the three, those that are known. An endpoint of which none is counts as average, in proportion to \
                  its open requests; if none of any is, the open requests decide.",
        source: "AIBrix `least-utilization`, whose input only one engine exports.",
    },
    parameters: &[Parameter {
        name: "assumed_capacity",
        default: "100000",
        about: "Tokens that the KV cache of an engine holds that does not say.",
    }],
    build: |parameters| {
        let Settings { assumed_capacity } = parameters.read()?;
        at_least("assumed_capacity", assumed_capacity, 1.0)?;
        Ok(Built::Scored(Scored::new(Utilization { kv: KvCache { assumed_capacity } })))
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
