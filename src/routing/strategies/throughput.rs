//! The endpoint that was given the fewest tokens lately.

use serde::Deserialize;

use crate::routing::{About, AnswerNeeds, Built, Parameter, RecentTokens, Registration, Scored};

use super::settings::at_least;

pub(super) const REGISTRATION: Registration = Registration {
    name: "throughput",
    aliases: &[],
    summary: "the endpoint that was given the fewest weighted tokens in the last minute",
    about: About {
        purpose: "Batch traffic: every endpoint gets the same amount of work over time, however it is cut up.",
        formula: "Lowest (`prompt_weight` × prompt tokens + output tokens) / weight over the last minute. A request is \
                  charged with its estimate when it is sent, and corrected when the engine reports its usage.",
        missing: "Without reported usage, or with `measure` off, the estimates stand.",
        source: "AIBrix `throughput` as it is meant: a prompt token counts as two output tokens.",
    },
    parameters: &[
        Parameter { name: "prompt_weight", default: "2", about: "Output tokens that a prompt token counts for." },
        Parameter {
            name: "measure",
            default: "false",
            about: "Whether the number of tokens is looked for in answers, at the price of a message for each piece of their bodies.",
        },
    ],
    build: |parameters| {
        let Settings { prompt_weight, measure } = parameters.read()?;
        let answers = AnswerNeeds { usage: measure, ..AnswerNeeds::default() };
        at_least("prompt_weight", prompt_weight, 0.0)?;
        Ok(Built::Scored(Scored::new(RecentTokens { prompt_weight, answers })))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    prompt_weight: f64,
    measure: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { prompt_weight: 2.0, measure: false }
    }
}
