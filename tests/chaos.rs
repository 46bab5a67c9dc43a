//! Everything goes wrong at once, at moments drawn by a seed; afterwards nothing may be left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::cell::Cell;
use std::time::Duration;

use fairlead_lab::engine::{Fault, FaultCommand};
use fairlead_lab::harness::Stack;
use fairlead_lab::load::{self, LoadOptions, Pace, Report};
use fastrand::Rng;

use common_life::{CONFIG, DUPLEX, QUICKSTART, heal, restart, soon, stack, traffic};

const REQUESTS: u64 = 10_000;
/// Envoy ejects up to half of them for some seconds; the rest must outnumber the two that fail.
const ENGINES: usize = 6;
const CLIENTS: usize = 32;
const SEED: u64 = 7;
/// Pause between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..250;

/// Fairlead is killed after the first so many requests, and started again after the second.
const AWAY: [(u64, u64); 2] = [(2_000, 2_800), (5_000, 5_800)];

/// A fault that ends before two others have begun, so that at most two engines fail at a time.
fn fault(rng: &mut Rng) -> FaultCommand {
    let fault = match rng.u8(0..5) {
        0 => Fault::Refuse,
        1 => Fault::Crash,
        2 => Fault::Reset,
        3 => Fault::ResetMidStream { after_chunks: rng.usize(1..10) },
        _ => Fault::Status { code: 503, retry_after_s: None },
    };
    FaultCommand { for_ms: Some(rng.u64(20..2 * PAUSE_MS.start)), ..fault.into() }
}

/// Lets engines fail and Fairlead die while the load runs. Returns how often Fairlead was started again.
async fn disturb(stack: &mut Stack, over: &Cell<bool>) -> usize {
    let mut rng = Rng::with_seed(SEED);
    let mut restarts = 0;
    let mut is_away = false;
    while !over.get() {
        stack.engine(rng.usize(0..ENGINES)).unwrap().set_fault(fault(&mut rng));
        let received: u64 = stack.engines().iter().map(|engine| engine.counters().received).sum();
        match AWAY.get(restarts) {
            Some((kill, _)) if !is_away && received >= *kill => {
                stack.kill_fairlead().unwrap();
                is_away = true;
            }
            Some((_, start)) if is_away && received >= *start => {
                restart(stack).await;
                (is_away, restarts) = (false, restarts + 1);
            }
            _ => {}
        }
        // The moments are the test: nothing is waited for.
        tokio::time::sleep(Duration::from_millis(rng.u64(PAUSE_MS))).await;
    }
    restarts
}

async fn chaos(envoy: &str) -> (Stack, Report) {
    let mut stack = stack(envoy, CONFIG, ENGINES).await;
    let over = Cell::new(false);
    let options = LoadOptions {
        pace: Pace::Closed { concurrency: CLIENTS },
        requests: Some(REQUESTS),
        abort_fraction: 0.2,
        abort_within: Duration::from_millis(60),
        seed: SEED,
        ..traffic(&stack)
    };
    let load = async {
        let report = load::run(options).await.unwrap();
        over.set(true);
        report
    };
    let (report, restarts) = tokio::join!(load, disturb(&mut stack, &over));
    assert_eq!(restarts, AWAY.len());
    eprintln!(
        "chaos: {} ok, {} aborted, {} failed in {:.1} s: {:?}",
        report.ok, report.aborted, report.failed, report.seconds, report.failures
    );
    // Settles: no request in flight on any endpoint, no stream open, no byte of a body held.
    heal(&stack).await;
    soon("the engines are idle", async || stack.engines().iter().all(|engine| engine.counters().in_progress == 0))
        .await;
    (stack, report)
}

#[tokio::test]
async fn nothing_is_left_behind_by_chaos() {
    let (stack, report) = Box::pin(chaos(QUICKSTART)).await;
    // An engine that resets while Fairlead looks at its response headers is a 502: they have not gone out yet.
    let cut = |reason: &String| reason.starts_with("in the answer") || reason == "status 502";
    assert!(report.failures.keys().all(cut), "only answers that engines cut fail: {:?}", report.failures);
    stack.stop().await.unwrap();
}

/// What is under way when Fairlead dies is lost in this mode, and a request or so more of each client.
#[tokio::test]
async fn nothing_is_left_behind_by_chaos_in_duplex_mode() {
    let (stack, report) = Box::pin(chaos(DUPLEX)).await;
    let lost = report.failures.get("status 500").copied().unwrap_or_default();
    assert!(lost <= (2 * CLIENTS * AWAY.len()) as u64, "{:?}", report.failures);
    stack.stop().await.unwrap();
}
