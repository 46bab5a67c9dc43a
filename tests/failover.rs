//! Engines that fail, seen through a real Envoy.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::time::{Duration, Instant};

use fairlead_lab::engine::{Fault, FaultCommand};
use fairlead_lab::harness::Stack;
use fairlead_lab::load::{self, LoadOptions};

use common_life::{
    CONFIG, DUPLEX, QUICKSTART, ask, fresh, heal, metric, nothing_failed, open, row, rows, settle, soon, stack, stream,
};

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after_s: None }
}

async fn refusing_engine_fails_no_request_and_comes_back(stack: &Stack) {
    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(3)), ..common_life::traffic(stack) });
    let story = async {
        soon("engine 0 serves", async || row(stack, 0).await.sent > 20).await;
        stack.engine(0).unwrap().set_fault(Fault::Refuse);
        soon("engine 0 is put aside", async || {
            let row = row(stack, 0).await;
            row.failed > 0 && row.aside_ms > 0
        })
        .await;
        stack.engine(0).unwrap().set_fault(Fault::None);
        let completed = stack.engine(0).unwrap().counters().completed;
        soon("engine 0 serves again", async || stack.engine(0).unwrap().counters().completed > completed + 20).await;
    };
    let (report, ()) = tokio::join!(load, story);
    nothing_failed("one engine refuses", &report.unwrap());
    assert!(metric(stack, "fairlead_failovers_total").await > 0);
}

async fn ticket_is_booked_on_who_served(stack: &Stack) {
    stack.engine(0).unwrap().set_fault(Fault::Refuse);
    // With two streams running elsewhere, the third is for engine 0 if it was not tried before.
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(open(stack, 20_000, true).await);
    }
    for index in 0..3 {
        let name = stack.engine(index).unwrap().name();
        let served = running.iter().filter(|answer| answer.engine() == name).count();
        assert_eq!(row(stack, index).await.in_flight as usize, served, "{name}");
    }
    assert!(row(stack, 0).await.failed > 0);
    drop(running);
}

async fn failing_once_is_answered_by_the_next(stack: &Stack, fault: Fault, blamed: bool) {
    let (failovers, failed) = (metric(stack, "fairlead_failovers_total").await, failures(stack).await);
    let told = format!("{fault:?}");
    // Every engine fails its next request: whoever is asked first fails, the third attempt succeeds at the latest.
    for engine in stack.engines() {
        engine.set_fault(FaultCommand { times: Some(1), ..fault.clone().into() });
    }
    // All three fail once, so the first request uses all of them up and gets the last one's failure.
    let spent = ask(stack, 4).await;
    assert_ne!(spent.status, 200, "{told}");
    stack.engines().iter().for_each(|engine| engine.set_fault(Fault::None));
    stack.engine(0).unwrap().set_fault(fault);
    for _ in 0..12 {
        let answer = ask(stack, 4).await;
        assert_eq!(answer.status, 200, "{told}");
        assert_ne!(answer.engine(), "engine-0", "{told}");
    }
    if blamed {
        assert!(failures(stack).await > failed, "{told}");
    }
    soon("failovers are counted", async || metric(stack, "fairlead_failovers_total").await > failovers).await;
}

async fn failures(stack: &Stack) -> u64 {
    rows(stack).await.iter().map(|row| row.failed).sum()
}

async fn all_busy_passes_the_engines_own_429_through(stack: &Stack) {
    for engine in stack.engines() {
        engine.set_fault(Fault::Status { code: 429, retry_after_s: Some(7) });
    }
    let before: u64 = stack.engines().iter().map(|engine| engine.counters().completed).sum();
    let answer = ask(stack, 4).await;
    let after: u64 = stack.engines().iter().map(|engine| engine.counters().completed).sum();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), direct(stack, 0).await, "the body is the engine's own");
    assert_eq!(after - before, 3, "each engine was asked once");
}

/// The body of an engine's answer without anything between.
async fn direct(stack: &Stack, engine: usize) -> String {
    common_life::post(&stack.engine(engine).unwrap().url(), 4, false).await.finish().await.text().to_owned()
}

async fn own_error_500_passes_through_unchanged(stack: &Stack) {
    let failed = failures(stack).await;
    for engine in stack.engines() {
        engine.set_fault(status(500));
    }
    let before: u64 = stack.engines().iter().map(|engine| engine.counters().completed).sum();
    let answer = ask(stack, 4).await;
    let after: u64 = stack.engines().iter().map(|engine| engine.counters().completed).sum();
    assert_eq!((answer.status, after - before), (500, 1), "one attempt");
    assert_eq!(answer.text(), direct(stack, 0).await, "the body is the engine's own");
    assert_eq!(failures(stack).await, failed, "a 500 blames nobody");
}

