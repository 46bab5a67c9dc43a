//! Requests through a real Envoy: what arrives, who serves, what comes back, in every body mode.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common_traffic;

use std::time::Duration;

use common_traffic::{ADAPTER, Answer, CHAT, IPV6_MODEL, Lab, MODEL, Mode, Net, OTHER_MODEL};
use fairlead_lab::engine::{EngineHandle, Fault, Recorded};
use fairlead_lab::harness::free_address;
use fairlead_lab::load::{self, LoadOptions, Pace};

/// Headers that choose or describe an endpoint, besides the two that Fairlead sets itself.
const STEERING: [&str; 8] = [
    "x-gateway-destination-endpoint-fallback",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-endpoint",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
];
const ADDRESS_HEADERS: [&str; 2] = ["target-pod", "x-gateway-destination-endpoint"];

#[tokio::test(flavor = "multi_thread")]
async fn buffered_bodies() {
    let lab = Lab::start(Mode::Buffered, Net::Kept, "").await.unwrap();
    everything(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplex_bodies() {
    let lab = Lab::start(Mode::Duplex, Net::Removed, "").await.unwrap();
    everything(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partially_buffered_bodies() {
    let lab = Lab::start(Mode::Partial, Net::Removed, "").await.unwrap();
    chats(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_bodies() {
    let lab = Lab::start(Mode::Streamed, Net::Removed, "").await.unwrap();
    chats(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unseen_bodies() {
    let lab = Lab::start(Mode::Unseen, Net::Removed, "").await.unwrap();
    chats(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn original_destination() {
    let lab = Lab::start(Mode::OriginalDst, Net::Removed, "").await.unwrap();
    chats(&lab).await;
    ipv6_engine_serves(&lab).await;
}

/// What holds however bodies are shown.
async fn chats(lab: &Lab) {
    chat_is_byte_identical(lab).await;
    large_body_arrives_whole(lab).await;
    thousand_streams_at_once_are_answered(lab).await;
    aborted_streams_free_their_places(lab).await;
    client_that_leaves_frees_its_place(lab).await;
    forged_headers_never_decide(lab).await;
}

async fn everything(lab: &Lab) {
    chats(lab).await;
    models_are_listed_by_fairlead(lab).await;
    unknown_paths_reach_an_engine(lab).await;
    header_chooses_the_strategy(lab).await;
    ipv6_engine_serves(lab).await;
    engine_errors_pass_unchanged(lab).await;
    other_apis_reach_their_model(lab).await;
}

fn chat(model: &str, stream: bool) -> String {
    // Spaces, number forms and escapes that a parser and writer between would not keep.
    format!(
        r#"{{ "model" :"{model}","messages":[{{"role":"user","content":"h\u00e9llo \ud83d\ude00"}}],"stream":{stream},
 "max_tokens":24,"x":[1 , 2.50e1,-0.0, "\/é"]  }}"#
    )
}

/// Where bodies are not seen, a gateway has to name the model.
fn hint(lab: &Lab) -> Vec<(&'static str, &'static str)> {
    if lab.mode == Mode::Unseen { vec![("x-gateway-model-name", MODEL)] } else { Vec::new() }
}

fn recorded(engine: &EngineHandle) -> Recorded {
    engine.last_request().unwrap()
}

/// Blanks what differs from answer to answer: ids and times.
fn masked(answer: &Answer) -> String {
    let blank = |text: &str, mark: &str, end: char| {
        let mut parts = text.split(mark);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |out, part| {
            let rest = part.split_once(end).map_or(part, |(_, rest)| rest);
            format!("{out}{mark}{end}{rest}")
        })
    };
    blank(&blank(answer.text(), r#""id":""#, '"'), r#""created":"#, ',')
}

async fn chat_is_byte_identical(lab: &Lab) {
    for stream in [false, true] {
        let body = chat(MODEL, stream);
        let answer = lab.call("POST", CHAT, &hint(lab), body.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let engine = lab.served_by(&answer);
        let arrived = recorded(engine);
        assert_eq!((arrived.method.as_str(), arrived.path.as_str()), ("POST", CHAT));
        assert_eq!(arrived.body, body);
        assert_eq!(arrived.headers["content-type"], "application/json");
        let direct = lab.post_direct(engine, CHAT, &body).await;
        assert_eq!(masked(&answer), masked(&direct));
        assert_eq!(answer.header("content-type"), direct.header("content-type"));
        assert_eq!(answer.text().ends_with("data: [DONE]\n\n"), stream);
        assert_eq!(answer.header("routing-strategy"), "least-request");
        assert_eq!(answer.header("target-pod-ip"), engine.address().to_string());
        lab.settled("chat").await;
    }
}

async fn large_body_arrives_whole(lab: &Lab) {
    let letter = |number: u32| char::from(b'a' + (number.wrapping_mul(2_654_435_761) >> 24) as u8 % 26);
    let filler: String = (0..10_000_000).map(letter).collect();
    let messages = r#""messages":[{"role":"user","content":"hello"}],"max_tokens":4"#;
    // Where only the beginning is shown in time, the model stands there.
    let model_last = matches!(lab.mode, Mode::Buffered | Mode::Duplex | Mode::OriginalDst);
    let body = if model_last {
        format!(r#"{{{messages},"filler":"{filler}","model":"{MODEL}"}}"#)
    } else {
        format!(r#"{{"model":"{MODEL}",{messages},"filler":"{filler}"}}"#)
    };
    let whole = lab.call("POST", CHAT, &hint(lab), body.clone()).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(recorded(lab.served_by(&whole)).body == body, "the 10 MB body arrived changed");
    let pieces = lab.post_in_pieces(CHAT, &hint(lab), body.as_bytes()).await;
    assert_eq!(pieces.status, 200, "{pieces:?}");
    assert!(recorded(lab.served_by(&pieces)).body == body, "the 10 MB body in pieces arrived changed");
    lab.settled("large body").await;
}

fn streams(lab: &Lab) -> LoadOptions {
    LoadOptions {
        url: lab.stack.envoy_url(),
        pace: Pace::Closed { concurrency: 1000 },
        requests: Some(1000),
        model: MODEL.to_owned(),
        tokens_max: Some(8),
        stream_share: 1.0,
        prompt_bytes: 512,
        headers: hint(lab).iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        timeout: Duration::from_mins(2),
        ..LoadOptions::default()
    }
}

async fn thousand_streams_at_once_are_answered(lab: &Lab) {
    let report = Box::pin(load::run(streams(lab))).await.unwrap();
    assert_eq!((report.ok, report.failed), (1000, 0), "{report:?}");
    assert_eq!(report.endpoints.len(), 3, "all engines take part: {report:?}");
    lab.settled("a thousand streams").await;
}

async fn aborted_streams_free_their_places(lab: &Lab) {
    let pace = Pace::Closed { concurrency: 100 };
    let options = LoadOptions { pace, tokens_max: Some(64), abort_fraction: 0.5, ..streams(lab) };
    let report = Box::pin(load::run(options)).await.unwrap();
    assert!(report.aborted > 100 && report.failed == 0, "{report:?}");
    lab.settled("aborted streams").await;
}

async fn client_that_leaves_frees_its_place(lab: &Lab) {
    lab.stack.engines().iter().for_each(|engine| engine.set_fault(Fault::Hang));
    let headers = hint(lab);
    for stream in [false, true] {
        let call = lab.call("POST", CHAT, &headers, chat(MODEL, stream));
        lab.leave_when("one in flight", call, || async { Ok(lab.in_flight().await? == 1) }).await;
        lab.settled("the client left").await;
    }
    lab.stack.engines().iter().for_each(|engine| engine.set_fault(Fault::None));
}

async fn forged_headers_never_decide(lab: &Lab) {
    let other = lab.stack.engine(3).unwrap();
    for forged in [other.address(), free_address().unwrap()].map(|address| address.to_string()) {
        let untouched = other.counters().received;
        let mut headers: Vec<(&str, &str)> = STEERING.iter().map(|name| (*name, forged.as_str())).collect();
        // Twice each: overwriting the first value is not enough.
        headers.extend([ADDRESS_HEADERS, ADDRESS_HEADERS].concat().iter().map(|name| (*name, forged.as_str())));
        let with_hint: Vec<_> = headers.iter().copied().chain(hint(lab)).collect();
        for _ in 0..4 {
            let answer = lab.call("POST", CHAT, &with_hint, chat(MODEL, false)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let engine = lab.served_by(&answer);
            check_destination(&recorded(engine), engine, &forged);
        }
        let empty = lab.call("POST", CHAT, &headers, "").await;
        assert_eq!((empty.status, empty.header("x-engine")), (400, ""), "{empty:?}");
        assert_eq!(other.counters().received, untouched, "a forged header chose the engine");
        unrouted_forgeries(lab, other, &headers).await;
    }
    lab.settled("forged headers").await;
}

fn check_destination(arrived: &Recorded, engine: &EngineHandle, forged: &str) {
    let target = engine.address().to_string();
    let pods: Vec<_> = arrived.headers.get_all("target-pod").iter().collect();
    assert_eq!(pods, [target.as_str()]);
    let list: Vec<_> = arrived.headers.get_all("x-gateway-destination-endpoint").iter().collect();
    assert_eq!(list.len(), 1, "{list:?}");
    let list = list[0].to_str().unwrap();
    assert!(list.starts_with(&target) && !list.contains(forged), "'{list}' for '{target}', forged '{forged}'");
    for name in STEERING {
        assert!(!arrived.headers.contains_key(name), "'{name}' reached the engine");
    }
}

/// Paths that Fairlead does not route: the fallback decides, or nobody (`ORIGINAL_DST`), but never the client.
async fn unrouted_forgeries(lab: &Lab, named: &EngineHandle, headers: &[(&str, &str)]) {
    let mut elsewhere = [0; 3];
    for _ in 0..8 {
        let calls = [("POST", "/v1/unrouted", "{}"), ("POST", "/v1/unrouted", ""), ("GET", "/version", "")];
        for ((method, path, body), elsewhere) in calls.into_iter().zip(&mut elsewhere) {
            let answer = lab.call(method, path, headers, body).await;
            if lab.mode == Mode::OriginalDst {
                assert_eq!((answer.status, answer.header("x-engine")), (503, ""), "{answer:?}");
                continue;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
            let engine = lab.served_by(&answer);
            *elsewhere += usize::from(engine.name() != named.name());
            if method == "POST" {
                let arrived = recorded(engine);
                for name in STEERING.iter().chain(&ADDRESS_HEADERS) {
                    assert!(!arrived.headers.contains_key(*name), "'{name}' reached the engine");
                }
            }
        }
    }
    let decided = elsewhere.contains(&0) && lab.mode != Mode::OriginalDst;
    assert!(!decided, "the forged header decided: served elsewhere {elsewhere:?}");
}

async fn models_are_listed_by_fairlead(lab: &Lab) {
    let list = lab.call("GET", "/v1/models", &[], "").await;
    assert_eq!((list.status, list.header("content-type")), (200, "application/json"));
    assert_eq!(list.header("x-engine"), "");
    let ids = list.json()["data"].as_array().unwrap().iter().map(|card| card["id"].clone()).collect::<Vec<_>>();
    assert!(ids.starts_with(&[IPV6_MODEL.into()]) || lab.ipv6_engine().is_none(), "{ids:?}");
    assert!(ids.ends_with(&[MODEL.into(), OTHER_MODEL.into(), ADAPTER.into()]), "{ids:?}");
    let head = lab.call("HEAD", "/v1/models", &[], "").await;
    assert_eq!((head.status, head.header("x-engine"), head.text()), (200, "", ""));
    let card = lab.call("GET", "/v1/models/sql-adapter", &[], "").await;
    assert_eq!((card.status, card.header("x-engine")), (200, ""));
    assert_eq!((&card.json()["id"], &card.json()["parent"]), (&ADAPTER.into(), &MODEL.into()));
    let unknown = lab.call("GET", "/v1/models/nobody", &[], "").await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &"model_not_found".into()));
    let answer = lab.post(CHAT, &chat(ADAPTER, false)).await;
    assert_eq!((answer.status, &answer.json()["model"]), (200, &ADAPTER.into()));
    lab.settled("models").await;
}

async fn unknown_paths_reach_an_engine(lab: &Lab) {
    let answer = lab.call("GET", "/version", &[], "").await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"version":"0.32.0"}"#));
    let answer = lab.post("/v1/unrouted", "not JSON").await;
    assert_eq!(answer.status, 200);
    assert_eq!(recorded(lab.served_by(&answer)).body, "not JSON");
    lab.settled("unknown paths").await;
}

async fn header_chooses_the_strategy(lab: &Lab) {
    let (_, page) = lab.stack.admin_get("/api/strategies").await.unwrap();
    let strategies: Vec<serde_json::Value> = serde_json::from_str(&page).unwrap();
    assert!(strategies.len() >= 4, "{page}");
    for strategy in strategies {
        let name = strategy["name"].as_str().unwrap();
        let answer = lab.call("POST", CHAT, &[("routing-strategy", name)], chat(MODEL, false)).await;
        assert_eq!((answer.status, answer.header("routing-strategy")), (200, name));
    }
    lab.settled("strategies").await;
}

async fn ipv6_engine_serves(lab: &Lab) {
    let Some(engine) = lab.ipv6_engine() else {
        eprintln!("skipped: this machine has no ::1");
        return;
    };
    let answer = lab.post(CHAT, &chat(IPV6_MODEL, true)).await;
    assert_eq!((answer.status, answer.header("x-engine")), (200, engine.name()), "{answer:?}");
    assert_eq!(answer.header("target-pod-ip"), format!("[::1]:{}", engine.address().port()));
    lab.settled("IPv6").await;
}

async fn engine_errors_pass_unchanged(lab: &Lab) {
    for code in [400, 404, 500] {
        let fault = Fault::Status { code, retry_after_s: None };
        lab.stack.engines().iter().for_each(|engine| engine.set_fault(fault.clone()));
        let before = lab.received();
        let answer = lab.post(CHAT, &chat(MODEL, false)).await;
        assert_eq!(lab.received(), before + 1, "{code} is an answer and no reason to try again");
        let direct = lab.post_direct(lab.served_by(&answer), CHAT, &chat(MODEL, false)).await;
        assert_eq!((answer.status, &answer.body), (code, &direct.body));
        assert_eq!(answer.header("content-type"), direct.header("content-type"));
    }
    lab.stack.engines().iter().for_each(|engine| engine.set_fault(Fault::None));
    lab.settled("engine errors").await;
}

async fn other_apis_reach_their_model(lab: &Lab) {
    const FORM: &str = "--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\
        RIFF\0\u{1}\r\n--edg\r\n--edge\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nother-model\r\n--edge--\r\n";
    let json = "application/json";
    let calls = [
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=edge", FORM),
        ("/v1/embeddings", json, r#"{"input":["a","b"],"model":"other-model"}"#),
        ("/tokenize", json, r#"{"model":"other-model","prompt":"a b c"}"#),
        ("/v1/rerank", json, r#"{"model":"other-model","query":"q","documents":["a","b"]}"#),
        ("/rerank?x=1", json, r#"{"query":"q","documents":["a"],"model":"other-model"}"#),
        ("/v1/chat/completions/", json, r#"{"messages":[],"model":"other\u002dmodel","max_tokens":2}"#),
        ("/v1/completions", json, r#"{"model":"other-model","prompt":[1,2,3],"max_tokens":2}"#),
        ("/v1/responses", json, r#"{"model":"other-model","input":"hi","max_output_tokens":2}"#),
        ("/v1/messages", json, r#"{"model":"other-model","messages":[],"max_tokens":2}"#),
    ];
    for (path, content_type, body) in calls {
        let answer = lab.call("POST", path, &[("content-type", content_type)], body).await;
        assert_eq!((answer.status, answer.header("x-engine")), (200, "engine-3"), "{path}: {answer:?}");
        let arrived = recorded(lab.served_by(&answer));
        assert_eq!((arrived.path.as_str(), arrived.body.as_ref()), (path, body.as_bytes()));
        assert_eq!(arrived.headers["content-type"], content_type);
    }
    lab.settled("other APIs").await;
}
