use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::server::CONNECTIONS_MAX;
use super::*;
use crate::config::Config;
use crate::domain::{EndpointId, EndpointSpec, EngineKind, Gauge, Gauges, Work};
use crate::exchange::Core;
use crate::routing::StrategySet;
use crate::state::{Adapters, Endpoint, Snapshot, Ticket};

struct Admin {
    address: SocketAddr,
    state: AdminState,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Admin {
    async fn start() -> Self {
        let (reader, metrics, clock) = (Reader::default(), Metrics::new(&["random"]), Clock::start());
        let config = Config::default();
        let strategies = Arc::new(StrategySet::build(&config.routing.algorithm).unwrap());
        let core = Core::new(&config, reader.clone(), strategies, Arc::clone(&metrics), clock.clone());
        let state = AdminState {
            reader,
            metrics,
            readiness: Arc::default(),
            core: CoreReader::new(core),
            reloads: Arc::default(),
            explains: Arc::new(Semaphore::new(EXPLAINS_MAX)),
            clock,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cancel, tasks) = (listener.local_addr().unwrap(), CancellationToken::new(), TaskTracker::new());
        tasks.spawn(serve(listener, state.clone(), cancel.clone()));
        Self { address, state, cancel, tasks }
    }

    /// Head and body of an answer.
    async fn get(&self, path: &str, accept: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn json(&self, path: &str) -> (String, Value) {
        let (head, body) = self.get(path, "*/*").await;
        (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn readiness_follows_its_conditions_and_health_does_not() {
    let admin = Admin::start().await;
    admin.state.readiness.set("discovery", false, "nothing read yet");
    let (status, report) = admin.json("/readyz").await;
    assert_eq!(status, "503");
    let condition = json!({ "name": "discovery", "ok": false, "detail": "nothing read yet" });
    assert_eq!(report, json!({ "ready": false, "conditions": [condition] }));
    assert!(admin.get("/healthz", "*/*").await.0.starts_with("HTTP/1.1 200"));
    admin.state.readiness.set("discovery", true, "2 endpoints");
    assert_eq!(admin.json("/readyz").await.0, "200");
}

#[tokio::test]
async fn metrics_come_in_the_type_that_was_asked_for() {
    let admin = Admin::start().await;
    admin.state.metrics.stream_opened();
    let (head, body) = admin.get("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
    assert!(head.contains(OPEN_METRICS), "{head}");
    assert!(body.contains("\nfairlead_streams_total 1\n") && body.ends_with("# EOF\n"));
    assert!(admin.get("/metrics", "text/html,*/*").await.0.contains(PLAIN));
}

#[tokio::test]
async fn endpoints_are_told_with_their_numbers() {
    let admin = Admin::start().await;
    let spec = EndpointSpec { weight: 3, ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], 8001))) };
    let endpoint = Arc::new(Endpoint::new(EndpointId { slot: 0, generation: 0 }, spec, Arc::default()));
    admin.state.reader.publish(Snapshot::build(4, vec![Arc::clone(&endpoint)]));
    let before = admin.json("/api/endpoints").await.1;
    let page = Gauges::default().with(Gauge::Running, 2.0).with(Gauge::KvUsage, 0.5);
    endpoint.live.publish(&page, endpoint.live.mark(), admin.state.clock.now());
    endpoint.live.signals.set_engine(EngineKind::Sglang);
    endpoint.live.signals.set_adapters(Some(Adapters { running: vec!["sql".to_owned()], waiting: Vec::new() }));
    let _ticket = Ticket::open(endpoint, Work::default(), &admin.state.clock);
    let mut after = admin.json("/api/endpoints").await.1;
    assert!(before["endpoints"][0]["age_ms"].is_null() && after["endpoints"][0]["age_ms"].take().is_u64());
    let mut signals = after["endpoints"][0]["signals"].take();
    assert!(signals["kv_usage"]["age_ms"].take().is_u64());
    let told = json!({ "value": 0.5, "unit": "share", "origin": "engine", "age_ms": null });
    assert_eq!((&signals["kv_usage"], &signals["waiting"]), (&told, &json!(null)));
    let ours = json!({ "value": 3.0, "unit": "requests", "origin": "ours", "age_ms": 0 });
    assert_eq!(signals["requests"], ours);
    let expected = json!({
        "address": "127.0.0.1:8001", "name": "127.0.0.1:8001", "models": [], "engine": "sglang", "weight": 3,
        "in_flight": 1, "sent": 1, "failed": 0, "aside_ms": 0, "age_ms": null, "signals": null,
        "active_adapters": { "running": ["sql"], "waiting": [] },
    });
    assert_eq!(after, json!({ "version": 4, "endpoints": [expected] }));
}

#[tokio::test]
async fn the_rest_is_served_and_unknown_paths_are_json() {
    let admin = Admin::start().await;
    let strategies = admin.json("/api/strategies").await.1;
    let random = strategies.as_array().unwrap().iter().find(|strategy| strategy["name"] == "random").unwrap();
    assert_eq!(random["about"]["source"], "AIBrix `random`.");
    assert_eq!(admin.json("/api/config").await.1["listen"]["ext_proc"], "0.0.0.0:50052");
    assert!(admin.get("/", "text/html").await.1.contains("<title>Fairlead</title>"));
    let (status, body) = admin.json("/nothing").await;
    assert_eq!((status.as_str(), &body["error"]["code"]), ("404", &json!("not_found")));
}

#[tokio::test]
async fn it_stops_when_told_even_with_a_connection_open() {
    let admin = Admin::start().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    admin.get("/healthz", "*/*").await;
    admin.cancel.cancel();
    admin.tasks.close();
    tokio::time::timeout(Duration::from_secs(10), admin.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn probes_are_answered_however_many_connections_keep_silent() {
    let admin = Admin::start().await;
    let mut silent = Vec::new();
    for number in 0..3 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost:").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..3 {
        assert!(admin.get("/healthz", "*/*").await.0.starts_with("HTTP/1.1 200"));
    }
    let page = admin.get("/metrics", "*/*").await.1;
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.rsplit(' ').next().unwrap().trim_end_matches(".0").parse::<usize>().unwrap()
    };
    assert!(value("fairlead_admin_connections{}") <= CONNECTIONS_MAX);
    assert!(value("fairlead_admin_connections_crowded_out_total{}") >= 2 * CONNECTIONS_MAX);
}

/// Begins to send a body to `/api/explain`.
async fn half_sent(admin: &Admin, announced: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    let head = format!(
        "POST /api/explain HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A reset behind the answer is all right: the rest of the body was not read.
    drop(tokio::time::timeout(Duration::from_secs(10), read).await.unwrap());
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn bodies_are_held_within_the_budget_of_all_and_few_at_once() {
    let admin = Admin::start().await;
    let core = admin.state.core.load();
    let held = || usize::try_from(admin.state.metrics.body_bytes_held.get()).unwrap();
    let mut open = Vec::new();
    for _ in 0..EXPLAINS_MAX {
        open.push(half_sent(&admin, 1 << 20, 1000).await);
    }
    while held() < 1000 * EXPLAINS_MAX {
        tokio::task::yield_now().await;
    }
    let refused = answer(half_sent(&admin, 10, 0).await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("overloaded"), "{refused}");
    drop(open);
    while held() > 0 {
        tokio::task::yield_now().await;
    }
    let too_large = core.policy.body_bytes_max + 1;
    let refused = answer(half_sent(&admin, too_large, 0).await).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    core.budget.set_max(100);
    let refused = answer(half_sent(&admin, 1000, 1000).await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(held(), 0);
}
