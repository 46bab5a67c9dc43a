//! Questions to servers that answer, fail and dawdle.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec};
use crate::index::HeldIndex;
use crate::openai::{Api, head};
use crate::state::{Change, Reader, Registry, SourceId};

use super::lmcache::{of_controller, of_coordinator};
use super::*;

/// Runs a story beside a server and a worker.
async fn beside<F: Future<Output = ()>>(
    routes: axum::Router,
    configure: impl FnOnce(&mut Config, SocketAddr),
    story: impl FnOnce(Arc<Lookup>, Reader) -> F,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = Config::default();
    configure(&mut config, address);
    let mut registry = Registry::new();
    let mut spec = EndpointSpec::at(address);
    spec.labels.insert("lmcache-instance".to_owned(), "one".to_owned());
    registry.apply([Change::Replace(SourceId(0), vec![spec])]).1.unwrap();
    let (reader, index) = (registry.reader(), HeldIndex::new(1 << 20, Duration::from_secs(1)));
    let (lookup, worker) = Worker::new(index, &config, &reader, &Clock::start()).unwrap();
    let served = async { axum::serve(listener, routes).await };
    let told = tokio::time::timeout(Duration::from_secs(20), story(lookup, reader));
    tokio::select! {
        _ = served => panic!("the server ended"),
        () = run(worker, CancellationToken::new()) => panic!("the worker ended"),
        done = told => done.unwrap(),
    }
}

fn begin(lookup: &Lookup, body: &Value) -> Begun {
    let body = body.to_string();
    let head = head::read(Api::Chat, None, body.as_bytes()).unwrap();
    let mut key = Key::of_model("m");
    key.update(head.prompt.unwrap().get().as_bytes());
    let (key, body) = (Some(key.digest()), body.as_bytes());
    lookup.begin(&Request { api: Api::Chat, model: "m", head: &head, body, key, may_wait: true })
}

async fn ask(lookup: &Lookup, body: &Value) -> Result<Found, Outcome> {
    match begin(lookup, body) {
        Begun::Known(found, _) => Ok(found),
        Begun::Cannot(outcome) => Err(outcome),
        Begun::Waits(pending, wait) => {
            poll_fn(|context| wait.poll_resumed(context)).await;
            pending.take()
        }
    }
}

fn chat(text: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": text }] })
}

#[tokio::test]
async fn token_ids_are_asked_for_once_and_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let tokenize = move |Json(body): Json<Value>| async move {
        count.fetch_add(1, Relaxed);
        let text = body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        Json(json!({ "count": text.len(), "max_model_len": 9, "tokens": text.bytes().collect::<Vec<u8>>() }))
    };
    let routes = axum::Router::new().route("/tokenize", post(tokenize));
    Box::pin(beside(
        routes,
        |config, _| config.tokenizer.timeout = Duration::from_secs(5),
        async |lookup, _| {
            for _ in 0..3 {
                assert_eq!(&*ask(&lookup, &chat("abc")).await.unwrap().tokens, &[97, 98, 99]);
            }
            let odd = json!({ "model": "m", "chat_template_kwargs": { "thinking": false },
            "messages": [{ "role": "user", "content": "abc" }] });
            ask(&lookup, &odd).await.unwrap();
            assert_eq!(asked.load(Relaxed), 2, "another template is another prompt");
            assert_eq!((lookup.status().times(Outcome::Asked), lookup.status().times(Outcome::Kept)), (2, 2));
            let image = json!({ "model": "m", "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": "https://pictures.test/1" } }] }] });
            assert_eq!(ask(&lookup, &image).await.unwrap_err(), Outcome::Unsuited);
        },
    ))
    .await;
}

#[tokio::test]
async fn who_refuses_bad_requests_goes_on_being_asked() {
    let tokenize = async |Json(body): Json<Value>| {
        let is_bad = body["messages"][0]["content"] == "bad";
        if is_bad { Err(StatusCode::BAD_REQUEST) } else { Ok(Json(json!({ "tokens": [1, 2, 3] }))) }
    };
    let routes = axum::Router::new().route("/tokenize", post(tokenize));
    Box::pin(beside(
        routes,
        |_, _| (),
        async |lookup, _| {
            for _ in 0..4 {
                assert_eq!(ask(&lookup, &chat("bad")).await.unwrap_err(), Outcome::Failed);
            }
            assert_eq!(ask(&lookup, &chat("good")).await.unwrap().tokens.len(), 3);
        },
    ))
    .await;
}

