//! Sessions through a real Envoy: ids that go back and forth, keys, and what happens when their endpoint is away.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common_traffic;

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fairlead_lab::engine::{EngineHandle, Fault};
use fairlead_lab::harness::{ExtProc, Folder, Stack, StackBuilder, wait_until};
use serde_json::{Value, json};

use common_traffic::{Answer, CHAT, Lab, MODEL, Mode, Net};

/// Longest wait for anything that ought to happen soon.
const SOON: Duration = Duration::from_secs(10);
const ID: &str = "x-session-id";
const SECRET: &str = "a secret of all replicas";
/// So often a session is asked for before it counts as one that stays.
const TURNS: usize = 6;

const STRATEGIES: &str = "
  algorithm: session-affinity
  strategies:
    blended: { scorers: [{ use: session-affinity, weight: 3 }, { use: least-request }] }
    apart: { use: session-affinity, parameters: { key: 'a secret of its own' } }
    by-header: { use: session-affinity, parameters: { keys: ['header:x-user-id'] } }
    by-cookie: { use: session-affinity, parameters: { keys: ['cookie:sid'] } }
    by-user: { use: session-affinity, parameters: { keys: ['body:user'] } }
    by-cache-key: { use: session-affinity, parameters: { keys: ['body:prompt_cache_key'] } }
health: { cooldown_base: 300ms, cooldown_max: 1s }
";

/// A folder with the secret in it, and settings that name it.
fn settings() -> (Folder, String) {
    let folder = Folder::temporary().unwrap();
    let file = folder.write("session.key", SECRET).unwrap();
    let settings = format!("routing:\n  session_key_file: '{}'{STRATEGIES}", file.display());
    (folder, settings)
}

