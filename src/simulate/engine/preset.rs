//! Engines that can be named: a model on an accelerator.

use serde::{Deserialize, Serialize};

use super::CostModel;

/// What an engine is: its speed and its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// Step time.
    pub cost: CostModel,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
    /// Most tokens computed by one step, prompt chunks and decoding together (vLLM `--max-num-batched-tokens`).
    pub step_tokens: u64,
    /// Most sequences in the batch (vLLM `--max-num-seqs`).
    pub sequences_max: usize,
    /// Most adapters in the batch at once (vLLM `--max-loras`).
    pub adapters_max: usize,
    /// What loading an adapter that is not there adds to a step, in microseconds.
    pub adapter_load_us: f64,
}

/// A named engine.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for people: what it is and where its numbers come from.
    pub summary: &'static str,
    /// The engine.
    pub spec: EngineSpec,
}

const LIMITS: EngineSpec = EngineSpec {
    cost: CostModel { step_us: 0.0, prefill_token_us: 0.0, attention_us: 0.0, sequence_us: 0.0, context_us: 0.0 },
    kv_tokens: 0,
    step_tokens: 8192,
    sequences_max: 256,
    adapters_max: 8,
    // A rank-16 adapter of some 100 MB over PCIe, with the time to build it.
    adapter_load_us: 60_000.0,
};

/// Every preset.
///
/// Prefill comes from published peaks where the summary says so. What nobody publishes is worked out from data sheets:
/// `step_us` is the weights and `context_us` one token's KV over the memory bandwidth at 70 %, `attention_us` and
/// `prefill_token_us` the model's arithmetic over the accelerator's at the share that the published peak shows (55 %
/// where there is none). Each sequence costs as much as a prompt token: a step does the same arithmetic for it.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "qwen3-32b-2xh100",
        summary: "Qwen3-32B on two H100 (TP 2), vLLM: published 0.40 s for a chunk of 8,192; the rest from data sheets",
        spec: EngineSpec {
            cost: CostModel {
                // 65.6 GB of weights over 2 × 3.35 TB/s.
                step_us: 14_000.0,
                // 400 ms a chunk, less the step and the attention below.
                prefill_token_us: 40.8,
                // 64 layers × 64 heads × 128, four operations each, over 2 × 989 TFLOP/s at 68 %.
                attention_us: 0.001_55,
                sequence_us: 40.8,
                // 262 kB a token (64 layers, 8 KV heads of 128, two bytes).
                context_us: 0.056,
            },
            // 144 GB less weights and activations; published as "200k to 300k".
            kv_tokens: 250_000,
            ..LIMITS
        },
    },
    Preset {
        name: "gpt-oss-120b-h100",
        summary: "gpt-oss-120B on one H100, vLLM: published 39,065 tokens/s of prefill; the rest from data sheets",
        spec: EngineSpec {
            cost: CostModel {
                // About 20 GB of experts touched by a small batch, over 3.35 TB/s.
                step_us: 8_500.0,
                // 210 ms a chunk, less the step and the attention below.
                prefill_token_us: 22.3,
                // 36 layers × 64 heads × 64, half of the layers with a window of 128.
                attention_us: 0.000_55,
                sequence_us: 22.3,
                // 37 kB a token: half of the layers keep a window only.
                context_us: 0.016,
            },
            kv_tokens: 180_000,
            ..LIMITS
        },
    },
    Preset {
        name: "llama-3-8b-a100",
        summary: "Llama 3 8B on one A100 80 GB: from data sheets",
        spec: EngineSpec {
            cost: CostModel {
                // 16 GB over 2.0 TB/s.
                step_us: 11_400.0,
                // 16 GFLOP over 312 TFLOP/s at 55 %.
                prefill_token_us: 93.0,
                attention_us: 0.003,
                sequence_us: 93.0,
                // 131 kB a token (32 layers, 8 KV heads of 128, two bytes).
                context_us: 0.094,
            },
            kv_tokens: 400_000,
            ..LIMITS
        },
    },
    Preset {
        name: "llama-3-8b-l4",
        summary: "Llama 3 8B on one L4 24 GB: from data sheets",
        spec: EngineSpec {
            cost: CostModel {
                // 16 GB over 0.3 TB/s.
                step_us: 76_000.0,
                // 16 GFLOP over 121 TFLOP/s at 55 %.
                prefill_token_us: 240.0,
                attention_us: 0.008,
                sequence_us: 240.0,
                context_us: 0.62,
            },
            kv_tokens: 31_000,
            step_tokens: 2048,
            ..LIMITS
        },
    },
];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefill_peaks_are_the_published_ones() {
        for (name, peak) in [("qwen3-32b-2xh100", 20_480.0), ("gpt-oss-120b-h100", 39_065.0)] {
            let spec = preset(name).unwrap().spec;
            let rate = 8192.0 / (spec.cost.prompt_us(8192, 0, spec.step_tokens) / 1e6);
            assert!((rate / peak - 1.0).abs() < 0.03, "{name} prefills {rate:.0} tokens/s");
        }
    }
}
