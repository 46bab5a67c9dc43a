//! An engine over loopback: framing, pages and faults.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::time::Duration;

use fairlead_lab::engine::{Dialect, Engine, EngineHandle, EngineOptions, Fault, FaultCommand, Timing};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

type Http = Client<HttpConnector, Full<bytes::Bytes>>;

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn engine(fast: bool) -> EngineHandle {
    let options = EngineOptions {
        fast,
        record: true,
        loras: vec!["sql".to_owned()],
        timing: Timing::quick(),
        ..EngineOptions::default()
    };
    Engine::start(options).await.unwrap()
}

struct Got {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

async fn send(client: &Http, url: &str, body: Option<&Value>) -> anyhow::Result<Got> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.map_or_else(String::new, Value::to_string);
    let request = http::Request::builder().method(method).uri(url).body(Full::from(body))?;
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request(request)).await??;
    let (head, body) = answer.into_parts();
    let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    Ok(Got { status: head.status.as_u16(), headers: head.headers, text })
}

async fn chat(engine: &EngineHandle, body: &Value) -> anyhow::Result<Got> {
    send(&http(), &format!("{}/v1/chat/completions", engine.url()), Some(body)).await
}

fn hello(stream: bool) -> Value {
    json!({"model": "llama-3-8b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": stream})
}

