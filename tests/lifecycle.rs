//! Clients that vanish, endpoints that come and go, and Fairlead's own start and end, seen through a real Envoy.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_lab::harness::{Child, Stack, free_address, get};
use fairlead_lab::load::{self, LoadOptions, Report};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use common_life::{
    CONFIG, DUPLEX, MODEL, QUICKSTART, SOON, ask, doomed, first_event, metric, nothing_failed, open, post, restart,
    rows, settle, soon, stack, traffic,
};

/// How many clients vanish at once.
const CLIENTS: usize = 100;

fn received(stack: &Stack) -> u64 {
    stack.engines().iter().map(|engine| engine.counters().received).sum()
}

async fn vanished_clients_free_their_slots(envoy: &str) {
    let stack = stack(envoy, CONFIG, 3).await;
    let before_headers = try_join_all((0..CLIENTS).map(|_| doomed(&stack, false))).await.unwrap();
    soon("the engines have them", async || received(&stack) == CLIENTS as u64).await;
    drop(before_headers);
    settle(&stack).await;
    soon("they are counted as aborted", async || metric(&stack, "fairlead_aborted_total").await >= CLIENTS as u64)
        .await;

    let mut mid_stream = try_join_all((0..CLIENTS).map(|_| doomed(&stack, true))).await.unwrap();
    try_join_all(mid_stream.iter_mut().map(first_event)).await.unwrap();
    let in_flight: u32 = rows(&stack).await.iter().map(|row| row.in_flight).sum();
    assert_eq!(in_flight as usize, CLIENTS);
    drop(mid_stream);
    settle(&stack).await;
    soon("the engines stop too", async || stack.engines().iter().all(|engine| engine.counters().in_progress == 0))
        .await;
    assert_eq!(ask(&stack, 4).await.status, 200);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn vanished_clients_free_their_slots_in_buffered_mode() {
    Box::pin(vanished_clients_free_their_slots(QUICKSTART)).await;
}

#[tokio::test]
async fn vanished_clients_free_their_slots_in_duplex_mode() {
    Box::pin(vanished_clients_free_their_slots(DUPLEX)).await;
}

/// A discovery file with these engines and what else is said of them.
fn endpoints(stack: &Stack, engines: &[(usize, &str)]) -> String {
    let mut text = String::new();
    for (index, more) in engines {
        let address = stack.engine(*index).unwrap().address();
        writeln!(text, "- {{ address: \"{address}\", models: [{MODEL}]{more} }}").unwrap();
    }
    text
}

async fn publish(stack: &Stack, engines: &[(usize, &str)]) {
    let taken = metric(stack, OK).await;
    stack.write_endpoints(&endpoints(stack, engines)).unwrap();
    soon("the file is taken", async || metric(stack, OK).await > taken).await;
}

const OK: &str = "fairlead_discovery_reloads_total{source=\"file\",result=\"ok\"}";
const FAILED: &str = "fairlead_discovery_reloads_total{source=\"file\",result=\"failed\"}";

/// Status of `/readyz` and what it says of discovery.
async fn readiness(stack: &Stack) -> (u16, String) {
    let (status, page) = stack.admin_get("/readyz").await.unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    let conditions = page.get("conditions").and_then(Value::as_array).unwrap();
    let discovery = conditions.iter().find(|condition| condition.get("name").unwrap() == "discovery").unwrap();
    (status, discovery.get("detail").and_then(Value::as_str).unwrap().to_owned())
}

async fn faulty_file_is_refused(stack: &Stack) {
    let before = rows(stack).await.len();
    stack.write_endpoints("- { address: \"127.0.0.1:1\", modles: [x] }\n").unwrap();
    soon("the faulty file is refused", async || metric(stack, FAILED).await == 1).await;
    let (status, detail) = readiness(stack).await;
    assert_eq!(status, 200, "the last good endpoints serve on");
    assert!(detail.contains("endpoints.yaml") && detail.contains("modles"), "{detail}");
    assert_eq!(rows(stack).await.len(), before);
}

#[tokio::test]
async fn endpoints_change_under_load_without_a_failed_request() {
    let stack = stack(QUICKSTART, CONFIG, 4).await;
    publish(&stack, &[(0, ""), (1, ""), (2, "")]).await;
    let mut streams = join_all((0..3).map(|_| open(&stack, 5_000, true))).await;
    let at = streams.iter().position(|stream| stream.engine() == "engine-0").unwrap();
    let on_removed = streams.swap_remove(at);
    drop(streams);

    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(3)), ..traffic(&stack) });
    let story = async {
        soon("traffic on all", async || rows(&stack).await.iter().all(|row| row.sent > 20)).await;
        publish(&stack, &[(1, ""), (2, ""), (3, "")]).await;
        soon("the added one serves", async || stack.engine(3).unwrap().counters().completed > 20).await;
        let removed = || stack.engine(0).unwrap().counters();
        soon("the removed one has only the stream", async || removed().in_progress == 1).await;
        let at_removal = removed().received;
        faulty_file_is_refused(&stack).await;
        publish(&stack, &[(1, ", weight: 5, name: heavy"), (2, ""), (3, "")]).await;
        assert_eq!(readiness(&stack).await, (200, "endpoint file loaded".to_owned()));
        let (_, page) = stack.admin_get("/api/endpoints").await.unwrap();
        assert!(page.contains("heavy"), "{page}");
        assert!(rows(&stack).await.iter().all(|row| row.sent > 0), "counts survive a change of attributes");
        at_removal
    };
    let (report, at_removal) = tokio::join!(load, story);
    nothing_failed("endpoints change", &report.unwrap());
    assert!(on_removed.finish().await.text().ends_with("data: [DONE]\n\n"), "the stream ran to its end");
    assert_eq!(stack.engine(0).unwrap().counters().received, at_removal, "nothing new went to the removed one");
    settle(&stack).await;
    stack.stop().await.unwrap();
}

