//! JSON pages of other engines than vLLM.

use serde_json::{Value, json};

use super::options::{BLOCK_TOKENS, EngineOptions};
use super::render::unix_time;
use super::stats::Stats;

/// `SGLang`'s `/v1/loads`: a better source of load than its metrics, by rank.
pub(super) fn sglang_loads(ranks: &[Stats], options: &EngineOptions) -> Value {
    let loads: Vec<Value> = ranks
        .iter()
        .enumerate()
        .map(|(rank, stats)| {
            let used = (stats.kv_usage * stats.kv_tokens as f64).round();
            json!({
                "dp_rank": rank, "num_running_reqs": stats.running, "num_waiting_reqs": stats.waiting,
                "num_used_tokens": used, "num_total_tokens": used, "max_total_num_tokens": stats.kv_tokens,
                "max_running_requests": options.capacity.sequences_max, "token_usage": stats.kv_usage,
                "gen_throughput": stats.decode_rate(), "cache_hit_rate": stats.hit_rate(),
                "utilization": stats.running as f64 / options.capacity.sequences_max as f64,
            })
        })
        .collect();
    json!({"timestamp": unix_time(), "version": "0.5.23", "accelerator": "lab", "num_accelerators": ranks.len(), "loads": loads})
}

/// `SGLang`'s `/server_info`.
pub(super) fn sglang_info(options: &EngineOptions) -> Value {
    json!({
        "model_path": options.models.first(), "served_model_name": options.models.first(), "dp_size": options.ranks,
        "page_size": BLOCK_TOKENS, "max_total_num_tokens": options.capacity.kv_blocks * BLOCK_TOKENS,
        "context_length": options.model_len_max, "version": "0.5.23",
    })
}

/// What `trtllm-serve` has at `/metrics`: statistics of its last iterations.
pub(super) fn trtllm_iterations(all: &Stats) -> Value {
    json!([{
        "numActiveRequests": all.running, "numQueuedRequests": all.waiting,
        "kvCacheStats": {"maxNumBlocks": all.blocks(), "usedNumBlocks": all.blocks_used(), "tokensPerBlock": BLOCK_TOKENS},
    }])
}

/// llama.cpp's `/props`.
pub(super) fn llamacpp_props(options: &EngineOptions) -> Value {
    json!({
        "total_slots": options.capacity.sequences_max, "model_path": options.models.first(),
        "default_generation_settings": {"n_ctx": options.model_len_max},
    })
}
