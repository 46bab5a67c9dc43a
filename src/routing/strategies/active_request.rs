//! Fewest of our own requests in flight, whatever the engines say.

use serde::Deserialize;

use crate::routing::{About, ActiveRequests, Built, Parameter, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "active-request",
    aliases: &[],
    summary: "the endpoint with the fewest of our own requests in flight, in proportion to its weight",
    about: About {
        purpose: "Engines without metrics, and long outputs: exact at any moment, blind to other senders.",
        formula: "Lowest (in flight + 1) / weight. Up to `idle` in flight per weight, an endpoint counts as idle.",
        missing: "It reads no signals.",
        source: "The active-request scorer of llm-d.",
    },
    parameters: &[Parameter {
        name: "idle",
        default: "0",
        about: "Requests in flight per unit of weight up to which an endpoint counts as idle.",
    }],
    build: |parameters| {
        let Settings { idle } = parameters.read()?;
        Ok(Built::Scored(Scored::new(ActiveRequests { idle })))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    idle: u32,
}
