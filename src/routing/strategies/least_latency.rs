//! The endpoint that is expected to finish this request first.

use serde::Deserialize;

use crate::routing::{About, Built, ExpectedLatency, Parameter, Picker, Registration, Scored};

use super::settings::{at_least, percent};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-latency",
    aliases: &[
        ("latency-based", "LiteLLM, short"),
        ("latency-based-routing", "LiteLLM; its `lowest_latency_buffer` is `buffer` here"),
    ],
    summary: "the endpoint that is expected to finish this very request first",
    about: About {
        purpose: "Engines of different speed, and requests of different length.",
        formula: "Lowest expected seconds: queue time + prefill time per token × (this prompt + our prompt tokens \
                  waiting there) + decode time per token × expected output × (1 + open requests / (`parallel` × \
                  weight)), where `parallel` is no more than the most that the engine takes into a batch. Times and lengths are means of the last minute; a prompt or output of unknown length \
                  counts as 10 or 100 tokens. Within `buffer` of the best, the open requests decide.",
        missing: "Without prefill times, the mean time to first token; without decode times, the mean inter-token \
                  latency. An endpoint without those counts as average, in proportion to its open requests; if none \
                  tells, it hands on.",
        source: "AIBrix `least-latency` as it is meant (there: means since the engine's start, without the queue).",
    },
    parameters: &[
        Parameter {
            name: "buffer",
            default: "0.1",
            about: "Share by which an endpoint may be slower than the best and still count as equal.",
        },
        Parameter {
            name: "parallel",
            default: "16",
            about: "Requests side by side, per unit of weight, that double the time of a token.",
        },
    ],
    build: |parameters| {
        let Settings { buffer, parallel } = parameters.read()?;
        at_least("parallel", parallel, 1.0)?;
        let picker = Picker::BestWithin(percent("buffer", buffer)?);
        Ok(Built::Scored(Scored::new(ExpectedLatency { parallel }).picked_by(picker)))
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    buffer: f64,
    parallel: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { buffer: 0.1, parallel: 16.0 }
    }
}
