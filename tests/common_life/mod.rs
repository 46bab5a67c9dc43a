//! What the failover, lifecycle and chaos tests share: the stack, one request at a time, and what the admin port says.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fairlead_lab::engine::{Capacity, EngineOptions, Fault, Timing};
use fairlead_lab::harness::{ExtProc, Stack, StackBuilder, wait_until};
use fairlead_lab::load::{LoadOptions, Pace, Report};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(crate) const QUICKSTART: &str = include_str!("../../envoy/quickstart.yaml");
pub(crate) const DUPLEX: &str = include_str!("../../envoy/duplex.yaml");
/// Short pauses, so that a failed engine is tried again within a test.
pub(crate) const CONFIG: &str = "\
listen:
  ext_proc: unix:{ext_proc}
  admin: \"{admin}\"
destination: { list: 3 }
discovery: { file: { path: \"{endpoints}\", poll: 100ms } }
envoy: { eds_file: \"{eds}\" }
health: { cooldown_base: 300ms, cooldown_max: 1s }
";
pub(crate) const MODEL: &str = "llama-3-8b";
/// Longest wait for anything that ought to happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Engines whose answers are as long as `max_tokens` says: about a millisecond a token.
pub(crate) fn engine() -> EngineOptions {
    EngineOptions {
        reply_tokens: 30_000,
        timing: Timing::quick(),
        capacity: Capacity { kv_blocks: 65_536, sequences_max: 1024, ..Capacity::default() },
        ..EngineOptions::default()
    }
}

pub(crate) fn fairlead(config: impl Into<String>) -> ExtProc {
    ExtProc::Fairlead { binary: env!("CARGO_BIN_EXE_fairlead").into(), config: config.into() }
}

/// A stack of `engines` engines behind an Envoy configuration of the repository.
pub(crate) async fn stack(envoy: &str, config: &str, engines: usize) -> Stack {
    let start = || Box::pin(StackBuilder::quickstart(fairlead(config), envoy).engines(engines, &engine()).start());
    // A port that was free a moment ago can be the local end of somebody's connection by now.
    let stack = match start().await {
        Err(error) if error.to_string().contains("in use") => start().await.unwrap(),
        other => other.unwrap(),
    };
    stack_knows(&stack, engines).await;
    stack
}

/// Starts Fairlead again.
pub(crate) async fn restart(stack: &mut Stack) {
    let mut last = stack.restart_fairlead().await;
    for _ in 0..3 {
        match last {
            // As above.
            Err(error) if error.to_string().contains("in use") => last = stack.restart_fairlead().await,
            other => return other.unwrap(),
        }
    }
    last.unwrap();
}

/// Waits until Envoy's cluster has `engines` hosts, so that nothing is skipped for being unknown.
pub(crate) async fn stack_knows(stack: &Stack, engines: usize) {
    let url = format!("{}/clusters", stack.envoy_admin_url());
    soon("Envoy knows the engines", async || {
        let (_, page) = fairlead_lab::harness::get(&url).await.unwrap();
        page.lines().filter(|line| line.starts_with("fairlead::127.") && line.contains("::cx_active::")).count()
            == engines
    })
    .await;
}

pub(crate) async fn soon<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, holds).await.is_ok(), "{what}: not within {SOON:?}");
}

/// One row of `/api/endpoints`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: u32,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) aside_ms: u64,
}

#[derive(Deserialize)]
struct Rows {
    endpoints: Vec<Row>,
}

pub(crate) async fn rows(stack: &Stack) -> Vec<Row> {
    let (_, page) = stack.admin_get("/api/endpoints").await.unwrap();
    serde_json::from_str::<Rows>(&page).unwrap().endpoints
}

/// The row of an engine of the stack.
pub(crate) async fn row(stack: &Stack, engine: usize) -> Row {
    let address = stack.engine(engine).unwrap().address();
    rows(stack).await.into_iter().find(|row| row.address == address).unwrap()
}

/// The value of a metric that counts things; `series` is its name with the labels. 0 if it is missing.
pub(crate) async fn metric(stack: &Stack, series: &str) -> u64 {
    let (_, page) = stack.admin_get("/metrics").await.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.trim_end_matches(".0").parse().unwrap())
}

/// Waits until nothing is counted as running any more.
pub(crate) async fn settle(stack: &Stack) {
    let settled = wait_until("everything settled", SOON, || async {
        let open = metric(stack, "fairlead_streams_open").await;
        let held = metric(stack, "fairlead_body_bytes_held").await;
        let rows = rows(stack).await;
        open == 0 && held == 0 && rows.iter().all(|row| row.in_flight == 0)
    });
    if let Err(error) = settled.await {
        let open = metric(stack, "fairlead_streams_open").await;
        panic!("{error}: {open} streams open, {:?}", rows(stack).await);
    }
}

