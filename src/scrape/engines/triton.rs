//! TensorRT-LLM in Triton, whose metrics are at a port of their own (8002): give it as `metrics_address`.
//!
//! One family holds several numbers, told apart by a label.

use crate::domain::{EngineKind, Gauge, Input};

use super::{Engine, Fold, Row};

const REQUESTS: &[&str] = &["nv_trt_llm_request_metrics"];
const BLOCKS: &[&str] = &["nv_trt_llm_kv_cache_block_metrics"];

pub(super) const ENGINE: Engine = Engine {
    kind: EngineKind::Triton,
    path: "/metrics",
    marks: &["nv_trt_llm_"],
    rows: &[
        Row::level(Gauge::Running, Fold::Sum, REQUESTS).only("request_type", "scheduled"),
        Row::level(Gauge::Waiting, Fold::Sum, REQUESTS).only("request_type", "waiting"),
        Row::level(Gauge::MaxRunning, Fold::Sum, REQUESTS).only("request_type", "max"),
        Row::level(Gauge::KvUsage, Fold::Mean, BLOCKS).only("kv_cache_block_type", "fraction"),
        Row::level(Gauge::BlockTokens, Fold::Max, BLOCKS).only("kv_cache_block_type", "tokens_per"),
        Row::of(Input::Blocks, Fold::Sum, BLOCKS).only("kv_cache_block_type", "max"),
    ],
    specials: &[],
};
