//! The endpoint with the fewest tokens of work ahead.

use serde::Deserialize;

use crate::routing::{About, Built, OutstandingTokens, Parameter, Registration, Scored};

use super::settings::first_token;

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-tokens",
    aliases: &[],
    summary: "the endpoint with the fewest tokens ahead of it: prompts to prefill and output to come",
    about: About {
        purpose: "Requests of very different size: a prompt of 100,000 tokens does not count as one of a hundred.",
        formula: "Lowest (prompt tokens not yet prefilled + expected output tokens in flight, this request's \
                  included) / weight. Requests of other senders count as large as this one.",
        missing: "Without a fresh reading of the engine, our own requests alone. With `measure` off, a prompt counts to the end of its answer. Where no size is known, the open \
                  requests decide.",
        source: "The in-flight token load of llm-d, without what the prefix cache saves.",
    },
    parameters: &[Parameter {
        name: "measure",
        default: "false",
        about: "Whether the first token is looked for in answers, at the price of a message for each piece of their bodies.",
    }],
    build: |parameters| {
        let Settings { measure } = parameters.read()?;
        Ok(Built::Scored(Scored::new(OutstandingTokens { answers: first_token(measure) })))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    measure: bool,
}
