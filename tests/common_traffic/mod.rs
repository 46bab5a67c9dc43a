//! A stack with engines of known models behind a real Envoy, and a client that keeps every byte.
#![allow(dead_code, reason = "each test target uses its own part")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use fairlead_lab::engine::{EngineHandle, EngineOptions, Timing};
use fairlead_lab::harness::{ExtProc, Stack, StackBuilder, free_address, wait_until};
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

/// Served by the engines 0 to 2, together with [`ADAPTER`].
pub(crate) const MODEL: &str = "llama-3-8b";
pub(crate) const ADAPTER: &str = "sql-adapter";
/// Served by engine 3 alone.
pub(crate) const OTHER_MODEL: &str = "other-model";
/// Served by engine 4 alone, at `[::1]`.
pub(crate) const IPV6_MODEL: &str = "ipv6-model";
pub(crate) const CHAT: &str = "/v1/chat/completions";

const QUICKSTART: &str = include_str!("../../envoy/quickstart.yaml");
const DUPLEX: &str = include_str!("../../envoy/duplex.yaml");
const ORIGINAL_DST: &str = include_str!("../../envoy/original-dst.yaml");

const ANSWER_DEADLINE: Duration = Duration::from_mins(1);
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);

/// Stacks share two cores or so: one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How Envoy shows request bodies, and how it finds the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Buffered,
    Partial,
    /// With pieces that come before the headers are answered.
    Streamed,
    /// Bodies stay unseen.
    Unseen,
    Duplex,
    /// Buffered, and the cluster goes wherever `target-pod` says.
    OriginalDst,
}

/// Whether Envoy itself removes the headers that name an engine, before Fairlead sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Kept,
    Removed,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            assert!(self.body.is_empty(), "{error}: {:?}", self.body);
            Value::Null
        })
    }
}

pub(crate) struct Lab {
    pub(crate) stack: Stack,
    pub(crate) mode: Mode,
    client: Client<HttpConnector, BoxBody<Bytes, Infallible>>,
    has_ipv6: bool,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Starts engines, Fairlead and Envoy; `settings` are added to Fairlead's configuration.
    pub(crate) async fn start(mode: Mode, net: Net, settings: &str) -> anyhow::Result<Self> {
        Self::start_changed(mode, net, settings, |envoy| envoy).await
    }

    /// The same with a change to Envoy's configuration.
    pub(crate) async fn start_changed(
        mode: Mode,
        net: Net,
        settings: &str,
        change: impl FnOnce(String) -> String,
    ) -> anyhow::Result<Self> {
        Self::start_in(&[], mode, net, settings, change).await
    }

    /// The same with variables of Fairlead's environment.
    pub(crate) async fn start_in(
        environment: &[(&str, &str)],
        mode: Mode,
        net: Net,
        settings: &str,
        change: impl FnOnce(String) -> String,
    ) -> anyhow::Result<Self> {
        let turn = ONE_AT_A_TIME.lock().await;
        let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
        let grpc = free_address()?;
        let (config, envoy) = (fairlead_config(mode, grpc, settings), change(envoy_config(mode, net, grpc)?));
        let ext_proc = ExtProc::Fairlead { binary: env!("CARGO_BIN_EXE_fairlead").into(), config };
        let builder = match mode {
            Mode::OriginalDst => StackBuilder::new(ext_proc, envoy),
            _ => StackBuilder::quickstart(ext_proc, envoy),
        };
        let builder = environment.iter().fold(builder, |builder, (name, value)| builder.environment(*name, *value));
        let engine = |model: &str| EngineOptions {
            models: vec![model.to_owned()],
            record: true,
            timing: Timing::quick(),
            ..EngineOptions::default()
        };
        let with_adapter = EngineOptions { loras: vec![ADAPTER.to_owned()], ..engine(MODEL) };
        let mut builder = builder.engines(3, &with_adapter).engines(1, &engine(OTHER_MODEL));
        if has_ipv6 {
            let address = "[::1]:0".parse()?;
            builder = builder.engines(1, &EngineOptions { address, ..engine(IPV6_MODEL) });
        }
        let stack = builder.start().await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let lab = Self { stack, mode, client, has_ipv6, _turn: turn };
        lab.declare_adapter().await?;
        Ok(lab)
    }

