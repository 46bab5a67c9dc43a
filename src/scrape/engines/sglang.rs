//! `SGLang` 0.5. Its `/v1/loads` (see [`crate::scrape::loads`]) is fresher and smaller than its metrics, and is there without
//! `--enable-metrics`.
//!
//! Gauges have a series per data-parallel rank (`dp_rank`); tensor- and pipeline-parallel ranks repeat the same numbers
//! if they report at all, so only the first one counts. Histograms and counters are split by `is_streaming`.

use crate::domain::{EngineKind, Gauge, Spread, Total};

use super::{Engine, Fold, Row};

const fn level(gauge: Gauge, fold: Fold, names: &'static [&'static str]) -> Row {
    Row::level(gauge, fold, names).only("tp_rank", "0").also_only("pp_rank", "0")
}

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Sglang,
    path: "/metrics",
    marks: &["sglang:"],
    rows: &[
        level(Gauge::Running, Fold::Sum, &["sglang:num_running_reqs"]),
        level(Gauge::Waiting, Fold::Sum, &["sglang:num_queue_reqs"]),
        level(Gauge::KvUsage, Fold::Mean, &["sglang:token_usage", "sglang:full_token_usage"]),
        level(Gauge::KvCapacity, Fold::Sum, &["sglang:max_total_num_tokens"]),
        level(Gauge::BlockTokens, Fold::Max, &["sglang:page_size"]),
        level(Gauge::MaxAdapters, Fold::Max, &["sglang:lora_pool_slots_total"]),
        level(Gauge::PrefixHitRate, Fold::Mean, &["sglang:cache_hit_rate"]),
        Row::total(Total::PromptTokens, &["sglang:prompt_tokens_total"]),
        Row::total(Total::GenerationTokens, &["sglang:generation_tokens_total"]),
        Row::total(Total::Finished, &["sglang:num_requests_total"]),
        Row::total(Total::Preemptions, &["sglang:num_retracted_requests_total"]),
        Row::spread(Spread::Ttft, &["sglang:time_to_first_token_seconds"]),
        Row::spread(
            Spread::Itl,
            &["sglang:inter_token_latency_seconds", "sglang:request_time_per_output_token_seconds"],
        ),
        Row::spread(Spread::QueueTime, &["sglang:queue_time_seconds"]),
        Row::spread(Spread::PromptLength, &["sglang:prompt_tokens_histogram"]),
        Row::spread(Spread::OutputLength, &["sglang:generation_tokens_histogram"]),
    ],
    specials: &[],
};
