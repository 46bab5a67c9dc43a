//! Fewest open requests per weight. AIBrix's `least-request`, with other senders' requests counted as well.

use crate::routing::{About, Built, OpenRequests, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-request",
    summary: "the endpoint with the fewest requests open, in proportion to its weight",
    aliases: &[
        ("least-busy", "LiteLLM: the deployment with the fewest ongoing calls"),
        ("least-loaded", "LiteLLM set-ups: the provider with the fewest active requests"),
    ],
    about: About {
        purpose: "Any traffic whose requests are of similar size: it adapts to endpoints of different speed by itself.",
        formula: "Lowest (open requests + 1) / weight. Open are ours in flight and other senders' as the engine counts \
                  them; ties are drawn.",
        missing: "Without a fresh reading of the engine, our own requests in flight alone.",
        source: "AIBrix `least-request`.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Scored(Scored::new(OpenRequests)))
    },
};