/// Takes all faults back and waits until no engine is put aside.
pub(crate) async fn heal(stack: &Stack) {
    stack.engines().iter().for_each(|engine| engine.set_fault(Fault::None));
    settle(stack).await;
    soon("no engine is put aside", async || rows(stack).await.iter().all(|row| row.aside_ms == 0)).await;
}

/// Sends requests until no engine's row of failures is left, so that the next story starts afresh.
pub(crate) async fn fresh(stack: &Stack) {
    heal(stack).await;
    soon("every engine serves", async || {
        let mut served = BTreeMap::new();
        for _ in 0..3 * stack.engines().len() {
            *served.entry(ask(stack, 1).await.engine()).or_insert(0) += 1;
        }
        served.len() == stack.engines().len()
    })
    .await;
    heal(stack).await;
}

/// Mixed traffic of short answers.
pub(crate) fn traffic(stack: &Stack) -> LoadOptions {
    LoadOptions {
        url: stack.envoy_url(),
        pace: Pace::Closed { concurrency: 16 },
        tokens_max: Some(16),
        stream_share: 0.5,
        prompt_bytes: 400,
        timeout: ANSWER,
        ..LoadOptions::default()
    }
}

pub(crate) fn nothing_failed(what: &str, report: &Report) {
    eprintln!("{what}: {} ok, {} failed, {:.1} s, {:?}", report.ok, report.failed, report.seconds, report.endpoints);
    assert_eq!(report.failed, 0, "{what}: {:?}", report.failures);
    assert!(report.ok > 0, "{what}: no traffic");
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body, or how it broke.
    pub(crate) body: Result<Bytes, String>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Name of the engine that made it.
    pub(crate) fn engine(&self) -> String {
        self.header("x-engine").unwrap_or_default().to_owned()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }
}

/// An answer whose body is still to come; dropping it drops the connection.
#[derive(Debug)]
pub(crate) struct Running {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Running {
    pub(crate) fn engine(&self) -> String {
        self.headers.get("x-engine").map(|name| name.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Waits for the next piece.
    pub(crate) async fn piece(&mut self) -> Option<Bytes> {
        self.body.frame().await?.ok()?.into_data().ok()
    }

    pub(crate) async fn finish(self) -> Answer {
        let body = tokio::time::timeout(ANSWER, self.body.collect()).await.unwrap();
        let body = body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string());
        Answer { status: self.status, headers: self.headers, body }
    }
}

fn body(tokens: u32, stream: bool) -> String {
    let messages = [json!({"role": "user", "content": "tell me a story"})];
    json!({"model": MODEL, "messages": messages, "max_tokens": tokens, "stream": stream}).to_string()
}

/// Sends a request over a connection of its own and waits for the response headers.
pub(crate) async fn open(stack: &Stack, tokens: u32, stream: bool) -> Running {
    post(&stack.envoy_url(), tokens, stream).await
}

/// As [`open`], to `http://ip:port`.
pub(crate) async fn post(url: &str, tokens: u32, stream: bool) -> Running {
    post_body(url, &[], body(tokens, stream)).await
}

/// As [`post`], with more headers and any body.
pub(crate) async fn post_body(url: &str, headers: &[(&str, &str)], body: String) -> Running {
    let host = url.trim_start_matches("http://");
    let connection = TcpStream::connect(host).await.unwrap();
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.unwrap();
    let driver = TaskTracker::new().spawn(async move {
        driver.await.ok();
    });
    let mut request =
        Request::post("/v1/chat/completions").header("host", host).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = tokio::time::timeout(ANSWER, sender.send_request(request)).await.unwrap().unwrap();
    let (head, body) = answer.into_parts();
    Running { status: head.status.as_u16(), headers: head.headers, body, _connection: AbortOnDropHandle::new(driver) }
}

/// A plain request and its answer.
pub(crate) async fn ask(stack: &Stack, tokens: u32) -> Answer {
    open(stack, tokens, false).await.finish().await
}

/// A streamed request and its answer.
pub(crate) async fn stream(stack: &Stack, tokens: u32) -> Answer {
    open(stack, tokens, true).await.finish().await
}

/// A connection with a request on it that is reset when dropped, as that of a client that died.
pub(crate) async fn doomed(stack: &Stack, stream: bool) -> io::Result<TcpStream> {
    let url = stack.envoy_url();
    let host = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).await?;
    connection.set_zero_linger()?;
    let body = body(20_000, stream);
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}"
    );
    connection.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    Ok(connection)
}

/// Reads until the first event of a stream has arrived.
pub(crate) async fn first_event(connection: &mut TcpStream) -> io::Result<()> {
    let mut seen = Vec::new();
    while !seen.windows(6).any(|window| window == b"data: ") {
        let mut piece = [0; 2048];
        let length = connection.read(&mut piece).await?;
        assert_ne!(length, 0, "the answer ended early");
        seen.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    Ok(())
}
