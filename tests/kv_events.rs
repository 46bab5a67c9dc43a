//! KV events from a publisher to a choice: the program itself, behind a real Envoy, with simulated engines.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common_traffic;

use std::time::Duration;

use bytes::Bytes;
use fairlead_lab::harness::{Stack, wait_until};
use serde_json::json;
use zeromq::{PubSocket, Socket, SocketSend, ZmqMessage};

use common_traffic::{Lab, MODEL, Mode, Net};

const SETTINGS: &str = "\
routing: { algorithm: prefix-cache, explain: true }
kv_events: { enabled: true, port: 0, replay_port: 0 }
";
const SOON: Duration = Duration::from_secs(20);
const BLOCK: usize = 64;
const BLOCKS: usize = 20;
const PROMPTS: u32 = 8;

/// A prompt of whole blocks that shares nothing with the others.
fn tokens(prompt: u32) -> Vec<u32> {
    (0..(BLOCK * BLOCKS) as u32).map(|at| prompt * 100_000 + at).collect()
}

/// A batch that says that this prompt was stored, in the older form of an event.
fn stored(prompt: u32) -> Vec<u8> {
    let tokens = tokens(prompt);
    let mut payload = vec![0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0x91, 0x95, 0xab];
    payload.extend(b"BlockStored");
    payload.extend([0xdc, 0, BLOCKS as u8]);
    for at in 0..BLOCKS as u64 {
        payload.push(0xcf);
        payload.extend((u64::from(prompt) * 1000 + at).to_be_bytes());
    }
    payload.extend([0xc0, 0xdd]);
    payload.extend((tokens.len() as u32).to_be_bytes());
    for token in tokens {
        payload.push(0xce);
        payload.extend(token.to_be_bytes());
    }
    payload.extend([BLOCK as u8, 0]);
    payload
}

async fn metric(stack: &Stack, name: &str) -> f64 {
    let (_, page) = stack.admin_get("/metrics").await.unwrap();
    page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_prompt_goes_to_the_engine_that_published_its_blocks() {
    let lab = Lab::start(Mode::Buffered, Net::Kept, SETTINGS).await.unwrap();
    let mut publisher = PubSocket::new();
    let address = publisher.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
    let port = address.rsplit_once(':').unwrap().1;
    let home = lab.stack.engine(2).unwrap().address();
    let entry = |engine: usize| {
        let address = lab.stack.engine(engine).unwrap().address();
        let labels = if engine == 2 { format!("kv-events-port: \"{port}\"") } else { String::new() };
        format!("- {{ address: \"{address}\", models: [{MODEL}], labels: {{ {labels} }} }}\n")
    };
    lab.stack.write_endpoints(&[entry(0), entry(1), entry(2)].concat()).unwrap();
    let connected = || async { metric(&lab.stack, "fairlead_kv_event_publishers").await >= 1.0 };
    wait_until("the publisher followed", SOON, connected).await.unwrap();

    // What is published before the subscription has arrived is heard by nobody.
    let mut number = 0_u64;
    let all = f64::from(PROMPTS) * BLOCKS as f64;
    let deadline = tokio::time::Instant::now() + SOON;
    while metric(&lab.stack, "fairlead_kv_blocks{tier=\"device\"}").await < all {
        assert!(tokio::time::Instant::now() < deadline, "the events do not arrive");
        for prompt in 0..PROMPTS {
            let frames =
                [Bytes::from_static(b"kv"), Bytes::copy_from_slice(&number.to_be_bytes()), stored(prompt).into()];
            publisher.send(ZmqMessage::try_from(frames.to_vec()).unwrap()).await.unwrap();
            number += 1;
        }
    }
    for prompt in 0..PROMPTS {
        let longer: Vec<u32> = tokens(prompt).into_iter().chain(0..100).collect();
        let body = json!({ "model": MODEL, "prompt": longer, "max_tokens": 1 });
        let headers = [("x-fairlead-explain", "1")];
        let answer = lab.call("POST", "/v1/completions", &headers, body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("target-pod-ip"), home.to_string(), "{}", answer.header("x-fairlead-explain"));
        assert!(answer.header("x-fairlead-explain").contains("at most anywhere: 1280"), "{answer:?}");
    }
    assert!(metric(&lab.stack, "fairlead_prefix_lookups_total{result=\"given\"}").await >= f64::from(PROMPTS));
    drop(publisher);
    let forgotten = || async { metric(&lab.stack, "fairlead_kv_blocks{tier=\"device\"}").await == 0.0 };
    wait_until("a dead engine's blocks forgotten", SOON, forgotten).await.unwrap();
}
