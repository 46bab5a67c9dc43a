//! Endpoints that hold the adapter already.

use serde::Deserialize;

use crate::routing::{About, AdapterRoom, Built, LoraAdapter, Parameter, Registration, Scored};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "lora-affinity",
    aliases: &[],
    summary: "an endpoint that works with the request's LoRA adapter already, else one with room for it",
    about: About {
        purpose: "Many LoRA adapters on few engines: loading one takes time, and evicts another.",
        formula: "Endpoints without room for the adapter are left out. Highest nearness: 1 if requests for it run, 0.8 \
                  if they wait, 0.6 if there is room for one more or the endpoint is configured with it, 0 if it is \
                  full, which is (open requests + 1) / weight above `limit`. Equal ones are decided by the open \
                  requests, as are requests for a base model.",
        missing: "Where the engine does not tell its adapters, those that the endpoint is configured with; 0.3 for one \
                  that is not.",
        source: "The lora-affinity scorer of the Gateway API inference extension and of llm-d.",
    },
    parameters: &[Parameter {
        name: "limit",
        default: "16",
        about: "Open requests per unit of weight, the new one included, above which holding the adapter does not count.",
    }],
    build: |parameters| {
        let Settings { limit } = parameters.read()?;
        at_least("limit", limit, 0.0)?;
        Ok(Built::Scored(Scored::new(LoraAdapter { limit }).filtered_by(AdapterRoom)))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    limit: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limit: 16.0 }
    }
}
