//! A whole exchange inside the service: request headers, body, decision, response headers, end. Without gRPC and without
//! Envoy. The body's own bytes are there already, as they are when a message of Envoy's was read.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use fairlead::config::Config;
use fairlead::domain::{Clock, EndpointSpec};
use fairlead::exchange::{BodyOutlook, Completeness, Core, Exchange, RequestHead, Step, UpstreamReport};
use fairlead::routing::{StrategySet, names};
use fairlead::state::{Change, Registry, SourceId};
use fairlead::telemetry::Metrics;

const ENDPOINTS: u16 = 64;
const STRATEGIES: [&str; 4] = ["least-request", "prefix-cache", "token-load", "prefix-cache-preble"];
const SIZES: [usize; 3] = [1 << 10, 16 << 10, 220 << 10];

fn main() {
    divan::main();
}

fn core(strategy: &str) -> Arc<Core> {
    let mut registry = Registry::new();
    let specs = (1..=ENDPOINTS).map(|port| EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
    registry.apply([Change::Replace(SourceId(0), specs)]).1.unwrap();
    let strategies = Arc::new(StrategySet::build(strategy).unwrap());
    Arc::new(Core::new(&Config::default(), registry.reader(), strategies, Metrics::new(&names()), Clock::start()))
}

/// A conversation of some topic.
fn body(bytes: usize, topic: usize) -> Vec<u8> {
    let mut body = format!("{{\"model\":\"llama\",\"messages\":[{{\"role\":\"system\",\"content\":\"topic {topic}\"}}");
    while body.len() < bytes {
        body.push_str(",{\"role\":\"user\",\"content\":\"");
        let end = bytes.min(body.len() + 4096);
        while body.len() < end {
            body.push_str("the quick brown fox jumps over the lazy dog, and then it rests a while. ");
        }
        body.push_str("\"}");
    }
    body.push_str("],\"stream\":true}");
    body.into_bytes()
}

fn serve(core: &Arc<Core>, body: Vec<u8>) {
    let mut exchange = Exchange::new(Arc::clone(core));
    let headers: [(&str, &[u8]); 3] =
        [(":method", b"POST"), (":path", b"/v1/chat/completions"), ("content-type", b"application/json")];
    let head = RequestHead::read(headers.into_iter(), exchange.kept_headers());
    assert!(matches!(exchange.request_head(head, BodyOutlook::Coming), Step::NeedBody));
    assert!(exchange.request_body(body).is_none());
    assert!(matches!(exchange.request_end(Completeness::Whole), Step::Send));
    let address = Some(exchange.dispatch().unwrap().plan.first().spec.address);
    exchange.release_body();
    black_box(exchange.response_head(UpstreamReport { status: 200, address, attempts: Some(1), ..Default::default() }));
    exchange.response_end();
}

/// Conversations that come back again and again, of eight topics.
#[divan::bench(args = STRATEGIES, consts = SIZES, sample_count = 200)]
fn again<const SIZE: usize>(bencher: Bencher<'_, '_>, strategy: &str) {
    let core = core(strategy);
    let bodies: Vec<_> = (0..8).map(|topic| body(SIZE, topic)).collect();
    let mut turn = 0;
    bencher
        .with_inputs(|| {
            turn += 1;
            bodies.get(turn % bodies.len()).unwrap().clone()
        })
        .counter(BytesCount::new(SIZE))
        .bench_local_values(|body| serve(&core, body));
}

/// Conversations that nobody has seen.
#[divan::bench(args = STRATEGIES, consts = [220 << 10], sample_count = 200)]
fn cold<const SIZE: usize>(bencher: Bencher<'_, '_>, strategy: &str) {
    let core = core(strategy);
    let mut topic = 0;
    bencher
        .with_inputs(|| {
            topic += 1;
            body(SIZE, topic)
        })
        .counter(BytesCount::new(SIZE))
        .bench_local_values(|body| serve(&core, body));
}
