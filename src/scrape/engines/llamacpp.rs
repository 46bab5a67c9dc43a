//! llama.cpp's `llama-server`, started with `--metrics`. It has no histograms and no labels.
//!
//! `prompt_tokens_total` leaves cached tokens out, so it counts the misses of the prefix cache.

use crate::domain::{EngineKind, Gauge, Total};

use super::{Engine, Fold, Row};

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Llamacpp,
    path: "/metrics",
    marks: &["llamacpp:"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, &["llamacpp:requests_processing"]),
        Row::level(Gauge::Waiting, Fold::Sum, &["llamacpp:requests_deferred"]),
        // Gone since about build 11000.
        Row::level(Gauge::KvUsage, Fold::Mean, &["llamacpp:kv_cache_usage_ratio"]),
        Row::total(Total::PrefixHits, &["llamacpp:prompt_tokens_cached_total"]),
        Row::total(Total::PrefixMisses, &["llamacpp:prompt_tokens_total"]),
        Row::total(Total::PromptTokens, &["llamacpp:prompt_tokens_total"]),
        Row::total(Total::GenerationTokens, &["llamacpp:tokens_predicted_total"]),
    ],
    specials: &[],
};