async fn reset_mid_stream_is_a_cut_stream_and_frees_the_slot(stack: &Stack) {
    for engine in stack.engines() {
        engine.set_fault(Fault::ResetMidStream { after_chunks: 3 });
    }
    let answer = stream(stack, 500).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_err(), "the client sees that the stream was cut");
}

async fn all_down_is_a_clear_503_until_they_return(stack: &Stack) {
    stack.engines().iter().for_each(|engine| engine.set_fault(Fault::Refuse));
    let since = Instant::now();
    for _ in 0..5 {
        let answer = ask(stack, 4).await;
        assert_eq!(answer.status, 503);
    }
    eprintln!("all down: 5 answers in {:?}", since.elapsed());
    settle(stack).await;
    stack.engines().iter().for_each(|engine| engine.set_fault(Fault::None));
    soon("served again", async || ask(stack, 4).await.status == 200).await;
}

async fn every_story(envoy: &str) {
    let stack = stack(envoy, CONFIG, 3).await;
    refusing_engine_fails_no_request_and_comes_back(&stack).await;
    fresh(&stack).await;
    ticket_is_booked_on_who_served(&stack).await;
    fresh(&stack).await;
    for (fault, blamed) in [(Fault::Reset, true), (status(503), true), (status(429), false)] {
        failing_once_is_answered_by_the_next(&stack, fault, blamed).await;
        fresh(&stack).await;
    }
    all_busy_passes_the_engines_own_429_through(&stack).await;
    fresh(&stack).await;
    own_error_500_passes_through_unchanged(&stack).await;
    fresh(&stack).await;
    reset_mid_stream_is_a_cut_stream_and_frees_the_slot(&stack).await;
    heal(&stack).await;
    all_down_is_a_clear_503_until_they_return(&stack).await;
    heal(&stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn failing_engines_are_covered_by_the_others() {
    Box::pin(every_story(QUICKSTART)).await;
}

#[tokio::test]
async fn failing_engines_are_covered_by_the_others_in_duplex_mode() {
    Box::pin(every_story(DUPLEX)).await;
}

async fn hung_engine_is_left_for_the_next_and_put_aside(envoy: &str) {
    let text = envoy.replace("per_try_timeout: 300s", "per_try_timeout: 0.3s");
    assert_ne!(text, envoy);
    let stack = stack(&text, CONFIG, 3).await;
    stack.engine(1).unwrap().set_fault(Fault::Hang);
    soon("the hung engine was tried and left", async || {
        let answer = ask(&stack, 4).await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.engine(), "engine-1");
        row(&stack, 1).await.aside_ms > 0
    })
    .await;
    // Being passed over may mean no more than a 429, so it takes three in a row.
    assert_eq!(stack.engine(1).unwrap().counters().received, 3);
    fresh(&stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_hung_engine_is_left_for_the_next_and_put_aside() {
    Box::pin(hung_engine_is_left_for_the_next_and_put_aside(QUICKSTART)).await;
    Box::pin(hung_engine_is_left_for_the_next_and_put_aside(DUPLEX)).await;
}

/// Failing engines have the fewest requests open, which draws a plain least-request to them.
#[tokio::test]
async fn the_fallback_finds_the_healthy_half_of_the_engines() {
    let mut stack = stack(QUICKSTART, CONFIG, 4).await;
    stack.kill_fairlead().unwrap();
    stack.engine(0).unwrap().set_fault(status(503));
    stack.engine(1).unwrap().set_fault(status(503));
    let report = load::run(LoadOptions { requests: Some(500), ..common_life::traffic(&stack) }).await.unwrap();
    nothing_failed("two of four fail and Fairlead is away", &report);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_last_engine_is_used_however_it_failed() {
    let stack = stack(QUICKSTART, CONFIG.replace("300ms", "1m").replace("1s }", "1m }").as_str(), 1).await;
    stack.engine(0).unwrap().set_fault(Fault::Reset);
    assert_eq!(ask(&stack, 4).await.status, 503);
    let row = row(&stack, 0).await;
    assert!(row.failed > 0 && row.aside_ms > 0, "{row:?}");
    stack.engine(0).unwrap().set_fault(Fault::None);
    let answer = ask(&stack, 4).await;
    assert_eq!((answer.status, answer.header("routing-strategy")), (200, Some("least-request")));
    settle(&stack).await;
    assert!(common_life::row(&stack, 0).await.aside_ms == 0, "an answer ends the pause");
    stack.stop().await.unwrap();
}
