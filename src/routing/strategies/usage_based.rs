//! Latency, success and cost together.

use serde::Deserialize;

use crate::routing::{About, Built, Parameter, Picker, Registration, Scored, Usage, UsageWeights};

use super::settings::{at_least, first_token, percent};

pub(super) const REGISTRATION: Registration = Registration {
    name: "usage-based",
    aliases: &[],
    summary: "the endpoint that is best by latency, success rate and cost together",
    about: About {
        purpose: "Endpoints that differ in speed, reliability and price.",
        formula: "Lowest latency^`latency` × cost^`cost` / success^`success` × (open requests + 1) / weight. Latency is \
                  the mean time to first token, success the share of answers that were no failures, both of the last \
                  minute. Within `buffer` of the best, the open requests decide.",
        missing: "Without the engine's mean, that of the first tokens that we saw, if `measure` is on. An endpoint without either counts as average, in \
                  proportion to its open requests; if none has one, it hands on.",
        source: "The strategy of this name in LiteLLM set-ups: 0.4 / latency + 0.4 × success rate + 0.2 / cost. A \
                 product instead of a sum, because it does not change with the units.",
    },
    parameters: &[
        Parameter { name: "latency", default: "0.4", about: "Weight of latency; 0 leaves it out." },
        Parameter { name: "success", default: "0.4", about: "Weight of the success rate; 0 leaves it out." },
        Parameter { name: "cost", default: "0.2", about: "Weight of the cost; 0 leaves it out." },
        Parameter {
            name: "buffer",
            default: "0.1",
            about: "Share by which an endpoint may be worse than the best and still count as equal.",
        },
        Parameter {
            name: "measure",
            default: "false",
            about: "Whether the first token is looked for in answers, at the price of a message for each piece of their bodies.",
        },
    ],
    build: |parameters| {
        let Settings { latency, success, cost, buffer, measure } = parameters.read()?;
        for (name, weight) in [("latency", latency), ("success", success), ("cost", cost)] {
            at_least(name, weight, 0.0)?;
        }
        let weights = UsageWeights { latency, success, cost };
        let picker = Picker::BestWithin(percent("buffer", buffer)?);
        Ok(Built::Scored(Scored::new(Usage::new(weights, first_token(measure))).picked_by(picker)))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    latency: f64,
    success: f64,
    cost: f64,
    buffer: f64,
    measure: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { latency: 0.4, success: 0.4, cost: 0.2, buffer: 0.1, measure: false }
    }
}