/// One turn at `base`, with a strategy, headers and more fields of the body.
async fn turn(lab: &Lab, base: &str, strategy: &str, headers: &[(&str, &str)], more: &Value) -> Answer {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let headers = [headers, &[("routing-strategy", strategy)]].concat();
    let answer = lab.call_at(base, "POST", CHAT, &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{strategy}: {answer:?}");
    answer
}

/// Engine and session id of a turn with this id.
async fn with_id(lab: &Lab, base: &str, strategy: &str, id: &str) -> (String, String) {
    let answer = turn(lab, base, strategy, &[(ID, id)], &json!({})).await;
    (answer.header("x-engine").to_owned(), answer.header(ID).to_owned())
}

/// The same through the lab's own Envoy.
async fn ask(lab: &Lab, strategy: &str, id: &str) -> (String, String) {
    with_id(lab, &lab.stack.envoy_url(), strategy, id).await
}

/// Asks again and again with an id: it is always the same engine, and the id is the one that it gets back.
async fn stays(lab: &Lab, strategy: &str, session: &(String, String)) {
    for _ in 0..TURNS {
        assert_eq!(ask(lab, strategy, &session.1).await, *session, "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_with_the_engine_that_its_id_names() {
    for mode in [Mode::Buffered, Mode::Duplex] {
        let (_folder, settings) = settings();
        let lab = Lab::start(mode, Net::Removed, &settings).await.unwrap();
        for strategy in ["session-affinity", "session-affinity:3,least-request", "blended"] {
            let answer = turn(&lab, &lab.stack.envoy_url(), strategy, &[], &json!({})).await;
            let session = (answer.header("x-engine").to_owned(), answer.header(ID).to_owned());
            assert!(!session.1.is_empty(), "{answer:?}");
            stays(&lab, strategy, &session).await;
        }
        let answer = turn(&lab, &lab.stack.envoy_url(), "least-request", &[], &json!({})).await;
        assert_eq!(answer.header(ID), "", "a strategy that knows no sessions issues none");
        lab.settled("sessions").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_aibrix_names_its_engine_and_one_that_is_not_ours_names_nobody() {
    let (_folder, settings) = settings();
    let lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    for engine in lab.stack.engines().iter().take(3) {
        let session = ask(&lab, "session-affinity", &STANDARD.encode(engine.address().to_string())).await;
        assert_eq!(session.0, engine.name());
        stays(&lab, "session-affinity", &session).await;
    }
    let foreign = ask(&lab, "apart", "").await.1;
    let mut forged = ask(&lab, "session-affinity", "").await.1.into_bytes();
    if let Some(byte) = forged.get_mut(6) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    let forged = String::from_utf8(forged).unwrap();
    let long = "A".repeat(4000);
    let other_model = STANDARD.encode(lab.stack.engine(3).unwrap().address().to_string());
    for id in [&foreign, &forged, &long, &other_model, "not an id", "!", &STANDARD.encode("127.0.0.1:22")] {
        for strategy in ["session-affinity", "session-affinity:3,least-request"] {
            let session = ask(&lab, strategy, id).await;
            assert!(!session.1.is_empty() && session.1 != id, "{id}: {session:?}");
            stays(&lab, strategy, &session).await;
        }
    }
    lab.settled("ids that name nobody").await;
}

/// Publishes the engines with these numbers and waits until Fairlead knows no others.
async fn publish(lab: &Lab, engines: &[usize]) {
    let addresses: Vec<_> = engines.iter().map(|at| lab.stack.engine(*at).unwrap().address().to_string()).collect();
    let line = |address: &String| format!("- {{ address: \"{address}\", models: [{MODEL}] }}\n");
    lab.stack.write_endpoints(&addresses.iter().map(line).collect::<String>()).unwrap();
    wait_until("the list is taken", SOON, || async {
        let (_, page) = lab.stack.admin_get("/api/endpoints").await.unwrap();
        let page: Value = serde_json::from_str(&page).unwrap();
        let known = page.get("endpoints").and_then(Value::as_array).unwrap();
        known.len() == engines.len()
    })
    .await
    .unwrap();
}

/// Engine and id of a session at the engine with this number.
async fn session_at(lab: &Lab, engine: usize) -> (String, String) {
    let address = lab.stack.engine(engine).unwrap().address().to_string();
    ask(lab, "session-affinity", &STANDARD.encode(address)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_when_its_engine_leaves_and_may_come_back_with_it() {
    let (_folder, settings) = settings();
    let lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    let session = session_at(&lab, 1).await;
    publish(&lab, &[0, 2]).await;
    for strategy in ["session-affinity", "session-affinity:3,least-request", "blended"] {
        let moved = ask(&lab, strategy, &session.1).await;
        assert!(moved.0 != session.0 && moved.1 != session.1, "{moved:?}");
        stays(&lab, strategy, &moved).await;
    }
    publish(&lab, &[0, 1, 2]).await;
    let back = || async { ask(&lab, "session-affinity", &session.1).await == session };
    wait_until("Envoy knows the engine again", SOON, back).await.unwrap();
    stays(&lab, "session-affinity", &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_when_its_engine_dies_and_the_answer_names_who_served() {
    let (_folder, settings) = settings();
    let lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    for strategy in ["session-affinity", "session-affinity:3,least-request"] {
        let session = session_at(&lab, 2).await;
        assert_eq!(session.0, "engine-2");
        lab.stack.engine(2).unwrap().set_fault(Fault::Restart);
        // The first request finds out, by Envoy's retry; those after it find the engine put aside.
        let moved = ask(&lab, strategy, &session.1).await;
        assert!(moved.0 != session.0 && moved.1 != session.1, "{moved:?}");
        stays(&lab, strategy, &moved).await;
        lab.stack.engine(2).unwrap().set_fault(Fault::None);
        let back = || async { ask(&lab, strategy, &session.1).await == session };
        wait_until("the engine is tried again", SOON, back).await.unwrap();
        stays(&lab, strategy, &session).await;
    }
    lab.settled("an engine died").await;
}

/// Another Fairlead with an Envoy of its own before the same engines.
async fn replica(lab: &Lab, settings: &str) -> Stack {
    let addresses = lab.stack.engines().iter().take(3).map(EngineHandle::address);
    let list = addresses.map(|address| format!("- {{ address: \"{address}\", models: [{MODEL}] }}\n"));
    let config = format!(
        "listen: {{ ext_proc: \"unix:{{ext_proc}}\", admin: \"{{admin}}\" }}\ndestination: {{ list: 3 }}\n\
         discovery: {{ file: {{ path: \"{{endpoints}}\" }} }}\nenvoy: {{ eds_file: \"{{eds}}\" }}\n{settings}\n"
    );
    let ext_proc = ExtProc::Fairlead { binary: env!("CARGO_BIN_EXE_fairlead").into(), config };
    let envoy = include_str!("../envoy/quickstart.yaml");
    StackBuilder::quickstart(ext_proc, envoy).endpoints(list.collect::<String>()).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_one_secret_take_each_others_sessions_and_others_begin_anew() {
    let (folder, settings) = settings();
    let mut lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    let (twin, stranger) =
        (replica(&lab, &settings).await, replica(&lab, "routing: { algorithm: session-affinity }").await);
    let (first, second) = (lab.stack.envoy_url(), twin.envoy_url());
    for (from, to) in [(&first, &second), (&second, &first)] {
        let session = with_id(&lab, from, "session-affinity", "").await;
        for _ in 0..TURNS {
            assert_eq!(with_id(&lab, to, "session-affinity", &session.1).await, session);
        }
        let anew = with_id(&lab, &stranger.envoy_url(), "session-affinity", &session.1).await;
        assert_ne!(anew.1, session.1);
        assert_ne!(with_id(&lab, to, "session-affinity", &anew.1).await.1, anew.1);
    }
    // A key of the client's needs no secret: all replicas rank alike.
    for key in ["a", "b", "c", "d"] {
        let mut engines = BTreeSet::new();
        for base in [&first, &second, &stranger.envoy_url()] {
            let answer = turn(&lab, base, "session-affinity", &[("x-aibrix-session-key", key)], &json!({})).await;
            engines.insert(answer.header("x-engine").to_owned());
        }
        assert_eq!(engines.len(), 1, "{key}: {engines:?}");
    }

    let session = session_at(&lab, 1).await;
    lab.stack.restart_fairlead().await.unwrap();
    stays(&lab, "session-affinity", &session).await;
    folder.write("session.key", "the next secret of all").unwrap();
    lab.stack.restart_fairlead().await.unwrap();
    let anew = ask(&lab, "session-affinity", &session.1).await;
    assert_ne!(anew.1, session.1, "another secret makes other ids");
    stays(&lab, "session-affinity", &anew).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_clients_keeps_its_session_wherever_it_stands() {
    let (_folder, settings) = settings();
    let lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    for strategy in ["by-header", "by-cookie", "by-user", "by-cache-key", "session-affinity"] {
        let mut engines = BTreeSet::new();
        for number in 0..12 {
            let key = format!("session {number}");
            let cookie = format!("a=b; sid=\"{key}\"; c=d");
            let (headers, more): (Vec<_>, _) = match strategy {
                // As `--session-key x-user-id` of production-stack.
                "by-header" => (vec![("x-user-id", key.as_str())], json!({})),
                "by-cookie" => (vec![("cookie", cookie.as_str())], json!({})),
                "by-user" => (vec![], json!({"user": key})),
                "by-cache-key" => (vec![], json!({"prompt_cache_key": key})),
                _ => (vec![], json!({"session_id": key})),
            };
            let mut served = BTreeSet::new();
            for _ in 0..TURNS {
                let answer = turn(&lab, &lab.stack.envoy_url(), strategy, &headers, &more).await;
                served.insert(answer.header("x-engine").to_owned());
            }
            assert_eq!(served.len(), 1, "{strategy}, {key}: {served:?}");
            engines.extend(served);
        }
        assert!(engines.len() > 1, "{strategy}: sessions spread, {engines:?}");
    }
    lab.settled("keys").await;
}
