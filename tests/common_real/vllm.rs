//! A vLLM on the CPU, with a tiny model whose weights are made up.

use super::required;

/// vLLM reads its settings from the environment, which a child takes over through `env`.
const ENVIRONMENT: [&str; 8] = [
    "HF_HUB_OFFLINE=1",
    "TRANSFORMERS_OFFLINE=1",
    "VLLM_NO_USAGE_STATS=1",
    "DO_NOT_TRACK=1",
    "VLLM_CPU_KVCACHE_SPACE=1",
    "OMP_NUM_THREADS=1",
    "VLLM_CPU_OMP_THREADS_BIND=nobind",
    "PYTHONHASHSEED=0",
];

/// Arguments of `env`: a vLLM with that many KV blocks of 32 tokens that takes so many sequences at once. Where it listens
/// comes behind them.
pub(crate) fn command(blocks: &str, sequences: &str) -> Vec<String> {
    let program = required("FAIRLEAD_VLLM_VENV", "test-vllm").join("bin/vllm").display().to_string();
    let model = required("FAIRLEAD_VLLM_MODEL", "test-vllm").display().to_string();
    let options = [
        "serve",
        &model,
        "--served-model-name",
        "tiny",
        "--load-format",
        "dummy",
        "--dtype",
        "bfloat16",
        "--enforce-eager",
        "--max-model-len",
        "1024",
        "--max-num-seqs",
        sequences,
        "--block-size",
        "32",
        "--num-gpu-blocks-override",
        blocks,
        "--enable-prefix-caching",
    ];
    ENVIRONMENT.into_iter().chain([program.as_str()]).chain(options).map(str::to_owned).collect()
}