fn events(text: &str) -> Vec<&str> {
    assert!(text.ends_with("\n\n"));
    text.trim_end().split("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect()
}

#[tokio::test]
async fn a_stream_has_role_tokens_finish_usage_and_done() {
    let engine = engine(false).await;
    let mut body = hello(true);
    body["stream_options"] = json!({"include_usage": true});
    let got = chat(&engine, &body).await.unwrap();
    assert_eq!(got.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(got.headers["x-engine"], "engine-0");
    let events = events(&got.text);
    assert_eq!(events.len(), 1 + 5 + 1 + 1);
    assert_eq!(*events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..7].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[6]["choices"], json!([]));
    assert_eq!(chunks[6]["usage"]["completion_tokens"], 5);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn the_usage_chunk_comes_only_when_asked_for() {
    let engine = engine(false).await;
    let got = chat(&engine, &hello(true)).await.unwrap();
    assert!(!got.text.contains("usage"));
    assert!(got.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn plain_and_streamed_answers_have_the_same_text() {
    let engine = engine(false).await;
    let plain = chat(&engine, &hello(false)).await.unwrap().json();
    let streamed = chat(&engine, &hello(true)).await.unwrap();
    let text: String = events(&streamed.text)
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(plain["choices"][0]["message"]["content"], text);
    assert_eq!(plain["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn a_fast_engine_frames_as_the_timed_one_does() {
    let engine = engine(true).await;
    let streamed = chat(&engine, &hello(true)).await.unwrap();
    assert_eq!(*events(&streamed.text).last().unwrap(), "[DONE]");
    let plain = chat(&engine, &hello(false)).await.unwrap();
    assert_eq!(plain.json()["object"], "chat.completion");
    assert_eq!(engine.counters().completed, 2);
    assert_eq!(engine.counters().in_progress, 0);
}

#[tokio::test]
async fn a_repeated_prompt_is_served_from_the_cache() {
    let engine = engine(false).await;
    let body =
        json!({"model": "llama-3-8b", "messages": [{"role": "user", "content": "four ".repeat(100)}], "max_tokens": 2});
    chat(&engine, &body).await.unwrap();
    let again = chat(&engine, &body).await.unwrap().json();
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
    let page = send(&http(), &format!("{}/metrics", engine.url()), None).await.unwrap();
    assert!(page.text.contains("vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"llama-3-8b\"} 96.0\n"));
}

#[tokio::test]
async fn pages_answer_as_vllm_does() {
    let (engine, client) = (engine(false).await, http());
    let models = send(&client, &format!("{}/v1/models", engine.url()), None).await.unwrap().json();
    assert_eq!(models["data"][1]["id"], "sql");
    assert_eq!(models["data"][1]["parent"], "llama-3-8b");
    assert_eq!(send(&client, &format!("{}/version", engine.url()), None).await.unwrap().json()["version"], "0.32.0");
    assert_eq!(send(&client, &format!("{}/health", engine.url()), None).await.unwrap().text, "");
    let tokens = send(&client, &format!("{}/tokenize", engine.url()), Some(&json!({"prompt": "hello world"})))
        .await
        .unwrap()
        .json();
    assert_eq!(tokens["count"], 4);
    let unknown = json!({"model": "nobody", "messages": []});
    let got = chat(&engine, &unknown).await.unwrap();
    assert_eq!((got.status, got.json()["error"]["param"].clone()), (404, json!("model")));
    for path in ["/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions", "/v1/rerank"] {
        let got = send(&client, &format!("{}{path}", engine.url()), Some(&json!({"input": "x", "max_tokens": 2})))
            .await
            .unwrap();
        assert_eq!(got.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_last_request_is_kept_byte_for_byte() {
    let engine = engine(true).await;
    let body = json!({"messages": "  odd \u{1f6a2} ", "x": 1.5});
    chat(&engine, &body).await.unwrap();
    let last = engine.last_request().unwrap();
    assert_eq!(last.body, body.to_string());
    assert_eq!(last.path, "/v1/chat/completions");
    assert!(last.headers.contains_key("host"));
}

#[tokio::test]
async fn status_faults_are_openai_errors_and_end_after_their_count() {
    let (engine, client) = (engine(true).await, http());
    let command = json!({"fault": "status", "code": 503, "times": 1});
    assert_eq!(send(&client, &format!("{}/_lab/fault", engine.url()), Some(&command)).await.unwrap().status, 200);
    let got = chat(&engine, &hello(false)).await.unwrap();
    assert_eq!((got.status, got.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(got.json()["error"]["code"], 503);
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_refusing_engine_comes_back_on_its_port() {
    for fault in [Fault::Refuse, Fault::Crash] {
        let engine = engine(true).await;
        engine.set_fault(fault);
        let refused = async { while chat(&engine, &hello(false)).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
        engine.set_fault(Fault::None);
        let back = async { while chat(&engine, &hello(false)).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(5), back).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_cuts_a_running_stream_and_counts_it_as_aborted() {
    let engine = engine(false).await;
    let client = http();
    let mut body = hello(true);
    body["max_tokens"] = json!(10_000);
    body["ignore_eos"] = json!(true);
    let request = http::Request::post(format!("{}/v1/chat/completions", engine.url()))
        .body(Full::from(body.to_string()))
        .unwrap();
    let mut answer = client.request(request).await.unwrap();
    assert!(answer.frame().await.unwrap().is_ok());
    engine.set_fault(FaultCommand { for_ms: Some(1), ..Fault::Crash.into() });
    assert!(answer.into_body().collect().await.is_err());
    let counted = async {
        while engine.counters().aborted != 1 || engine.counters().in_progress != 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted).await.unwrap();
}

#[tokio::test]
async fn a_mid_stream_reset_lets_the_first_chunks_through() {
    for fast in [true, false] {
        let engine = engine(fast).await;
        engine.set_fault(FaultCommand { times: Some(1), ..Fault::ResetMidStream { after_chunks: 2 }.into() });
        let request = http::Request::post(format!("{}/v1/chat/completions", engine.url()))
            .body(Full::from(hello(true).to_string()))
            .unwrap();
        let mut answer = http().request(request).await.unwrap();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = answer.frame().await {
            text.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!(String::from_utf8(text).unwrap().matches("data: ").count(), 2, "fast: {fast}");
        assert!(chat(&engine, &hello(true)).await.unwrap().text.ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn a_plain_answer_is_cut_in_its_middle() {
    let engine = engine(true).await;
    engine.set_fault(Fault::ResetMidStream { after_chunks: 3 });
    assert!(chat(&engine, &hello(false)).await.is_err());
}

#[tokio::test]
async fn resets_and_hangs_come_before_headers() {
    let engine = engine(true).await;
    engine.set_fault(FaultCommand { times: Some(1), ..Fault::Reset.into() });
    assert!(chat(&engine, &hello(false)).await.is_err());
    engine.set_fault(FaultCommand { times: Some(1), ..Fault::Hang.into() });
    let hung = tokio::time::timeout(Duration::from_millis(50), chat(&engine, &hello(false))).await;
    assert!(hung.is_err());
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 200);
}

#[tokio::test]
async fn metrics_can_lie_and_swell() {
    let (engine, client) = (engine(true).await, http());
    let url = format!("{}/metrics", engine.url());
    engine.set_fault(Fault::MetricsNan);
    assert!(
        send(&client, &url, None)
            .await
            .unwrap()
            .text
            .contains("num_requests_running{engine=\"0\",model_name=\"llama-3-8b\"} NaN")
    );
    engine.set_fault(Fault::MetricsHuge { bytes: 5 << 20 });
    assert!(send(&client, &url, None).await.unwrap().text.len() > 5 << 20);
    engine.set_fault(Fault::MetricsHang);
    assert!(tokio::time::timeout(Duration::from_millis(50), send(&client, &url, None)).await.is_err());
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 200, "metrics faults leave traffic alone");
}

#[tokio::test]
async fn engines_listen_on_ipv6_too() {
    let options = EngineOptions { address: "[::1]:0".parse().unwrap(), fast: true, ..EngineOptions::default() };
    let engine = Engine::start(options).await.unwrap();
    assert!(engine.url().starts_with("http://[::1]:"));
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 200);
    engine.stop().await;
}

#[tokio::test]
async fn each_dialect_tells_running_and_waiting_at_its_own_path() {
    let expected = [
        (Dialect::Vllm, "/metrics", "vllm:kv_cache_usage_perc{"),
        (Dialect::VllmOld, "/metrics", "vllm:gpu_cache_usage_perc{"),
        (Dialect::Sglang, "/metrics", "sglang:num_running_reqs{"),
        (Dialect::Trtllm, "/prometheus/metrics", "trtllm_num_requests_running{"),
        (Dialect::Llamacpp, "/metrics", "llamacpp:requests_processing 0\n"),
        (Dialect::Tgi, "/metrics", "tgi_batch_current_size 0.0\n"),
        (Dialect::Xllm, "/metrics", "num_running_requests 0.0\n"),
    ];
    for (dialect, path, text) in expected {
        let engine = Engine::start(EngineOptions { dialect, ..EngineOptions::default() }).await.unwrap();
        let got = send(&http(), &format!("{}{path}", engine.url()), None).await.unwrap();
        assert!(got.status == 200 && got.text.contains(text), "{dialect:?}");
    }
    let silent = Engine::start(EngineOptions { dialect: Dialect::None, ..EngineOptions::default() }).await.unwrap();
    assert_eq!(send(&http(), &format!("{}/metrics", silent.url()), None).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_request_goes_to_the_rank_that_it_names() {
    let options = EngineOptions { ranks: 2, timing: Timing::quick(), ..EngineOptions::default() };
    let engine = Engine::start(options).await.unwrap();
    let request = http::Request::post(format!("{}/v1/chat/completions", engine.url()))
        .header("x-data-parallel-rank", "1")
        .body(Full::from(hello(false).to_string()))
        .unwrap();
    assert_eq!(http().request(request).await.unwrap().status(), 200);
    let page = send(&http(), &format!("{}/metrics", engine.url()), None).await.unwrap();
    let tokens = |rank: u8, count: &str| {
        format!("vllm:generation_tokens_total{{engine=\"{rank}\",model_name=\"llama-3-8b\"}} {count}\n")
    };
    assert!(page.text.contains(&tokens(0, "0.0")) && page.text.contains(&tokens(1, "5.0")));
}

#[tokio::test]
async fn an_adapter_is_served_once_loaded() {
    let (engine, client) = (engine(false).await, http());
    let mut body = hello(false);
    body["model"] = json!("dynamic");
    assert_eq!(chat(&engine, &body).await.unwrap().status, 404);
    let load = json!({"lora_name": "dynamic", "lora_path": "/adapters/dynamic"});
    let url = |path: &str| format!("{}{path}", engine.url());
    assert_eq!(send(&client, &url("/v1/load_lora_adapter"), Some(&load)).await.unwrap().status, 200);
    assert_eq!(chat(&engine, &body).await.unwrap().status, 200);
    let models = send(&client, &url("/v1/models"), None).await.unwrap().json();
    assert_eq!(models["data"][2]["id"], "dynamic");
    assert_eq!(send(&client, &url("/v1/unload_lora_adapter"), Some(&load)).await.unwrap().status, 200);
    assert_eq!(chat(&engine, &body).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_sleeping_engine_says_so_and_serves_nothing() {
    let (engine, client) = (engine(false).await, http());
    let url = |path: &str| format!("{}{path}", engine.url());
    send(&client, &url("/sleep"), Some(&json!({}))).await.unwrap();
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 503);
    let page = send(&client, &url("/metrics"), None).await.unwrap().text;
    assert!(page.contains("sleep_state=\"awake\"} 0.0\n") && page.contains("\"weights_offloaded\"} 1.0\n"));
    send(&client, &url("/wake_up"), Some(&json!({}))).await.unwrap();
    assert_eq!(chat(&engine, &hello(false)).await.unwrap().status, 200);
}

#[tokio::test]
async fn after_a_restart_counts_start_again() {
    let engine = engine(false).await;
    chat(&engine, &hello(false)).await.unwrap();
    engine.set_fault(FaultCommand { for_ms: Some(1), ..Fault::Restart.into() });
    let client = http();
    let page = async {
        loop {
            if let Ok(page) = send(&client, &format!("{}/metrics", engine.url()), None).await {
                break page.text;
            }
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(5), page).await.unwrap();
    assert!(page.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"llama-3-8b\"} 0.0\n"));
}

#[tokio::test]
async fn metrics_can_be_wrong_in_more_ways() {
    let (engine, client) = (engine(true).await, http());
    let url = format!("{}/metrics", engine.url());
    engine.set_fault(Fault::MetricsLie { value: 1e300 });
    let page = send(&client, &url, None).await.unwrap().text;
    assert!(page.contains("num_requests_waiting{engine=\"0\",model_name=\"llama-3-8b\"} 1e300\n"));
    engine.set_fault(Fault::MetricsStatus { code: 404 });
    assert_eq!(send(&client, &url, None).await.unwrap().status, 404);
    engine.set_fault(Fault::MetricsGarbage { bytes: 100 });
    assert!(send(&client, &url, None).await.is_err(), "not text");
    engine.set_fault(Fault::MetricsTrickle { bytes_per_second: 1000 });
    assert!(tokio::time::timeout(Duration::from_millis(200), send(&client, &url, None)).await.is_err());
}
