//! Two real vLLMs that publish KV events: what Fairlead says is cached of each prompt, beside what the engine says of it
//! afterwards. Opt-in: `make test-vllm` installs vLLM and runs this.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common_real;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use common_real::vllm;
use fairlead_lab::harness::{Child, ExtProc, Folder, Stack, StackBuilder, free_address, wait_until};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const QUICKSTART: &str = include_str!("../envoy/quickstart.yaml");
const CONFIG: &str = "\
listen: { ext_proc: \"unix:{ext_proc}\", admin: \"{admin}\" }
routing: { algorithm: prefix-cache, explain: true, decision_timeout: 10s }
kv_events: { enabled: true }
tokenizer: { timeout: 5s }
discovery: { file: { path: \"{endpoints}\" } }
envoy: { eds_file: \"{eds}\" }
";
const START: Duration = Duration::from_mins(8);
const SETTLE: Duration = Duration::from_mins(1);
/// Conversations, and how often each goes on.
const CONVERSATIONS: usize = 6;
const TURNS: usize = 5;

/// An engine with 47 usable blocks of 32 tokens, so that it has to evict.
fn start_engine(number: usize, address: SocketAddr, folder: &Folder) -> Child {
    // On unix sockets and loopback: a publisher on TCP would listen on every interface.
    let events = json!({ "enable_kv_cache_events": true, "publisher": "zmq", "topic": "kv",
        "endpoint": format!("ipc://{}", folder.join(&format!("events-{number}.sock")).display()),
        "replay_endpoint": format!("tcp://{}", free_address().unwrap()) });
    let (port, events) = (address.port().to_string(), events.to_string());
    let command = vllm::command("48", "4");
    let more =
        ["--enable-prompt-tokens-details", "--kv-events-config", &events, "--host", "127.0.0.1", "--port", &port];
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(more).collect();
    Child::spawn("vLLM", Path::new("/usr/bin/env"), &arguments, &folder.join(&format!("vllm-{number}.log"))).unwrap()
}

async fn metric(stack: &Stack, name: &str) -> f64 {
    let (_, page) = stack.admin_get("/metrics").await.unwrap();
    let value = |line: &str| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok();
    page.lines().filter_map(value).sum()
}

/// One turn: the prompt's tokens by both accounts, what was said to be cached where it went, what was, and the answer.
struct Turn {
    told: Option<u64>,
    predicted: Option<u64>,
    tokens: u64,
    cached: u64,
    text: String,
    home: String,
}

async fn chat(url: &str, messages: &[Value]) -> Turn {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = json!({ "model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0 });
    let request = http::Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .header("x-fairlead-explain", "1")
        .body(Full::from(body.to_string()))
        .unwrap();
    let response = tokio::time::timeout(SETTLE, client.request(request)).await.unwrap().unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.status, 200, "{body:?}");
    let explained: Value = serde_json::from_slice(head.headers.get("x-fairlead-explain").unwrap().as_bytes()).unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let notes: Vec<&str> =
        explained.get("notes").unwrap().as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let noted_behind = |mark: &str| {
        let behind = notes.iter().find_map(|note| Some(note.split_once(mark)?.1))?;
        behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let usage = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    Turn {
        told: noted_behind(": of "),
        predicted: noted_behind("tokens cached there: "),
        tokens: usage("/usage/prompt_tokens"),
        cached: usage("/usage/prompt_tokens_details/cached_tokens"),
        text: answer.pointer("/choices/0/message/content").and_then(Value::as_str).unwrap_or_default().to_owned(),
        home: head.headers.get("target-pod-ip").unwrap().to_str().unwrap().to_owned(),
    }
}

#[tokio::test]
#[ignore = "needs a real vLLM: make test-vllm"]
async fn what_is_said_to_be_cached_is_cached() {
    let folder = Folder::temporary().unwrap();
    let addresses = [free_address().unwrap(), free_address().unwrap()];
    let mut engines: Vec<Child> =
        addresses.iter().enumerate().map(|(number, address)| start_engine(number, *address, &folder)).collect();
    for (engine, address) in engines.iter_mut().zip(addresses) {
        engine.wait_ready(&format!("http://{address}/health"), START).await.unwrap();
    }
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    let [first, second] = addresses;
    let entry = |address: SocketAddr| format!("- {{ address: \"{address}\", models: [tiny] }}\n");
    let list = entry(first) + &entry(second);
    let ext_proc = ExtProc::Fairlead { binary, config: CONFIG.to_owned() };
    let stack = StackBuilder::quickstart(ext_proc, QUICKSTART).endpoints(list).start().await.unwrap();
    let all_known = || async { metric(&stack, "fairlead_kv_caches_complete").await >= 2.0 };
    wait_until("both caches known", SETTLE, all_known).await.unwrap();

    let mut conversations: Vec<Vec<Value>> = (0..CONVERSATIONS).map(|_| Vec::new()).collect();
    let (mut right, mut errors, mut all, mut cached) = (0, 0, 0, 0);
    eprintln!("turn conversation engine prompt predicted cached");
    for turn in 0..TURNS {
        for (at, messages) in conversations.iter_mut().enumerate() {
            let words = format!("subject {at} in its part {turn}, ").repeat(5);
            messages.push(json!({ "role": "user", "content": words }));
            let now = chat(&stack.envoy_url(), messages).await;
            eprintln!("{turn} {at} {} {} {:?} {}", now.home, now.tokens, now.predicted, now.cached);
            assert_eq!(now.told, Some(now.tokens), "the engine and we read the same prompt");
            let predicted = now.predicted.expect("all is known of both caches");
            right += u64::from(predicted == now.cached);
            errors += predicted.abs_diff(now.cached);
            (all, cached) = (all + now.tokens, cached + now.cached);
            messages.push(json!({ "role": "assistant", "content": now.text }));
        }
    }
    let count = CONVERSATIONS * TURNS;
    eprintln!(
        "{right} of {count} predicted exactly; {errors} tokens off, of {all} in prompts, {cached} from the cache"
    );
    for name in ["stored", "removed", "orphan"] {
        let family = format!("fairlead_kv_event_blocks_total{{kind=\"{name}\"}}");
        eprintln!("blocks {name}: {}", metric(&stack, &family).await);
    }
    assert!(metric(&stack, "fairlead_kv_event_blocks_total{kind=\"removed\"}").await > 0.0, "nothing was evicted");
    assert!(cached > 0 && errors * 50 <= all, "more than 2 % off");

    stack.stop().await.unwrap();
    // Killed, vLLM would leave its engine process behind.
    for engine in engines {
        engine.terminate(SETTLE).await.unwrap();
    }
}
