//! What Fairlead answers itself, through a real Envoy: OpenAI's error shape, a reason in the access log, and no engine asked.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common_traffic;

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use common_traffic::{Answer, CHAT, Lab, MODEL, Mode, Net};
use fairlead_lab::harness::wait_until;
use serde_json::Value;

const BODY_BYTES_MAX: usize = 65_536;
const SETTINGS: &str = "limits: { body_bytes_max: 65536, body_timeout: 2s }\nrouting: { algorithm: round-robin, unknown_paths: not-found }";
/// Longest wait for the access log, which Envoy writes every ten seconds if nobody asks.
const LOG_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_buffered_bodies() {
    refusals(Mode::Buffered, Net::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_duplex_bodies() {
    refusals(Mode::Duplex, Net::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_partially_buffered_bodies() {
    refusals(Mode::Partial, Net::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_streamed_bodies() {
    refusals(Mode::Streamed, Net::Kept).await;
}

/// A request that is refused, and how. The name is its request id.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    /// `error.code`, and the reason in the access log.
    code: &'static str,
    param: Option<&'static str>,
    /// Part of `error.message`.
    message: &'static str,
}

impl Case {
    fn chat(name: &'static str, body: impl Into<Vec<u8>>, code: &'static str, message: &'static str) -> Self {
        let body = body.into();
        Self { name, path: CHAT, headers: Vec::new(), body, status: 400, code, param: None, message }
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }
}

fn good() -> String {
    format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"hello"}}],"max_tokens":2}}"#)
}

