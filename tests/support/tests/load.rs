//! The load generator against an engine: what it counts.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::time::Duration;

use fairlead_lab::engine::{Engine, EngineHandle, EngineOptions, Fault, FaultCommand, Timing};
use fairlead_lab::load::{self, LoadOptions, Pace, Report};

async fn engine(fast: bool) -> EngineHandle {
    Engine::start(EngineOptions { fast, timing: Timing::quick(), ..EngineOptions::default() }).await.unwrap()
}

fn options(engine: &EngineHandle, requests: u64) -> LoadOptions {
    LoadOptions {
        url: engine.url(),
        requests: Some(requests),
        timeout: Duration::from_secs(10),
        ..LoadOptions::default()
    }
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let engine = engine(true).await;
    let report = load::run(LoadOptions { stream_share: 0.5, ..options(&engine, 200) }).await.unwrap();
    assert_eq!((report.requests, report.ok, report.failed), (200, 200, 0));
    assert_eq!(report.statuses.get(&200), Some(&200));
    assert_eq!(report.endpoints.get("engine-0"), Some(&200));
    assert_eq!(report.latency.count, 200);
    assert!(report.ttft.count > 50 && report.ttft.count < 150, "half of them are streams");
    assert_eq!(engine.counters().completed, 200);
    assert!(engine.counters().connections <= 8, "connections are kept alive");
}

#[tokio::test]
async fn a_timed_stream_has_gaps_between_its_tokens() {
    let engine = engine(false).await;
    let report =
        load::run(LoadOptions { stream_share: 1.0, tokens_max: Some(8), ..options(&engine, 10) }).await.unwrap();
    assert_eq!((report.ok, report.ttft.count), (10, 10));
    assert!(report.itl.count >= 70 && report.itl.max_ms >= 0.5);
}

#[tokio::test]
async fn a_broken_stream_and_an_error_status_are_failures_with_a_reason() {
    let engine = engine(true).await;
    engine.set_fault(FaultCommand { times: Some(3), ..Fault::ResetMidStream { after_chunks: 2 }.into() });
    let one_by_one = LoadOptions { stream_share: 1.0, pace: Pace::Closed { concurrency: 1 }, ..options(&engine, 10) };
    let report = load::run(one_by_one.clone()).await.unwrap();
    assert_eq!((report.ok, report.failed), (7, 3));
    assert_eq!(report.failures.values().sum::<u64>(), 3);
    assert!(report.failures.keys().all(|reason| reason.starts_with("in the answer")), "{:?}", report.failures);
    engine.set_fault(FaultCommand { times: Some(2), ..Fault::Status { code: 429, retry_after_s: None }.into() });
    let report = load::run(one_by_one).await.unwrap();
    assert_eq!(report.failures.get("status 429"), Some(&2));
    assert_eq!(report.statuses.get(&429), Some(&2));
}

#[tokio::test]
async fn aborts_are_counted_apart_and_seen_by_the_engine() {
    let engine = engine(false).await;
    let abort_within = Duration::from_millis(20);
    let report = load::run(LoadOptions {
        stream_share: 1.0,
        abort_fraction: 1.0,
        abort_within,
        tokens_max: None,
        ..options(&engine, 20)
    })
    .await
    .unwrap();
    assert_eq!((report.aborted, report.failed), (20, 0));
    let all_gone = async {
        while engine.counters().in_progress > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all_gone).await.unwrap();
}

#[tokio::test]
async fn an_open_loop_sends_at_its_rate_and_not_more_than_its_bound() {
    let engine = engine(true).await;
    let duration = Some(Duration::from_millis(500));
    let pace = Pace::Open { rate: 400.0, in_flight_max: 64 };
    let report = load::run(LoadOptions { pace, duration, requests: None, ..options(&engine, 0) }).await.unwrap();
    assert!((120..300).contains(&report.requests), "200 expected, {} came", report.requests);
    assert_eq!(report.failed, 0);
    engine.set_fault(Fault::Hang);
    let bounded = LoadOptions {
        pace: Pace::Open { rate: 1000.0, in_flight_max: 4 },
        timeout: Duration::from_millis(300),
        ..options(&engine, 20)
    };
    let report: Report = load::run(bounded).await.unwrap();
    assert_eq!(report.failures.get("timeout"), Some(&4));
    assert_eq!(report.failures.get("not sent: too many in flight"), Some(&16));
}

#[tokio::test]
async fn a_closed_port_is_a_failure_not_an_error() {
    let engine = engine(true).await;
    let options = options(&engine, 5);
    engine.stop().await;
    let report = load::run(options).await.unwrap();
    assert_eq!((report.requests, report.failed), (5, 5));
    assert_eq!(report.failures.get("connect: connection refused"), Some(&5));
}

#[tokio::test]
async fn strategies_are_a_header_that_replaces_the_one_before() {
    let options = LoadOptions::default().strategy("random").unwrap().strategy("least-request").unwrap();
    let names: Vec<&str> = options.headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
    assert_eq!(names, ["least-request"]);
}

#[tokio::test]
async fn sessions_are_carried_from_answer_to_request() {
    let engine = Engine::start(EngineOptions { fast: true, record: true, ..EngineOptions::default() }).await.unwrap();
    let one_by_one = LoadOptions { sessions: 1, pace: Pace::Closed { concurrency: 1 }, ..options(&engine, 5) };
    let report = load::run(one_by_one).await.unwrap();
    assert_eq!((report.ok, report.sessions_moved), (5, 0));
    // An engine issues no session, so there is none to send.
    assert!(!engine.last_request().unwrap().headers.contains_key("x-session-id"));
}
