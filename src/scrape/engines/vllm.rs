//! vLLM. Names as of 0.32, then those of older versions: `gpu_cache_usage_perc` and `gpu_prefix_cache_*` were deprecated
//! in vLLM's PR 18354 and removed in its PR 29330, `time_per_output_token_seconds` was removed in its PR 32661.
//!
//! With data parallelism one page holds a series per rank (label `engine`).

use crate::domain::{EngineKind, Gauge, Spread, Total};

use super::{Engine, Fold, Row, Special};

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Vllm,
    path: "/metrics",
    marks: &["vllm:"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, &["vllm:num_requests_running"]),
        Row::level(Gauge::Waiting, Fold::Sum, &["vllm:num_requests_waiting"]),
        Row::level(Gauge::KvUsage, Fold::Mean, &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
        // One rank asleep is enough: the engine spreads requests over all.
        Row::level(Gauge::Awake, Fold::Min, &["vllm:engine_sleep_state"]).only("sleep_state", "awake"),
        Row::level(Gauge::PrefixHitRate, Fold::Mean, &["vllm:gpu_prefix_cache_hit_rate"]),
        Row::total(Total::PrefixHits, &["vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"]),
        Row::total(Total::PrefixQueries, &["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"]),
        Row::total(Total::PromptTokens, &["vllm:prompt_tokens_total"]),
        Row::total(Total::GenerationTokens, &["vllm:generation_tokens_total"]),
        Row::total(Total::Finished, &["vllm:request_success_total"]),
        Row::total(Total::Preemptions, &["vllm:num_preemptions_total"]),
        Row::spread(Spread::Ttft, &["vllm:time_to_first_token_seconds"]),
        Row::spread(Spread::Itl, &["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"]),
        Row::spread(Spread::QueueTime, &["vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"]),
        Row::spread(Spread::PrefillTime, &["vllm:request_prefill_time_seconds"]),
        Row::spread(Spread::DecodeTime, &["vllm:request_decode_time_seconds"]),
        Row::spread(Spread::PromptLength, &["vllm:request_prompt_tokens"]),
        Row::spread(Spread::OutputLength, &["vllm:request_generation_tokens"]),
    ],
    specials: &[("vllm:cache_config_info", Special::CacheConfig), ("vllm:lora_requests_info", Special::Adapters)],
};
