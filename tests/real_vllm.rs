//! A real vLLM on the CPU behind Fairlead and the real Envoy. Opt-in: `make test-vllm` installs it and runs this.

mod common_real;

use std::time::Duration;

use common_real::{Real, Recipe, negative_signals, print_error, print_report, required};
use fairlead_lab::load::{LoadOptions, run as load};

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
/// KV blocks of 32 tokens.
const BLOCKS: &str = "96";

fn recipe() -> Recipe {
    let venv = required("FAIRLEAD_VLLM_VENV", "test-vllm");
    let model = required("FAIRLEAD_VLLM_MODEL", "test-vllm").display().to_string();
    let program = venv.join("bin/vllm").display().to_string();
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
        "2",
        "--block-size",
        "32",
        "--num-gpu-blocks-override",
        BLOCKS,
        "--enable-prefix-caching",
    ];
    Recipe {
        program: "/usr/bin/env".into(),
        arguments: ENVIRONMENT.into_iter().chain([program.as_str()]).chain(options).map(str::to_owned).collect(),
        model: "tiny",
        kind: "vllm",
        running: "vllm:num_requests_running",
        waiting: "vllm:num_requests_waiting",
        start: Duration::from_mins(5),
    }
}

#[tokio::test]
#[ignore = "needs a real vLLM: make test-vllm"]
async fn a_real_vllm_is_seen_as_it_is() {
    let mut real = Real::start(recipe()).await;
    let traffic = LoadOptions { tokens_max: Some(100), ..real.traffic(80, 8) };
    let (report, looks, rows) = Box::pin(real.watched(traffic)).await;
    print_report("80 chats, 8 at a time, 2 sequences at once", &report);
    assert_eq!((report.ok, report.failed), (80, 0));
    print_error("own count of requests in flight", &looks, |look| Some(look.in_flight));
    print_error("engine's running and waiting as told", &looks, |look| look.told.map(|(one, two)| one + two));
    let told = looks.iter().filter_map(|look| look.told);
    assert!(told.clone().any(|(running, waiting)| running > 0.0 && waiting > 0.0), "never seen busy: {looks:?}");
    assert!(told.clone().all(|(running, waiting)| (0.0..=2.0).contains(&running) && (0.0..=8.0).contains(&waiting)));
    let usage: Vec<f64> = rows.iter().filter_map(|row| common_real::signal(row, "kv_usage")).collect();
    eprintln!("kv_usage: {} readings, largest {:?}", usage.len(), usage.iter().copied().reduce(f64::max));
    assert!(usage.is_empty() || usage.iter().any(|usage| *usage > 0.0), "requests ran in an empty cache");
    assert!(usage.iter().all(|usage| (0.0..=1.0).contains(usage)), "{usage:?}");
    assert!(rows.iter().all(|row| negative_signals(row).is_empty()));
    eprintln!("while it ran: {}", rows.get(rows.len() / 2).unwrap());
    real.settle().await;
    // One block of them is vLLM's null block; which of the two numbers is told is Fairlead's choice.
    real.signal_that("block_tokens", |tokens| (tokens - 32.0).abs() < 0.5).await;
    real.signal_that("kv_capacity_tokens", |tokens| (95.0 * 32.0..=96.0 * 32.0).contains(&tokens)).await;

    let again = LoadOptions { prompt_bytes: 600, shared_prefix_bytes: 600, ..real.traffic(20, 2) };
    let (report, _, rows) = Box::pin(real.watched(again)).await;
    print_report("one prompt twenty times", &report);
    eprintln!("prompt tokens from the cache: {:?}", real.engine_says("vllm:prefix_cache_hits_total").await);
    for name in ["ttft_mean", "itl_mean", "prefix_hit_rate"] {
        let seen: Vec<f64> = rows.iter().filter_map(|row| common_real::signal(row, name)).collect();
        eprintln!("{name}: {seen:?}");
    }
    real.signal_that("prefix_hit_rate", |rate| rate > 0.0 && rate <= 1.0).await;

    real.restart_engine().await;
    let (report, _, rows) = Box::pin(real.watched(real.traffic(20, 2))).await;
    print_report("after a restart of the engine", &report);
    assert_eq!(report.failed, 0);
    let negative: Vec<String> = rows.iter().flat_map(negative_signals).collect();
    assert!(negative.is_empty(), "{negative:?}");
    real.settle().await;
    eprintln!("in the end: {}", real.row().await);
    Box::pin(load(real.traffic(2, 1))).await.unwrap();
    real.stack.stop().await.unwrap();
}
