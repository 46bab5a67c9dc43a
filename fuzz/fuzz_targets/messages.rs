//! Any sequence of ext_proc messages, in any body mode, leaves nothing behind. The input is a row of commands: a byte that
//! says what comes, a byte of length, and so many bytes of it.
#![no_main]

use std::sync::{Arc, LazyLock};

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration, body_mutation::Mutation,
    processing_request::Request, processing_response::Response,
};
use fairlead::config::Config;
use fairlead::domain::{Clock, EndpointSpec, ModelSpec};
use fairlead::exchange::Core;
use fairlead::ext_proc::{Flow, Machine, Settings};
use fairlead::routing::{self, StrategySet};
use fairlead::state::{Change, Registry, SourceId};
use fairlead::telemetry::Metrics;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

static BENCH: LazyLock<(Arc<Core>, Arc<Settings>)> = LazyLock::new(|| {
    let config = Config::default();
    let mut registry = Registry::new();
    let models = vec![ModelSpec { name: "m".to_owned(), adapters: vec!["l".to_owned()] }];
    let spec = EndpointSpec { models, ..EndpointSpec::at(([127, 0, 0, 1], 1).into()) };
    registry.apply([Change::Replace(SourceId(0), vec![spec])]).1.expect("one endpoint fits");
    let strategies = StrategySet::build("least-request").expect("a strategy of that name");
    let metrics = Metrics::new(&routing::names());
    let core = Core::new(&config, registry.reader(), Arc::new(strategies), metrics, Clock::start());
    (Arc::new(core), Arc::new(Settings::from(&config)))
});

fn headers(path: &[u8], end_of_stream: bool) -> HttpHeaders {
    let header = |key: &str, value: &[u8]| HeaderValue { key: key.into(), raw_value: value.to_vec(), ..Default::default() };
    let path = if path.is_empty() { b"/v1/chat/completions" } else { path };
    let headers = vec![header(":method", b"POST"), header(":path", path), header(":status", path)];
    HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream, ..Default::default() }
}

fn message(kind: u8, bytes: &[u8]) -> Option<ProcessingRequest> {
    let end_of_stream = kind & 0x08 != 0;
    let body = || HttpBody { body: bytes.to_vec(), end_of_stream, ..Default::default() };
    let request = match kind & 0x07 {
        0 => Request::RequestHeaders(headers(bytes, end_of_stream)),
        1 | 2 => Request::RequestBody(body()),
        3 => Request::RequestTrailers(HttpTrailers::default()),
        4 => Request::ResponseHeaders(headers(bytes, end_of_stream)),
        5 => Request::ResponseBody(body()),
        6 => Request::ResponseTrailers(HttpTrailers::default()),
        // Whatever the wire may carry.
        _ => return ProcessingRequest::decode(bytes).ok(),
    };
    let mode = i32::from(kind >> 4) % 7;
    let config = ProtocolConfiguration {
        request_body_mode: mode,
        response_body_mode: mode,
        send_body_without_waiting_for_header_response: kind & 0x80 != 0,
    };
    Some(ProcessingRequest { protocol_config: Some(config), request: Some(request), ..Default::default() })
}

fuzz_target!(|data: &[u8]| {
    let (core, settings) = &*BENCH;
    let mut machine = Machine::new(Arc::clone(core), Arc::clone(settings));
    let mut rest = data;
    while let [kind, length, after @ ..] = rest {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        if let Some(message) = message(*kind, bytes) {
            machine.on_message(message);
        }
        while let Some(reply) = machine.next_reply() {
            let Some(Response::RequestBody(body)) = reply.response else { continue };
            let mutation = body.response.and_then(|common| common.body_mutation).and_then(|body| body.mutation);
            if let Some(Mutation::StreamedResponse(piece)) = mutation {
                assert!(piece.body.len() <= 62_000);
            }
        }
        if machine.flow() == Flow::Close {
            break;
        }
    }
    machine.time_out();
    drop(machine);
    let in_flight: u32 = core.reader.load().endpoints().iter().map(|endpoint| endpoint.live.in_flight()).sum();
    assert_eq!((in_flight, core.metrics.body_bytes_held.get()), (0, 0));
});
