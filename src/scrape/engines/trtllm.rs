//! TensorRT-LLM's own server, `trtllm-serve`. Its `/metrics` is JSON of another kind; older builds export only the
//! histograms and the count of finished requests.

use crate::domain::{EngineKind, Gauge, Input, Spread, Total};

use super::{Engine, Fold, Row};

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Trtllm,
    path: "/prometheus/metrics",
    marks: &["trtllm_"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, &["trtllm_num_requests_running"]),
        Row::level(Gauge::Waiting, Fold::Sum, &["trtllm_num_requests_waiting"]),
        Row::level(Gauge::KvUsage, Fold::Mean, &["trtllm_kv_cache_utilization"]),
        Row::level(Gauge::BlockTokens, Fold::Max, &["trtllm_kv_cache_tokens_per_block"]),
        Row::of(Input::Blocks, Fold::Sum, &["trtllm_kv_cache_max_blocks"]),
        Row::level(Gauge::PrefixHitRate, Fold::Mean, &["trtllm_kv_cache_hit_rate"]),
        Row::total(Total::PrefixHits, &["trtllm_kv_cache_reused_blocks_total"]),
        Row::total(Total::PrefixMisses, &["trtllm_kv_cache_missed_blocks_total"]),
        Row::total(Total::PromptTokens, &["trtllm_prompt_tokens_total"]),
        Row::total(Total::GenerationTokens, &["trtllm_generation_tokens_total"]),
        Row::total(Total::Finished, &["trtllm_request_success_total"]),
        Row::spread(Spread::Ttft, &["trtllm_time_to_first_token_seconds"]),
        Row::spread(Spread::Itl, &["trtllm_time_per_output_token_seconds"]),
        Row::spread(Spread::QueueTime, &["trtllm_request_queue_time_seconds"]),
    ],
    specials: &[],
};
