//! What Fairlead learns from answers and tells of decisions, through a real Envoy.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common_traffic;

use std::net::SocketAddr;
use std::time::Duration;

use common_traffic::{Answer, CHAT, Lab, MODEL, Mode, Net};
use fairlead_lab::harness::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

const SOON: Duration = Duration::from_secs(10);

fn chat(stream: bool, with_usage: bool) -> String {
    let options = if stream { json!({ "include_usage": with_usage }) } else { Value::Null };
    let messages = json!([{ "role": "user", "content": "hello there" }]);
    json!({ "model": MODEL, "messages": messages, "stream": stream, "max_tokens": 24, "stream_options": options })
        .to_string()
}

/// What would be decided for a chat, as the admin port tells it.
async fn explained(lab: &Lab, query: &str, headers: &[(&str, &str)]) -> Value {
    let url = lab.stack.admin_url();
    let answer = lab.call_at(&url, "POST", &format!("/api/explain{query}"), headers, chat(true, false)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What was measured at the endpoint that made `answer`.
async fn measured(lab: &Lab, answer: &Answer) -> Value {
    let explained = explained(lab, "", &[]).await;
    let candidates = explained["candidates"].as_array().unwrap();
    let served = candidates.iter().find(|candidate| candidate["address"] == answer.header("target-pod-ip"));
    served.unwrap()["measured"].clone()
}

async fn counter(lab: &Lab, name: &str) -> u64 {
    let (_, page) = lab.stack.admin_get("/metrics").await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

async fn answered(lab: &Lab, stream: bool, with_usage: bool) -> Answer {
    let answer = lab.post(CHAT, &chat(stream, with_usage)).await;
    assert_eq!((answer.status, answer.text().ends_with("data: [DONE]\n\n")), (200, stream), "{answer:?}");
    lab.settled("an answer").await;
    answer
}

/// Both kinds of answer are measured, and pass unchanged.
async fn answers_are_measured(lab: &Lab) {
    let streamed = answered(lab, true, true).await;
    let seen = measured(lab, &streamed).await;
    assert_eq!((&seen["answered"], &seen["output_tokens"]), (&json!(1), &json!(24)), "{seen}");
    assert!(seen["first_token_mean_ms"].as_f64().unwrap() > 0.0, "{seen}");
    let plain = answered(lab, false, false).await;
    let usage = plain.json()["usage"]["completion_tokens"].as_u64().unwrap();
    let before = if plain.header("target-pod-ip") == streamed.header("target-pod-ip") { 24 } else { 0 };
    let seen = measured(lab, &plain).await;
    assert_eq!(seen["output_tokens"].as_u64(), Some(before + usage), "{seen}");
    assert!(counter(lab, "fairlead_response_pieces_total").await > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn buffered_requests_have_their_answers_shown_by_override() {
    let lab = Lab::start(Mode::Buffered, Net::Kept, "routing: { observe_answers: always }").await.unwrap();
    answers_are_measured(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplex_requests_have_their_answers_seen_where_envoy_shows_them() {
    for mode in ["FULL_DUPLEX_STREAMED", "STREAMED"] {
        let swap = |text: String| {
            let shown = text.replace("response_body_mode: NONE", &format!("response_body_mode: {mode}"));
            assert_ne!(shown, text);
            shown
        };
        let lab = Lab::start_changed(Mode::Duplex, Net::Removed, "", swap).await.unwrap();
        answers_are_measured(&lab).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_answers_is_seen_where_nobody_measures_them() {
    for settings in ["", "routing: { algorithm: round-robin, observe_answers: never }"] {
        let lab = Lab::start(Mode::Buffered, Net::Kept, settings).await.unwrap();
        for stream in [true, false] {
            answered(&lab, stream, true).await;
        }
        assert_eq!(counter(&lab, "fairlead_response_pieces_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_explained_to_a_client_that_asks_and_may() {
    let settings = "routing: { explain: true, decision_interval: 0s }";
    let lab = Lab::start(Mode::Buffered, Net::Kept, settings).await.unwrap();
    let asks = [("x-fairlead-explain", "1"), ("x-request-id", "abc")];
    let answer = lab.call("POST", CHAT, &asks, chat(true, false)).await;
    let explained: Value = serde_json::from_str(answer.header("x-fairlead-explain")).unwrap();
    assert_eq!((&explained["strategy"], &explained["outcome"]), (&json!("least-request"), &json!("sent")));
    assert_eq!(explained["chosen"][0], answer.header("target-pod-ip"));
    assert_eq!(explained["candidates"].as_array().unwrap().len(), 3);
    assert_eq!(explained["candidates"][0]["scores"][0]["scorer"], "open-requests");
    assert_eq!(explained["request_id"], answer.header("request-id"));
    assert!(!answer.header("x-fairlead-explain").contains("hello there"));
    assert_eq!(lab.post(CHAT, &chat(true, false)).await.header("x-fairlead-explain"), "");

    let (_, page) = lab.stack.admin_get("/api/decisions").await.unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    let kept = page["decisions"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[1]["request_id"]), (2, &explained["request_id"]));
    lab.settled("explaining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_nothing_is_explained_to_clients_but_a_dry_run_is() {
    let lab = Lab::start(Mode::Buffered, Net::Kept, "").await.unwrap();
    let answer = lab.call("POST", CHAT, &[("x-fairlead-explain", "1")], chat(true, false)).await;
    assert_eq!((answer.status, answer.header("x-fairlead-explain")), (200, ""));
    lab.settled("a request").await;

    let before = (lab.received(), counter(&lab, r#"fairlead_decisions_total{strategy="random"}"#).await);
    let dry = explained(&lab, "?strategy=random", &[]).await;
    assert_eq!((&dry["strategy"], &dry["outcome"]), (&json!("random"), &json!("sent")));
    let unknown = explained(&lab, "?strategy=fastest", &[]).await;
    assert_eq!((&unknown["outcome"], &unknown["answer"]["status"]), (&json!("answered"), &json!(400)));
    let elsewhere = explained(&lab, "?path=/elsewhere", &[]).await;
    assert_eq!(elsewhere["outcome"], "passed");
    assert_eq!(before, (lab.received(), counter(&lab, r#"fairlead_decisions_total{strategy="random"}"#).await));
    assert_eq!(lab.in_flight().await.unwrap(), 0);
}

/// An engine that sets headers of the names that Fairlead sets.
async fn header_forging_engine() -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let engine = TaskTracker::new().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 4096];
            assert!(client.read(&mut request).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nrequest-id: engine\r\n\
                          target-pod: engine\r\nx-own: engine\r\nconnection: close\r\n\r\n{}";
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, AbortOnDropHandle::new(engine))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_we_set_replaces_the_engines() {
    for (mode, settings) in [(Mode::Buffered, "routing: { observe_answers: always }"), (Mode::Duplex, "")] {
        let lab = Lab::start(mode, Net::Removed, settings).await.unwrap();
        let (engine, _runs) = header_forging_engine().await;
        lab.stack.write_endpoints(&format!("- {{ address: \"{engine}\", models: [{MODEL}] }}\n")).unwrap();
        let known = || async { explained(&lab, "", &[]).await["chosen"] == json!([engine.to_string()]) };
        wait_until("engine known", SOON, known).await.unwrap();
        let ask = || async { lab.call("POST", CHAT, &[("x-request-id", "ours")], chat(false, false)).await };
        // Envoy learns of the engine a moment later.
        wait_until("engine reached", SOON, || async { ask().await.header("x-own") == "engine" }).await.unwrap();
        let answer = ask().await;
        for (name, expected) in [("request-id", "ours"), ("target-pod", &*engine.to_string())] {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(values, [expected], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_fresh_metrics_is_named_and_serves_all_the_same() {
    let lab = Lab::start(Mode::Buffered, Net::Removed, "routing: { algorithm: least-kv-cache }").await.unwrap();
    let stale = async |number: &str| {
        let (_, page) = lab.stack.admin_get("/metrics").await.unwrap();
        page.lines().any(|line| line == format!("fairlead_endpoints_stale {number}"))
    };
    wait_until("all read", SOON, || stale("0.0")).await.unwrap();
    // It answers everything with two bytes, its metrics too.
    let (engine, _runs) = header_forging_engine().await;
    lab.stack.write_endpoints(&format!("- {{ address: \"{engine}\", models: [{MODEL}] }}\n")).unwrap();
    let ask = || async { lab.call("POST", CHAT, &[], chat(false, false)).await };
    wait_until("engine reached", SOON, || async { ask().await.header("x-own") == "engine" }).await.unwrap();
    let (status, page) = lab.stack.admin_get("/readyz").await.unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    let scraping = page["conditions"].as_array().unwrap().iter().find(|it| it["name"] == "scraping").unwrap();
    let expected = format!("metrics of 0 of 1 endpoints are fresh; stale: {engine}");
    assert_eq!((status, &scraping["detail"]), (200, &json!(expected)));
    assert!(stale("1.0").await);
    let (_, page) = lab.stack.admin_get("/api/endpoints").await.unwrap();
    let row = serde_json::from_str::<Value>(&page).unwrap()["endpoints"][0].clone();
    assert_eq!((&row["address"], row["signals"].get("running")), (&json!(engine.to_string()), None));
    assert_eq!(ask().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_selector_decides_who_may_serve() {
    let lab = Lab::start(Mode::Buffered, Net::Kept, "").await.unwrap();
    let engines = lab.stack.engines();
    let line = |(at, tier): (usize, &str)| {
        let address = engines[at].address();
        format!("- {{ address: \"{address}\", models: [{MODEL}], labels: {{ tier: {tier}, slot: \"{at}\" }} }}\n")
    };
    let yaml: String = ["gold", "gold", "spot"].into_iter().enumerate().map(line).collect();
    lab.stack.write_endpoints(&yaml).unwrap();
    let by_tier = [("external-filter", "tier,tier notin (gold)")];
    wait_until("labels known", SOON, || async { explained(&lab, "", &by_tier).await["outcome"] == "sent" })
        .await
        .unwrap();

    for _ in 0..6 {
        let answer = lab.call("POST", CHAT, &by_tier, chat(false, false)).await;
        assert_eq!(answer.header("target-pod-ip"), engines[2].address().to_string(), "{answer:?}");
    }
    let explained = explained(&lab, "", &[("external-filter", "tier=gold,slot!=0")]).await;
    assert_eq!(explained["chosen"], json!([engines[1].address().to_string()]), "the list keeps to it too");
    let left_out = explained["candidates"].as_array().unwrap().iter().filter(|c| c["left_out"] == "external-filter");
    assert_eq!(left_out.count(), 2);
    for (filter, reason, word) in
        [("tier=silver", "no_matching_endpoints", "silver"), ("tier in gold", "bad_label_filter", "byte 8")]
    {
        let answer = lab.call("POST", CHAT, &[("external-filter", filter)], chat(false, false)).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (503, &json!(reason)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
}