fn too_long() -> String {
    format!(r#"{{"model":"{MODEL}","messages":[],"filler":"{}"}}"#, "x".repeat(BODY_BYTES_MAX))
}

fn cases() -> Vec<Case> {
    let bodies = [
        Case::chat("unknown-model", r#"{"model":"nobody","messages":[]}"#, "model_not_found", "`nobody`")
            .status(404)
            .param("model"),
        Case::chat("no-model", r#"{"messages":[]}"#, "missing_required_parameter", "`model`").param("model"),
        Case::chat("malformed", "{\"model\":\"m\",\n \"a\": ]}", "invalid_json", "line 2 column 7"),
        Case::chat("truncated", r#"{"model":"llama-3-8b","messages":[{"#, "invalid_json", "line 1 column"),
        Case::chat("cut-in-a-string", r#"{"model":"llama-3-8b","messages":"hel"#, "invalid_json", "ends before"),
        Case::chat("behind-the-end", good() + "{}", "invalid_json", "line 1 column"),
        Case::chat("duplicate-model", r#"{"model":"llama-3-8b","model":"other-model"}"#, "duplicate_field", "`model`")
            .param("model"),
        Case::chat("escaped-duplicate", r#"{"model":"llama-3-8b","mod\u0065l":"x"}"#, "duplicate_field", "`model`")
            .param("model"),
        Case::chat("wrong-type", r#"{"model":7,"messages":[]}"#, "invalid_type", "must be").param("model"),
        Case::chat("wrong-stream", r#"{"model":"llama-3-8b","stream":"yes"}"#, "invalid_type", "must be")
            .param("stream"),
        Case::chat("invalid-utf8", b"{\"model\":\"llama-\xff\"}".as_slice(), "invalid_utf8", "at byte 16"),
        Case::chat("not-json", "model=llama-3-8b&stream=true", "invalid_json", "line 1 column 1"),
        Case::chat("an-array", r#"["llama-3-8b"]"#, "invalid_body", "object"),
        Case::chat("empty", "", "invalid_body", "empty"),
        Case::chat("blank", " \n ", "invalid_body", "empty"),
        Case::chat(
            "steering",
            r#"{"model":"llama-3-8b","kv_transfer_params":{"x":1}}"#,
            "unsupported_field",
            "kv_tran",
        )
        .param("kv_transfer_params"),
        Case::chat("too-long", too_long(), "request_too_large", "65536 bytes").status(413),
        Case::chat("far-too-long", " ".repeat(10 << 20), "request_too_large", "65536 bytes").status(413),
        Case::chat("header-in-a-name", r#"{"model":"x\r\ntarget-pod: 1.2.3.4:5\u00e9"}"#, "model_not_found", "target")
            .status(404)
            .param("model"),
        Case::chat("no-form", good(), "invalid_content_type", "multipart").path("/v1/audio/transcriptions"),
    ];
    let heads = [
        Case::chat("unknown-strategy", good(), "unknown_strategy", "least-request")
            .header("routing-strategy", "fastest"),
        Case::chat("compressed", good(), "unsupported_content_encoding", "gzip")
            .status(415)
            .header("content-encoding", "gzip"),
        Case::chat("unknown-path", good(), "unknown_path", "`/v1/unrouted`").status(404).path("/v1/unrouted"),
    ];
    let heads = heads.into_iter().map(|case| match case.name {
        "unknown-strategy" => case.param("routing-strategy"),
        _ => case,
    });
    bodies.into_iter().chain(heads).collect()
}

async fn refusals(mode: Mode, net: Net) {
    let lab = Lab::start(mode, net, SETTINGS).await.unwrap();
    let cases = cases();
    for case in &cases {
        let mut headers = vec![("x-request-id", case.name)];
        headers.extend(&case.headers);
        let announced = lab.call("POST", case.path, &headers, case.body.clone()).await;
        check(case, &announced);
        let pieces = lab.post_in_pieces(case.path, &headers, &case.body).await;
        check(case, &pieces);
    }
    let unrouted = lab.call("GET", "/version", &[("x-request-id", "unknown-get")], "").await;
    assert_eq!((unrouted.status, &unrouted.json()["error"]["code"]), (404, &"unknown_path".into()));
    assert_eq!(lab.received(), 0, "an engine was asked");
    lab.settled("refusals").await;
    let answer = lab.post(CHAT, &good()).await;
    assert_eq!((answer.status, answer.header("routing-strategy")), (200, "round-robin"), "{answer:?}");
    longest_body_passes(&lab).await;
    if mode == Mode::Duplex {
        unfinished_bodies_are_not_kept(&lab).await;
    }
    errors_carry_their_header(&lab).await;
    no_endpoints_is_told(&lab).await;
    let mut reasons: HashMap<&str, &str> = cases.iter().map(|case| (case.name, case.code)).collect();
    reasons.insert("unknown-get", "unknown_path");
    logged(&lab, &reasons).await;
}

/// `AIBrix`'s headers, by which clients of its gateway tell errors apart.
async fn errors_carry_their_header(lab: &Lab) {
    let malformed = lab.post(CHAT, "{").await;
    assert_eq!(malformed.header("x-error-request-body-processing"), "true");
    let unknown = lab.post(CHAT, r#"{"model":"x\r\ntarget-pod: 1\u00e9"}"#).await;
    assert_eq!((unknown.header("x-error-no-model-backends"), unknown.header("target-pod")), ("x??target-pod: 1?", ""));
    let strategy = lab.call("POST", CHAT, &[("routing-strategy", "fastest")], good()).await;
    assert_eq!(strategy.header("x-error-routing"), "true");
    for name in ["least-request", "power-of-two", "random", "round-robin"] {
        assert!(strategy.text().contains(name), "{strategy:?}");
    }
}

/// Comes last: it takes the endpoints away.
async fn no_endpoints_is_told(lab: &Lab) {
    lab.stack.write_endpoints("[]").unwrap();
    let gone = || async { lab.stack.admin_get("/api/endpoints").await.unwrap().1.contains(r#""endpoints":[]"#) };
    wait_until("no endpoints", LOG_DEADLINE, gone).await.unwrap();
    let answer = lab.post(CHAT, &good()).await;
    assert_eq!((answer.status, answer.header("content-type")), (503, "application/json"), "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "no_ready_endpoints");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0, "{answer:?}");
}

async fn longest_body_passes(lab: &Lab) {
    let mut body = good();
    body.push_str(&" ".repeat(BODY_BYTES_MAX - body.len()));
    for answer in [lab.post(CHAT, &body).await, lab.post_in_pieces(CHAT, &[], body.as_bytes()).await] {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    lab.settled("longest body").await;
}

/// Where Envoy hands bodies over as they arrive, nobody but us waits for the end.
async fn unfinished_bodies_are_not_kept(lab: &Lab) {
    let call = || lab.post_unfinished(CHAT, &[], r#"{"model":"#);
    lab.leave_when("body held", call(), || async { Ok(lab.bytes_held().await? > 0) }).await;
    lab.settled("the client left").await;
    let late = call().await;
    assert_eq!((late.status, &late.json()["error"]["code"]), (408, &"request_timeout".into()), "{late:?}");
    lab.settled("body timeout").await;
}

fn check(case: &Case, answer: &Answer) {
    let name = case.name;
    assert_eq!(answer.status, case.status, "{name}: {answer:?}");
    assert_eq!((answer.header("content-type"), answer.header("x-engine")), ("application/json", ""), "{name}");
    let page = answer.json();
    let error = page["error"].as_object().unwrap();
    let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!((page.as_object().unwrap().len(), keys), (1, vec!["code", "message", "param", "type"]), "{name}");
    assert_eq!(error["code"], case.code, "{name}: {page}");
    assert_eq!(error["type"], "invalid_request_error", "{name}");
    assert_eq!(error["param"], case.param.map_or(Value::Null, Value::from), "{name}: {page}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(case.message), "{name}: {message}");
}

/// Each refusal is in Envoy's access log with its reason, and none of them reached an engine.
async fn logged(lab: &Lab, reasons: &HashMap<&str, &str>) {
    let path = lab.stack.folder().join("envoy.log");
    let lines = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = entries.filter(|entry| reasons.contains_key(entry["request_id"].as_str().unwrap_or_default()));
        ours.collect::<Vec<_>>()
    };
    let all = reasons.len() * 2 - 1;
    lab.flush_access_log().await;
    let waited = wait_until("access log", LOG_DEADLINE, || std::future::ready(lines().len() >= all)).await;
    waited.unwrap();
    for entry in lines() {
        let id = entry["request_id"].as_str().unwrap();
        assert_eq!(entry["reason"], reasons[id], "{entry}");
        assert_eq!(entry["served"], Value::Null, "{entry}");
    }
}

fn checked(algorithm: &str) -> (bool, String) {
    let folder = std::env::temp_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_fairlead"))
        .arg("check")
        .env("ROUTING_ALGORITHM", algorithm)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn the_environment_names_the_default_strategy() {
    let (sound, text) = checked("power-of-two");
    assert!(sound && text.contains("power-of-two") && text.contains("ROUTING_ALGORITHM"), "{text}");
    let (sound, text) = checked("fastest");
    assert!(!sound && text.contains("\"fastest\"") && text.contains("least-request"), "{text}");
}