    /// The stack lists adapters as models; here they get their parent.
    async fn declare_adapter(&self) -> anyhow::Result<()> {
        let models = [MODEL, MODEL, MODEL, OTHER_MODEL, IPV6_MODEL];
        let line = |(engine, model): (&EngineHandle, &str)| {
            let adapters = if model == MODEL { ADAPTER } else { "" };
            let address = engine.address();
            format!("- {{ address: \"{address}\", models: [ {{ name: {model}, adapters: [{adapters}] }} ] }}\n")
        };
        let yaml: String = self.stack.engines().iter().zip(models).map(line).collect();
        self.stack.write_endpoints(&yaml)?;
        wait_until("adapters known", SETTLE_DEADLINE, || async {
            let page = self.stack.admin_get("/api/endpoints").await;
            page.is_ok_and(|(_, page)| page.contains(r#""adapters":["sql-adapter"]"#))
        })
        .await
    }

    /// Sends a request through Envoy; a body is JSON unless `headers` say otherwise.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(&self.stack.envoy_url(), method, path, headers, Full::new(body.into()).boxed()).await
    }

    /// The same to another place than Envoy.
    pub(crate) async fn call_at(
        &self,
        base: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(base, method, path, headers, Full::new(body.into()).boxed()).await
    }

    /// A POST of JSON through Envoy.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, &[], body.to_owned()).await
    }

    /// A POST whose length is not announced.
    pub(crate) async fn post_in_pieces(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let pieces: Vec<_> = body.chunks(10_000).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let body = BoxBody::new(StreamBody::new(stream::iter(pieces)));
        self.send(&self.stack.envoy_url(), "POST", path, headers, body).await
    }

    /// A POST whose body begins and never ends.
    pub(crate) async fn post_unfinished(&self, path: &str, headers: &[(&str, &str)], beginning: &str) -> Answer {
        let beginning = stream::iter([Ok(Frame::data(Bytes::copy_from_slice(beginning.as_bytes())))]);
        let body = BoxBody::new(StreamBody::new(beginning.chain(stream::pending())));
        self.send(&self.stack.envoy_url(), "POST", path, headers, body).await
    }

    /// The same POST to the engine itself.
    pub(crate) async fn post_direct(&self, engine: &EngineHandle, path: &str, body: &str) -> Answer {
        self.send(&engine.url(), "POST", path, &[], Full::from(body.to_owned()).boxed()).await
    }

    async fn send(
        &self,
        base: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: BoxBody<Bytes, Infallible>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        let has_type = headers.iter().any(|(name, _)| *name == "content-type");
        if method == "POST" && !has_type {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await.context("answer's body")?.to_bytes();
            anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        let answer = tokio::time::timeout(ANSWER_DEADLINE, exchange).await;
        answer
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")))
            .with_context(|| format!("{method} {path}"))
            .unwrap()
    }

    /// Has Envoy write down what its access log still holds back.
    pub(crate) async fn flush_access_log(&self) {
        let answer = self.send(&self.stack.envoy_admin_url(), "POST", "/reopen_logs", &[], BoxBody::default()).await;
        assert_eq!(answer.status, 200);
    }

    /// The engine that made an answer.
    pub(crate) fn served_by(&self, answer: &Answer) -> &EngineHandle {
        let name = answer.header("x-engine");
        let engine = self.stack.engines().iter().find(|engine| engine.name() == name);
        engine.with_context(|| format!("no engine served: {answer:?}")).unwrap()
    }

    /// The engine that serves [`IPV6_MODEL`], if this machine has `::1`.
    pub(crate) fn ipv6_engine(&self) -> Option<&EngineHandle> {
        self.has_ipv6.then(|| self.stack.engine(4).unwrap())
    }

    /// Inference requests that reached any engine.
    pub(crate) fn received(&self) -> u64 {
        self.stack.engines().iter().map(|engine| engine.counters().received).sum()
    }

    /// Waits until no request is counted in anywhere and no body is held.
    pub(crate) async fn settled(&self, story: &str) {
        let what = format!("{:?}, after '{story}': nothing in flight, nothing held", self.mode);
        let settled = wait_until(&what, SETTLE_DEADLINE, || async { self.is_idle().await.unwrap_or(false) }).await;
        settled.unwrap();
    }

    /// Requests that Fairlead counts as in flight.
    pub(crate) async fn in_flight(&self) -> anyhow::Result<u64> {
        let (_, page) = self.stack.admin_get("/api/endpoints").await?;
        let page: Value = serde_json::from_str(&page)?;
        let endpoints = page["endpoints"].as_array().context("no endpoints")?;
        anyhow::ensure!(endpoints.len() == self.stack.engines().len(), "endpoints are missing");
        Ok(endpoints.iter().filter_map(|endpoint| endpoint["in_flight"].as_u64()).sum())
    }

    /// Bytes of request bodies that Fairlead holds.
    pub(crate) async fn bytes_held(&self) -> anyhow::Result<u64> {
        let (_, metrics) = self.stack.admin_get("/metrics").await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix("fairlead_body_bytes_held "));
        Ok(value.context("no such metric")?.parse()?)
    }

