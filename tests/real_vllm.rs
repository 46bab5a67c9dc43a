//! A real vLLM on the CPU behind Fairlead and the real Envoy. Opt-in: `make test-vllm` installs it and runs this.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common_real;

use std::time::Duration;

use common_real::{
    Real, Recipe, assert_near, negative_signals, print_beside, print_errors, print_report, print_signal, settled,
    signal, told, vllm,
};
use fairlead_lab::load::LoadOptions;

/// KV blocks of 32 tokens.
const BLOCKS: &str = "96";

fn recipe() -> Recipe {
    Recipe {
        program: "/usr/bin/env".into(),
        arguments: vllm::command(BLOCKS, "2"),
        model: "tiny",
        kind: "vllm",
        running: "vllm:num_requests_running",
        waiting: "vllm:num_requests_waiting",
        start: Duration::from_mins(5),
    }
}

/// Every signal that a vLLM tells and that some request of the run makes.
const TOLD: [&str; 24] = [
    "running",
    "waiting",
    "kv_usage",
    "kv_usage_now",
    "requests",
    "ttft_mean",
    "ttft_p50",
    "ttft_p95",
    "itl_mean",
    "itl_p50",
    "itl_p95",
    "queue_time_mean",
    "queue_time_p95",
    "prefill_time_mean",
    "prefill_time_p95",
    "decode_time_mean",
    "decode_time_p95",
    "prompt_length_mean",
    "output_length_mean",
    "prompt_tokens_rate",
    "generation_tokens_rate",
    "finished_rate",
    "preemption_rate",
    "awake",
];

#[tokio::test]
#[ignore = "needs a real vLLM: make test-vllm"]
async fn a_real_vllm_is_seen_as_it_is() {
    let mut real = Real::start(recipe()).await;
    full_house(&real).await;
    one_prompt(&real).await;

    real.survives_a_restart(20).await;
    real.stack.stop().await.unwrap();
}

/// More clients than the engine has places for.
async fn full_house(real: &Real) {
    let traffic = LoadOptions { tokens_max: Some(100), stream_share: 1.0, ..real.traffic(80, 8) };
    let (report, looks, rows) = Box::pin(real.watched(traffic)).await;
    print_report("80 chats, 8 at a time, 2 sequences at once", &report);
    assert_eq!((report.ok, report.failed), (80, 0));
    print_errors(&looks);
    for name in TOLD {
        assert!(print_signal(&rows, name).is_some(), "{name} was never told");
    }
    let pairs: Vec<_> = looks.iter().filter_map(|look| look.told).collect();
    assert!(pairs.iter().any(|(running, waiting)| *running > 0.0 && *waiting > 0.0), "never seen busy: {looks:?}");
    assert!(pairs.iter().all(|(running, waiting)| (0.0..=2.0).contains(running) && (0.0..=8.0).contains(waiting)));
    let usage = told(&rows, "kv_usage");
    assert!(usage.iter().any(|usage| *usage > 0.0) && usage.iter().all(|usage| (0.0..=1.0).contains(usage)));
    assert!(rows.iter().all(|row| negative_signals(row).is_empty()));

    let row = settled(real).await;
    print_beside("time to first token", &row, "ttft", &report.ttft);
    print_beside("inter-token latency", &row, "itl", &report.itl);
    assert_near("ttft_p50", signal(&row, "ttft_p50").unwrap(), report.ttft.p50_ms / 1e3);
    // Every answer has 100 tokens. Its lowest bucket ends at 10 ms, so nothing more can be known of the median.
    let between_tokens = (report.latency.p50_ms - report.ttft.p50_ms) / 99.0 / 1e3;
    assert_near("itl_mean", signal(&row, "itl_mean").unwrap(), between_tokens);
    assert_near("itl_p50", signal(&row, "itl_p50").unwrap(), (report.itl.p50_ms / 1e3).max(0.005));
    assert_near("output_length_mean", signal(&row, "output_length_mean").unwrap(), 100.0);
    // One block of them is vLLM's null block.
    real.signal_that("block_tokens", |tokens| (tokens - 32.0).abs() < 0.5).await;
    real.signal_that("kv_capacity_tokens", |tokens| (tokens - 95.0 * 32.0).abs() < 0.5).await;
}

async fn one_prompt(real: &Real) {
    let again = LoadOptions { prompt_bytes: 600, shared_prefix_bytes: 600, ..real.traffic(20, 2) };
    let (report, _, rows) = Box::pin(real.watched(again)).await;
    print_report("one prompt twenty times", &report);
    eprintln!("prompt tokens from the cache: {:?}", real.engine_says("vllm:prefix_cache_hits_total").await);
    print_signal(&rows, "prefix_hit_rate");
    real.signal_that("prefix_hit_rate", |rate| rate > 0.0 && rate <= 1.0).await;
}