/// The strategy that the answer to a request names.
async fn strategy(stack: &Stack) -> Option<String> {
    let answer = ask(stack, 4).await;
    assert_eq!(answer.status, 200);
    answer.header("routing-strategy").map(str::to_owned)
}

async fn routed_again(stack: &mut Stack) {
    restart(stack).await;
    let since = Instant::now();
    soon("Fairlead chooses again", async || strategy(stack).await.as_deref() == Some("least-request")).await;
    eprintln!("routed again {:?} after it was ready", since.elapsed());
}

async fn graceful_stop_loses_nothing(envoy: &str, config: &str) {
    let mut stack = stack(envoy, config, 3).await;
    let running = join_all((0..6).map(|_| open(&stack, 1_500, true))).await;
    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(5)), ..traffic(&stack) });
    let story = async {
        soon("traffic", async || received(&stack) > 100).await;
        let since = Instant::now();
        let url = stack.envoy_url();
        let fallback = async {
            soon("the fallback serves", async || {
                let answer = post(&url, 4, false).await.finish().await;
                assert_eq!(answer.status, 200);
                answer.header("routing-strategy").is_none()
            })
            .await;
        };
        let (status, ()) = tokio::join!(stack.terminate_fairlead(SOON), fallback);
        assert!(status.unwrap().success());
        eprintln!("ended {:?} after the signal", since.elapsed());
        assert_eq!(strategy(&stack).await, None);
        routed_again(&mut stack).await;
        for answer in join_all(running.into_iter().map(common_life::Running::finish)).await {
            assert!(answer.text().ends_with("data: [DONE]\n\n"), "a running stream goes to its end");
        }
    };
    let (report, ()) = tokio::join!(load, story);
    nothing_failed("graceful stop", &report.unwrap());
    settle(&stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_graceful_stop_loses_nothing_in_buffered_mode() {
    Box::pin(graceful_stop_loses_nothing(QUICKSTART, CONFIG)).await;
}

/// In this mode Envoy must leave before the listener closes, hence the delay.
#[tokio::test]
async fn a_graceful_stop_loses_nothing_in_duplex_mode() {
    Box::pin(graceful_stop_loses_nothing(DUPLEX, &format!("{CONFIG}shutdown: {{ delay: 2s }}\n"))).await;
}

#[tokio::test]
async fn a_stream_longer_than_the_grace_period_does_not_hold_the_process() {
    let mut stack = stack(QUICKSTART, &format!("{CONFIG}shutdown: {{ grace: 1s }}\n"), 2).await;
    let running = open(&stack, 5_000, true).await;
    let since = Instant::now();
    let status = stack.terminate_fairlead(SOON).await.unwrap();
    let elapsed = since.elapsed();
    assert!(status.success(), "{status}");
    assert!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(4), "{elapsed:?}");
    assert!(running.finish().await.text().ends_with("data: [DONE]\n\n"), "and the stream lives on");
    stack.stop().await.unwrap();
}

/// Starts a Fairlead that does not become ready, as the file with its endpoints is missing.
async fn start_without_endpoints(stack: &Stack) -> Child {
    let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    let config = stack.folder().join("fairlead.yaml");
    let log = stack.folder().join("unready.log");
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let child = Child::spawn("fairlead", binary, &arguments, &log).unwrap();
    soon("the admin page is up", async || stack.admin_get("/readyz").await.is_ok_and(|(status, _)| status == 503))
        .await;
    child
}