    async fn is_idle(&self) -> anyhow::Result<bool> {
        Ok(self.in_flight().await? == 0 && self.bytes_held().await? == 0)
    }

    /// Runs a call until `condition` holds, then leaves without having an answer.
    pub(crate) async fn leave_when<F: Future<Output = anyhow::Result<bool>>>(
        &self,
        what: &str,
        call: impl Future<Output = Answer>,
        condition: impl Fn() -> F,
    ) {
        let waited = wait_until(what, SETTLE_DEADLINE, || async { condition().await.unwrap_or(false) });
        tokio::select! {
            answer = call => assert_eq!(answer.status, 0, "answered before '{what}': {answer:?}"),
            waited = waited => waited.unwrap(),
        }
    }
}

fn fairlead_config(mode: Mode, grpc: SocketAddr, settings: &str) -> String {
    let discovery = "discovery: { file: { path: \"{endpoints}\" } }";
    if mode == Mode::OriginalDst {
        return format!("listen: {{ ext_proc: \"{grpc}\", admin: \"{{admin}}\" }}\n{discovery}\n{settings}\n");
    }
    format!(
        "listen: {{ ext_proc: \"unix:{{ext_proc}}\", admin: \"{{admin}}\" }}\ndestination: {{ list: 3 }}\n{discovery}\n\
         envoy: {{ eds_file: \"{{eds}}\" }}\n{settings}\n"
    )
}

fn envoy_config(mode: Mode, net: Net, grpc: SocketAddr) -> anyhow::Result<String> {
    let body_mode = |name: &str| swap(QUICKSTART, "request_body_mode: BUFFERED", &format!("request_body_mode: {name}"));
    let mut text = match mode {
        Mode::Buffered => QUICKSTART.to_owned(),
        Mode::Partial => body_mode("BUFFERED_PARTIAL")?,
        Mode::Unseen => body_mode("NONE")?,
        Mode::Duplex => DUPLEX.to_owned(),
        Mode::Streamed => swap(
            &body_mode("STREAMED")?,
            "              processing_mode:\n",
            "              send_body_without_waiting_for_header_response: true\n              processing_mode:\n",
        )?,
        Mode::OriginalDst => {
            let text = swap(ORIGINAL_DST, "port_value: 10000", "port_value: {envoy_port}")?;
            let text = swap(&text, "port_value: 9901", "port_value: {envoy_admin_port}")?;
            swap(&text, "port_value: 50052", &format!("port_value: {}", grpc.port()))?
        }
    };
    if net == Net::Removed {
        for header in ["x-gateway-destination-endpoint", "target-pod"] {
            text = swap(&text, &format!("              - remove: {header}\n"), "")?;
        }
    }
    Ok(text)
}

fn swap(text: &str, from: &str, to: &str) -> anyhow::Result<String> {
    anyhow::ensure!(text.contains(from), "the Envoy configuration does not contain '{from}'");
    Ok(text.replace(from, to))
}