#[tokio::test]
async fn who_dawdles_is_not_waited_for_and_then_left_alone() {
    let tokenize = || async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        StatusCode::OK
    };
    let routes = axum::Router::new().route("/tokenize", post(tokenize));
    Box::pin(beside(
        routes,
        |config, _| config.tokenizer.timeout = Duration::from_millis(20),
        async |lookup, _| {
            for text in ["a", "b", "c"] {
                assert_eq!(ask(&lookup, &chat(text)).await.unwrap_err(), Outcome::Late);
            }
            assert_eq!(ask(&lookup, &chat("d")).await.unwrap_err(), Outcome::Nobody);
        },
    ))
    .await;
}

#[tokio::test]
async fn lmcache_tells_which_endpoint_has_how_much() {
    let tokenize = || async { Json(json!({ "tokens": [1, 2, 3, 4] })) };
    let directory = |Json(body): Json<Value>| async move {
        assert_eq!(body["token_ids"], json!([1, 2, 3, 4]));
        Json(json!({ "chunks": 2, "results": [
            { "placements": [{ "instance_id": "one" }, { "instance_id": "fleet", "shared": true }], "token_ids": [1, 2] },
            { "placements": [{ "instance_id": "one" }], "token_ids": [3, 4] }] }))
    };
    let routes = axum::Router::new()
        .route("/tokenize", post(tokenize))
        .route("/directory/lookup", post(directory))
        .route("/instances", get(|| async { Json(json!({ "instances": [] })) }));
    let configure = |config: &mut Config, address: SocketAddr| {
        config.lmcache.coordinator = Some(format!("http://{address}/"));
        config.lmcache.timeout = Duration::from_secs(5);
        config.tokenizer.timeout = Duration::from_secs(5);
    };
    Box::pin(beside(routes, configure, async |lookup, reader| {
        let found = ask(&lookup, &chat("abc")).await.unwrap();
        let id = reader.load().endpoints()[0].id;
        assert_eq!(found.also, [(id, 4)]);
        assert_eq!(lookup.status().lmcache_ok.load(Relaxed), 1);
    }))
    .await;
}

#[test]
fn an_instance_counts_up_to_its_first_gap() {
    let chunk = |instances: &[&str]| {
        let placements: Vec<Value> = instances.iter().map(|id| json!({ "instance_id": id, "tier": "l1" })).collect();
        json!({ "placements": placements, "token_ids": vec![7; 256] })
    };
    let answer = json!({ "chunks": 3, "results": [chunk(&["a", "b"]), chunk(&["a"]), chunk(&["a", "b", "c"])] });
    let told = of_coordinator(answer.to_string().as_bytes()).unwrap();
    assert_eq!(told, [("a".to_owned(), 768), ("b".to_owned(), 256)]);
    let answer = json!({ "event_id": "Lookup1", "layout_info": { "a": ["LocalCPUBackend", 512] } });
    assert_eq!(of_controller(answer.to_string().as_bytes()).unwrap(), [("a".to_owned(), 512)]);
    assert_eq!((of_coordinator(b"{}"), of_controller(b"no")), (None, None));
}

#[test]
fn every_form_of_an_answer_with_one_prompt_is_read() {
    let read = |value: Value| remote::read(value.to_string().as_bytes());
    assert_eq!(read(json!({ "count": 2, "tokens": [1, 2], "token_strs": null })), Some(vec![1, 2]));
    assert_eq!(read(json!({ "request_id": "x", "token_ids": [3], "features": null })), Some(vec![3]));
    assert_eq!(read(json!([{ "token_ids": [4] }])), Some(vec![4]));
    assert_eq!(read(json!([{ "token_ids": [4] }, { "token_ids": [5] }])), None);
    assert_eq!(read(json!({ "tokens": [[1], [2]] })), None);
}
