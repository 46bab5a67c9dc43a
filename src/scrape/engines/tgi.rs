//! Text Generation Inference.

use crate::domain::{EngineKind, Gauge, Spread, Total};

use super::{Engine, Fold, Row};

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Tgi,
    path: "/metrics",
    marks: &["tgi_"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, &["tgi_batch_current_size"]),
        Row::level(Gauge::Waiting, Fold::Sum, &["tgi_queue_size"]),
        Row::total(Total::Finished, &["tgi_request_success"]),
        Row::spread(Spread::Itl, &["tgi_request_mean_time_per_token_duration"]),
        Row::spread(Spread::QueueTime, &["tgi_request_queue_duration"]),
        Row::spread(Spread::PromptLength, &["tgi_request_input_length"]),
        Row::spread(Spread::OutputLength, &["tgi_request_generated_tokens"]),
    ],
    specials: &[],
};
