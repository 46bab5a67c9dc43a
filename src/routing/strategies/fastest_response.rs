//! The endpoint whose first tokens come fastest.

use serde::Deserialize;

use crate::routing::{About, Built, FirstToken, Parameter, Picker, Registration, Scored};

use super::settings::{first_token, percent};

pub(super) const REGISTRATION: Registration = Registration {
    name: "fastest-response",
    aliases: &[],
    summary: "the endpoint with the lowest 95th percentile of the time to first token",
    about: About {
        purpose: "Interactive traffic, where waiting for the first word is what hurts.",
        formula: "Lowest p95 time to first token of the last minute × (open requests + 1) / weight. Within `buffer` of \
                  the best, the open requests decide.",
        missing: "Without the engine's percentile, the one of first tokens that we saw, if `measure` is on. An endpoint without either \
                  counts as average, in proportion to its open requests; if none has one, it hands on.",
        source: "The strategy of this name in LiteLLM set-ups, which looks at p95 once an hour.",
    },
    parameters: &[
        Parameter {
            name: "buffer",
            default: "0.25",
            about: "Share by which an endpoint may be worse than the best and still count as equal.",
        },
        Parameter {
            name: "measure",
            default: "false",
            about: "Whether the first token is looked for in answers, at the price of a message for each piece of their bodies.",
        },
    ],
    build: |parameters| {
        let Settings { buffer, measure } = parameters.read()?;
        let picker = Picker::BestWithin(percent("buffer", buffer)?);
        Ok(Built::Scored(Scored::new(FirstToken::new(first_token(measure))).picked_by(picker)))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    buffer: f64,
    measure: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { buffer: 0.25, measure: false }
    }
}
