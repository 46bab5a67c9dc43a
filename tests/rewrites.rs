//! `InferenceModelRewrite`s through a real Envoy: what engines get, and what clients are told.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fairlead_lab::engine::{Capacity, EngineOptions};
use fairlead_lab::harness::{Stack, StackBuilder};
use fairlead_lab::kube::{FakeApi, Pod, custom};
use futures_util::stream;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use common_life::{Answer, DUPLEX, QUICKSTART, engine, fairlead, metric, post_body, settle, stack_knows};

/// What clients call it, and what engines do.
const PUBLIC: &str = "the \"public\" model";
const SERVED: [&str; 2] = ["base/a", "base/b"];

fn config(api: &FakeApi) -> String {
    format!(
        "listen:\n  ext_proc: unix:{{ext_proc}}\n  admin: \"{{admin}}\"\nrouting: {{ seed: 7 }}\n\
         envoy: {{ eds_file: \"{{eds}}\" }}\n\
         discovery: {{ kubernetes: {{ server: \"{}\", pools: default/chat }} }}\n",
        api.url()
    )
}

/// An Envoy configuration of the repository with some of its lines changed.
fn envoy(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn pool(ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|number| json!({ "number": number })).collect();
    let spec = json!({ "selector": { "matchLabels": { "app": "chat" } }, "targetPorts": ports });
    custom("InferencePool", "default", "chat", &spec, &Value::Null)
}

/// A pool whose requests for one model are split over two others, three to one, and for `alias` go to the first of them.
async fn cluster() -> FakeApi {
    let api = FakeApi::start(&[]).await.unwrap();
    api.put("inferencepools", pool(&[1]));
    let matches = |name: &str| json!([{ "model": { "type": "Exact", "value": name } }]);
    let rules = json!([
        { "matches": matches(PUBLIC), "targets": [
            { "weight": 3, "modelRewrite": SERVED[0] }, { "weight": 1, "modelRewrite": SERVED[1] },
        ] },
        { "matches": matches("alias"), "targets": [{ "modelRewrite": SERVED[0] }] },
    ]);
    let spec = json!({ "poolRef": { "name": "chat" }, "rules": rules });
    api.put("inferencemodelrewrites", custom("InferenceModelRewrite", "default", "split", &spec, &Value::Null));
    api
}

/// Envoy, Fairlead and engines behind the pool, at `ports` besides those of the stack.
async fn start(envoy: &str, engines: usize, ports: &[u16]) -> (FakeApi, Stack) {
    let api = cluster().await;
    let options = EngineOptions {
        models: SERVED.map(str::to_owned).to_vec(),
        record: true,
        model_len_max: 1_000_000,
        capacity: Capacity { step_tokens_max: 100_000, ..engine().capacity },
        ..engine()
    };
    let builder = StackBuilder::quickstart(fairlead(config(&api)), envoy).engines(engines, &options);
    let stack = Box::pin(builder.start()).await.unwrap();
    let ports: Vec<_> = stack.engines().iter().map(|engine| engine.address().port()).chain(ports.to_vec()).collect();
    api.put("inferencepools", pool(&ports));
    let pod = Pod { model: None, ..Pod::new("chat-0", SocketAddr::from(([127, 0, 0, 1], 1)), "") };
    api.put_pod(&pod.label("app", "chat"));
    stack_knows(&stack, ports.len()).await;
    (api, stack)
}

fn request(model: &str, prompt: &str, stream: bool) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":20,  "model" : {model} ,"stream":{stream},"top_p":1.50}}"#
    )
}

async fn ask(stack: &Stack, body: String) -> Answer {
    post_body(&stack.envoy_url(), &[], body).await.finish().await
}

#[derive(Deserialize)]
struct Named {
    model: String,
}

/// The models that an answer names, and the answer without them.
fn models(answer: &Answer, stream: bool) -> (Vec<String>, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    let texts: Vec<_> = if stream {
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter(|line| *line != "[DONE]").collect()
    } else {
        vec![text]
    };
    let models = texts.iter().map(|text| serde_json::from_str::<Named>(text).unwrap().model);
    (models.collect(), text.to_owned())
}

