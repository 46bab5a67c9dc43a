//! A real llama.cpp server behind Fairlead and the real Envoy. Opt-in: `make test-llama` builds the server and runs this.

mod common_real;

use std::time::Duration;

use common_real::{Real, Recipe, negative_signals, print_errors, print_report, print_signal, required, settled};
use fairlead_lab::load::{LoadOptions, run as load};

const SLOTS: u32 = 2;

fn recipe() -> Recipe {
    let program = required("FAIRLEAD_LLAMA_SERVER", "test-llama");
    let model = required("FAIRLEAD_LLAMA_MODEL", "test-llama").display().to_string();
    let slots = SLOTS.to_string();
    let arguments =
        ["-m", &model, "--alias", "smollm2", "--metrics", "-c", "4096", "-np", &slots, "-t", "2", "--no-webui"];
    Recipe {
        program,
        arguments: arguments.map(str::to_owned).to_vec(),
        model: "smollm2",
        kind: "llamacpp",
        running: "llamacpp:requests_processing",
        waiting: "llamacpp:requests_deferred",
        start: Duration::from_mins(1),
    }
}

/// Every signal that a llama-server tells.
const TOLD: [&str; 5] = ["running", "waiting", "requests", "prompt_tokens_rate", "generation_tokens_rate"];

#[tokio::test]
#[ignore = "needs a real llama.cpp server: make test-llama"]
async fn a_real_llama_server_is_seen_as_it_is() {
    let mut real = Real::start(recipe()).await;
    let (report, looks, rows) = Box::pin(real.watched(real.traffic(40, 6))).await;
    print_report("40 chats, 6 at a time, 2 slots", &report);
    assert_eq!((report.ok, report.failed), (40, 0));
    assert!(looks.iter().any(|look| look.truth.0 > 0.0 && look.truth.1 > 0.0), "the slots were never full");
    print_errors(&looks);
    for name in TOLD {
        assert!(print_signal(&rows, name).is_some(), "{name} was never told");
    }
    let pairs: Vec<_> = looks.iter().filter_map(|look| look.told).collect();
    assert!(pairs.iter().any(|(running, waiting)| *running > 0.0 && *waiting > 0.0), "never seen busy: {looks:?}");
    assert!(pairs.iter().all(|(running, waiting)| (0.0..=2.0).contains(running) && (0.0..=6.0).contains(waiting)));
    assert!(rows.iter().all(|row| negative_signals(row).is_empty()));
    settled(&real).await;

    let again = LoadOptions { prompt_bytes: 600, shared_prefix_bytes: 600, ..real.traffic(6, 1) };
    print_report("one prompt six times", &Box::pin(load(again)).await.unwrap());
    eprintln!("prompt tokens from the cache: {:?}", real.engine_says("llamacpp:prompt_tokens_cached_total").await);
    real.signal_that("prefix_hit_rate", |rate| rate > 0.0 && rate <= 1.0).await;

    real.survives_a_restart(10).await;
    real.stack.stop().await.unwrap();
}
