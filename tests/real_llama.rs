//! A real llama.cpp server behind Fairlead and the real Envoy. Opt-in: `make test-llama` builds the server and runs this.

mod common_real;

use std::time::Duration;

use common_real::{Real, Recipe, negative_signals, print_error, print_report, required};
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

#[tokio::test]
#[ignore = "needs a real llama.cpp server: make test-llama"]
async fn a_real_llama_server_is_seen_as_it_is() {
    let mut real = Real::start(recipe()).await;
    let (report, looks, rows) = Box::pin(real.watched(real.traffic(40, 6))).await;
    print_report("40 chats, 6 at a time, 2 slots", &report);
    assert_eq!((report.ok, report.failed), (40, 0));
    assert!(looks.iter().any(|look| look.truth.0 > 0.0 && look.truth.1 > 0.0), "the slots were never full");
    print_error("own count of requests in flight", &looks, |look| Some(look.in_flight));
    print_error("engine's running and waiting as told", &looks, |look| look.told.map(|(one, two)| one + two));
    if looks.iter().any(|look| look.told.is_some()) {
        assert!(looks.iter().any(|look| look.told.is_some_and(|(running, waiting)| running > 0.0 && waiting > 0.0)));
    }
    assert!(rows.iter().all(|row| negative_signals(row).is_empty()));
    eprintln!("while it ran: {}", rows.get(rows.len() / 2).unwrap());
    real.settle().await;
    let again = LoadOptions { prompt_bytes: 600, shared_prefix_bytes: 600, ..real.traffic(6, 1) };
    print_report("one prompt six times", &Box::pin(load(again)).await.unwrap());
    eprintln!("prompt tokens from the cache: {:?}", real.engine_says("llamacpp:prompt_tokens_cached_total").await);
    real.signal_that("prefix_hit_rate", |rate| rate > 0.0).await;

    real.restart_engine().await;
    let (report, _, rows) = Box::pin(real.watched(real.traffic(10, 2))).await;
    print_report("after a restart of the engine", &report);
    assert_eq!(report.failed, 0);
    let negative: Vec<String> = rows.iter().flat_map(negative_signals).collect();
    assert!(negative.is_empty(), "{negative:?}");
    real.settle().await;
    eprintln!("in the end: {}", real.row().await);
    real.stack.stop().await.unwrap();
}