/// Asks for the rewritten model in every way, and holds what the engines got against what was sent. Gives the models that
/// the answers named.
async fn story(stack: &Stack) -> Vec<String> {
    let (mut named, mut got) = (Vec::new(), BTreeMap::new());
    let long = "a long story ".repeat(17_000);
    for round in 0..40 {
        let stream = round % 2 == 0;
        let model =
            if round % 4 < 2 { r#""the \"public\" model""# } else { r#""\u0074he \u0022public\u0022 m\u006fdel""# };
        let prompt = if round < 36 { "hello" } else { &long };
        let sent = request(model, prompt, stream);
        let answer = ask(stack, sent.clone()).await;
        let (models, text) = models(&answer, stream);
        assert!(models.len() > if stream { 20 } else { 0 });
        assert!(!stream || text.ends_with("data: [DONE]\n\n"), "{text}");
        let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        assert!(length.is_none_or(|length| length == text.len()), "{answer:?}");
        named.extend(models);

        let served = stack.engines().iter().find(|engine| engine.name() == answer.engine()).unwrap();
        let received = served.last_request().unwrap();
        let (name, expected) = SERVED
            .map(|name| (name, sent.replace(model, &format!("\"{name}\""))))
            .into_iter()
            .find(|(_, expected)| received.body == expected.as_bytes())
            .unwrap();
        let length = received.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert!(length.is_none_or(|length| length == expected.len().to_string()));
        *got.entry(name).or_insert(0) += 1;
    }
    eprintln!("engines got {got:?}, answers named {:?}", named.iter().collect::<std::collections::BTreeSet<_>>());
    assert!(got.get(SERVED[0]) > got.get(SERVED[1]) && got.contains_key(SERVED[1]), "three to one: {got:?}");
    named
}

/// Requests that nobody rewrites cost no message more.
async fn others_are_left_alone(stack: &Stack) {
    let before = metric(stack, "fairlead_response_pieces_total").await;
    for stream in [false, true] {
        let answer = ask(stack, request("\"base/b\"", "hello", stream)).await;
        assert!(models(&answer, stream).0.iter().all(|model| model == SERVED[1]));
        assert_eq!(answer.header("content-length").is_some(), !stream);
    }
    assert_eq!(metric(stack, "fairlead_response_pieces_total").await, before);
}

async fn finish(stack: Stack) {
    settle(&stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_buffered_request_is_rewritten_and_its_answer_names_what_was_asked_for() {
    for mode in ["BUFFERED", "BUFFERED_PARTIAL"] {
        let text = envoy(QUICKSTART, &[("request_body_mode: BUFFERED", &format!("request_body_mode: {mode}"))]);
        let (_api, stack) = Box::pin(start(&text, 2, &[])).await;
        let named = story(&stack).await;
        assert!(named.iter().all(|name| name == PUBLIC), "{mode}: {named:?}");
        others_are_left_alone(&stack).await;
        finish(stack).await;
    }
}

#[tokio::test]
async fn in_duplex_mode_both_ways_a_request_is_rewritten_and_its_answer_names_what_was_asked_for() {
    let both = envoy(DUPLEX, &[("response_body_mode: NONE", "response_body_mode: FULL_DUPLEX_STREAMED")]);
    let (_api, stack) = Box::pin(start(&both, 2, &[])).await;
    let named = story(&stack).await;
    assert!(named.iter().all(|name| name == PUBLIC), "{named:?}");
    finish(stack).await;
}

#[tokio::test]
async fn where_answers_are_not_shown_they_name_what_served() {
    let refusing = envoy(QUICKSTART, &[("allow_mode_override: true", "allow_mode_override: false")]);
    for text in [&refusing, DUPLEX] {
        let (_api, stack) = Box::pin(start(text, 2, &[])).await;
        let named = story(&stack).await;
        assert!(named.iter().all(|name| SERVED.contains(&name.as_str())), "{named:?}");
        others_are_left_alone(&stack).await;
        finish(stack).await;
    }
}

#[tokio::test]
async fn an_answer_that_envoy_shows_by_itself_names_what_was_asked_for() {
    for mode in ["BUFFERED", "STREAMED", "BUFFERED_PARTIAL"] {
        let text = envoy(QUICKSTART, &[("response_body_mode: NONE", &format!("response_body_mode: {mode}"))]);
        let (_api, stack) = Box::pin(start(&text, 2, &[])).await;
        let named = story(&stack).await;
        assert!(named.iter().all(|name| name == PUBLIC), "{mode}: {named:?}");
        finish(stack).await;
    }
}

/// An engine that answers with what the request's headers say, a few bytes at a time.
async fn dribble() -> (u16, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = async |headers: HeaderMap| {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let Some(text) = header("x-text") else {
            return http::Response::builder().status(404).body(Body::empty()).unwrap();
        };
        let text = text.replace("<NL>", "\n");
        let mut response = http::Response::builder().header("content-type", header("x-type").unwrap());
        if let Some(encoding) = header("x-encoding") {
            response = response.header("content-encoding", encoding);
        }
        if header("x-fail").is_some() {
            response = response.status(422);
        }
        if header("x-length").is_some() {
            response = response.header("content-length", text.len());
        }
        let pieces: Vec<_> = text.into_bytes().chunks(3).map(Bytes::copy_from_slice).collect();
        let body = stream::unfold(pieces.into_iter(), async |mut pieces| {
            let piece = pieces.next()?;
            // The pace at which it writes: each piece leaves by itself.
            tokio::time::sleep(Duration::from_millis(3)).await;
            Some((Ok::<_, std::io::Error>(piece), pieces))
        });
        response.body(Body::from_stream(body)).unwrap()
    };
    let app = Router::new().fallback(answer);
    let serving = TaskTracker::new().spawn(async { axum::serve(listener, app).await.unwrap() });
    (port, AbortOnDropHandle::new(serving))
}

#[tokio::test]
async fn an_answer_in_small_pieces_changes_in_its_model_alone_and_one_that_we_cannot_read_not_at_all() {
    let (port, _engine) = dribble().await;
    let both = envoy(DUPLEX, &[("response_body_mode: NONE", "response_body_mode: FULL_DUPLEX_STREAMED")]);
    let plain = r#"{"id":"base/a","choices":[{"message":{"content":"\"model\":\"base/a\""}}],"model":"base/a"}"#;
    let events = "event: message_start<NL>data: {\"message\":{\"id\":\"base/a\",\"model\":\"base/a\"}}<NL><NL>\
        data: {\"model\":\"base\\/a\",\"choices\":[]}<NL><NL>data: [DONE]<NL><NL>";
    for text in [QUICKSTART, &both] {
        let (_api, stack) = Box::pin(start(text, 0, &[port])).await;
        for (kind, text, more, is_restored) in [
            ("application/json", plain, "x-length", true),
            ("application/json", plain, "x-none", true),
            ("text/event-stream", events, "x-none", true),
            ("application/json", r#"{"model":"base/"#, "x-length", true),
            ("application/json", plain, "x-encoding", false),
            ("application/json", plain, "x-fail", false),
            ("text/plain", plain, "x-length", false),
        ] {
            let headers = [("x-type", kind), ("x-text", text), (more, "gzip")];
            let answer =
                post_body(&stack.envoy_url(), &headers, request("\"alias\"", "hello", false)).await.finish().await;
            let text = text.replace("<NL>", "\n");
            let changed = text.replace(r#""model":"base/a""#, r#""model":"alias""#).replace(r"base\/a", "alias");
            assert_eq!(answer.text(), if is_restored { changed } else { text }, "{kind} {more}");
        }
        finish(stack).await;
    }
}
