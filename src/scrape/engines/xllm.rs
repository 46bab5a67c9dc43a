//! xLLM. Its names have no prefix of their own, and its times are milliseconds.

use crate::domain::{EngineKind, Gauge, Spread, Total};

use super::{Engine, Fold, Row};

const MILLISECOND: f64 = 1e-3;

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Xllm,
    path: "/metrics",
    marks: &["kv_cache_utilization_perc", "end_2_end_latency_milliseconds"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, &["num_running_requests"]),
        Row::level(Gauge::Waiting, Fold::Sum, &["num_waiting_requests", "num_pending_requests"]),
        Row::level(Gauge::KvUsage, Fold::Mean, &["kv_cache_utilization_perc", "kv_cache_utilization"]),
        Row::level(Gauge::Utilization, Fold::Mean, &["engine_utilization"]),
        Row::total(Total::PromptTokens, &["num_processing_tokens_total_prompt"]),
        Row::total(Total::GenerationTokens, &["num_processing_tokens_total_generated"]),
        Row::total(Total::Finished, &["server_request_total_ok"]),
        Row::spread(Spread::Ttft, &["time_to_first_token_latency_milliseconds"]).scaled(MILLISECOND),
        Row::spread(Spread::Itl, &["inter_token_latency_milliseconds"]).scaled(MILLISECOND),
    ],
    specials: &[],
};