#[tokio::test]
async fn a_start_without_endpoints_leaves_requests_to_the_fallback() {
    let mut stack = stack(QUICKSTART, CONFIG, 2).await;
    let known = endpoints(&stack, &[(0, ""), (1, "")]);
    stack.kill_fairlead().unwrap();
    std::fs::remove_file(stack.folder().join("endpoints.yaml")).unwrap();

    let unready = start_without_endpoints(&stack).await;
    assert_eq!(strategy(&stack).await, None);
    assert!(unready.terminate(SOON).await.unwrap().success(), "it can be stopped at that point");

    let mut unready = start_without_endpoints(&stack).await;
    assert_eq!(strategy(&stack).await, None);
    stack.write_endpoints(&known).unwrap();
    unready.wait_ready(&format!("{}/readyz", stack.admin_url()), SOON).await.unwrap();
    assert_eq!(strategy(&stack).await.as_deref(), Some("least-request"));
    settle(&stack).await;
    stack.stop().await.unwrap();
}

/// Kills Fairlead in the midst of traffic and starts it again.
async fn kill_under_load(envoy: &str) -> Report {
    let mut stack = stack(envoy, CONFIG, 3).await;
    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(5)), ..traffic(&stack) });
    let story = async {
        soon("traffic", async || received(&stack) > 200).await;
        stack.kill_fairlead().unwrap();
        let at_kill = received(&stack);
        soon("the fallback serves", async || received(&stack) > at_kill + 300).await;
        assert_eq!(strategy(&stack).await, None);
        routed_again(&mut stack).await;
    };
    let (report, ()) = tokio::join!(load, story);
    settle(&stack).await;
    assert_eq!(strategy(&stack).await.as_deref(), Some("least-request"));
    settle(&stack).await;
    stack.stop().await.unwrap();
    report.unwrap()
}

#[tokio::test]
async fn a_killed_fairlead_fails_no_request() {
    nothing_failed("killed", &Box::pin(kill_under_load(QUICKSTART)).await);
}

/// What was under way with a body at the moment of the kill cannot be saved in this mode; nothing later may fail.
#[tokio::test]
async fn a_killed_fairlead_fails_at_most_what_was_under_way_in_duplex_mode() {
    let report = Box::pin(kill_under_load(DUPLEX)).await;
    eprintln!("killed in duplex mode: {} ok, {} failed: {:?}", report.ok, report.failed, report.failures);
    assert!(report.failed <= 2 * 16, "{:?}", report.failures);
}

/// A stack that talks to Fairlead over TCP, and where.
async fn tcp_stack(more: &str) -> (Stack, Channel) {
    let address = free_address().unwrap();
    let (ip, port) = (address.ip(), address.port());
    let pipe = "pipe: { path: run/ext_proc.sock }";
    let socket = format!("socket_address: {{ address: {ip}, port_value: {port} }}");
    // The harness looks for the socket's name; a comment is enough.
    let envoy = format!("# not run/ext_proc.sock\n{}", QUICKSTART.replace(pipe, &socket));
    assert!(QUICKSTART.contains(pipe));
    let config = format!("{}{more}", CONFIG.replace("unix:{ext_proc}", &address.to_string()));
    let stack = stack(&envoy, &config, 2).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (stack, channel)
}

#[tokio::test]
async fn decisions_over_tcp_are_made_too() {
    let (stack, _channel) = tcp_stack("").await;
    let report = load::run(LoadOptions { requests: Some(200), ..traffic(&stack) }).await.unwrap();
    nothing_failed("over TCP", &report);
    assert_eq!(metric(&stack, "fairlead_decisions_total{strategy=\"least-request\"}").await, 200);
    settle(&stack).await;
    stack.stop().await.unwrap();
}

/// What gRPC health says of each name that gateways ask for.
async fn health(channel: &Channel) -> Vec<ServingStatus> {
    let names = ["", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"];
    let answers = names.map(|service| {
        let mut client = HealthClient::new(channel.clone());
        async move {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.check(request).await.unwrap().into_inner().status()
        }
    });
    join_all(answers).await
}

#[tokio::test]
async fn health_and_readiness_say_when_it_drains_and_it_serves_on_meanwhile() {
    let (mut stack, channel) = tcp_stack("shutdown: { delay: 2s, grace: 5s }\n").await;
    assert_eq!(health(&channel).await, [ServingStatus::Serving; 3]);
    let (ready, envoy) = (format!("{}/readyz", stack.admin_url()), stack.envoy_url());
    assert_eq!(get(&ready).await.unwrap().0, 200);
    let story = async {
        soon("not ready", async || get(&ready).await.unwrap().0 == 503).await;
        soon("not serving", async || health(&channel).await == [ServingStatus::NotServing; 3]).await;
        let answer = post(&envoy, 4, false).await.finish().await;
        assert_eq!((answer.status, answer.header("routing-strategy")), (200, Some("least-request")));
    };
    let (status, ()) = tokio::join!(stack.terminate_fairlead(SOON), story);
    assert!(status.unwrap().success());
    stack.stop().await.unwrap();
}
