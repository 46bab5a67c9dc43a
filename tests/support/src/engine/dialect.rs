//! Which server's metrics an engine shows.

use clap::ValueEnum;

/// The engine whose metrics pages are imitated; inference is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Dialect {
    /// vLLM 0.32.
    #[default]
    Vllm,
    /// vLLM with the names of 2025: `gpu_cache_usage_perc`, `time_per_output_token_seconds`.
    VllmOld,
    /// `SGLang` 0.5, with `/v1/loads` and `/server_info`.
    Sglang,
    /// `trtllm-serve`: metrics at `/prometheus/metrics`, JSON at `/metrics`.
    Trtllm,
    /// llama.cpp's server.
    Llamacpp,
    /// Text Generation Inference.
    Tgi,
    /// `xLLM`.
    Xllm,
    /// No metrics at all, as Ollama.
    None,
}

impl Dialect {
    /// Path of the Prometheus text.
    pub const fn metrics_path(self) -> Option<&'static str> {
        match self {
            Self::Trtllm => Some("/prometheus/metrics"),
            Self::None => None,
            _ => Some("/metrics"),
        }
    }

    /// Its name in an endpoint list (`engine:`); the two vLLMs are one engine.
    pub const fn engine(self) -> &'static str {
        match self {
            Self::Vllm | Self::VllmOld => "vllm",
            Self::Sglang => "sglang",
            Self::Trtllm => "trtllm",
            Self::Llamacpp => "llamacpp",
            Self::Tgi => "tgi",
            Self::Xllm => "xllm",
            Self::None => "none",
        }
    }

    /// Whether a page tells each data-parallel rank by itself.
    pub const fn tells_ranks(self) -> bool {
        matches!(self, Self::Vllm | Self::VllmOld | Self::Sglang)
    }
}
