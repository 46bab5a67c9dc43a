//! The protocol as tables: messages in, messages out, in every body mode.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, CommonResponse, HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProcessingResponse,
    ProtocolConfiguration, body_mutation::Mutation, processing_request::Request, processing_response::Response,
};
use proptest::prelude::*;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec};
use crate::exchange::Core;
use crate::routing::{self, Candidates, Decision, RequestView, Resume, Router, StrategySet, Trace, Wait};
use crate::state::{Change, Registry, SourceId};
use crate::telemetry::Metrics;

use super::machine::{Flow, Machine};
use super::replies::PIECE_BYTES_MAX;
use super::settings::Settings;

pub(super) const NONE: i32 = 0;
pub(super) const STREAMED: i32 = 1;
pub(super) const BUFFERED: i32 = 2;
const PARTIAL: i32 = 3;
pub(super) const DUPLEX: i32 = 4;

pub(super) const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

pub(super) struct Bench {
    pub(super) core: Arc<Core>,
    pub(super) settings: Arc<Settings>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(&Config::default())
    }

    pub(super) fn with(config: &Config) -> Self {
        Self::deciding_by(StrategySet::build(&config.routing.algorithm).unwrap(), config)
    }

    pub(super) fn deciding_by(strategies: StrategySet, config: &Config) -> Self {
        let mut registry = Registry::new();
        let spec = |port: u16| EndpointSpec {
            models: vec![crate::domain::ModelSpec { name: "m".into(), adapters: vec![] }],
            ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        registry.apply([Change::Replace(SourceId(0), vec![spec(1), spec(2), spec(3)])]).1.unwrap();
        let metrics = Metrics::new(&routing::names());
        let core = Core::new(config, registry.reader(), Arc::new(strategies), metrics, Clock::start());
        Self { core: Arc::new(core), settings: Arc::new(Settings::from(config)) }
    }

    pub(super) fn machine(&self) -> Machine {
        Machine::new(Arc::clone(&self.core), Arc::clone(&self.settings))
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.core.reader.load().endpoints().iter().map(|endpoint| endpoint.live.ours.in_flight()).sum()
    }
}

pub(super) fn message(mode: i32, request: Request) -> ProcessingRequest {
    let protocol_config = Some(ProtocolConfiguration { request_body_mode: mode, ..Default::default() });
    ProcessingRequest { protocol_config, request: Some(request), ..Default::default() }
}

pub(super) fn headers_of(pairs: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..Default::default()
    };
    let map = HeaderMap { headers: pairs.iter().map(header).collect() };
    HttpHeaders { headers: Some(map), end_of_stream, ..Default::default() }
}

pub(super) fn post(mode: i32, extra: &[(&str, &str)]) -> ProcessingRequest {
    let mut pairs = vec![(":method", "POST"), (":path", "/v1/chat/completions"), ("content-type", "application/json")];
    pairs.extend_from_slice(extra);
    message(mode, Request::RequestHeaders(headers_of(&pairs, false)))
}

pub(super) fn body(mode: i32, bytes: &[u8], end_of_stream: bool) -> ProcessingRequest {
    message(mode, Request::RequestBody(HttpBody { body: bytes.to_vec(), end_of_stream, ..Default::default() }))
}

fn trailers(mode: i32) -> ProcessingRequest {
    message(mode, Request::RequestTrailers(HttpTrailers::default()))
}

pub(super) fn answer(status: &str) -> ProcessingRequest {
    message(BUFFERED, Request::ResponseHeaders(headers_of(&[(":status", status)], false)))
}

pub(super) fn say(machine: &mut Machine, message: ProcessingRequest) -> Vec<ProcessingResponse> {
    machine.on_message(message);
    std::iter::from_fn(|| machine.next_reply()).collect()
}

/// One word for each reply, with what matters of it.
pub(super) fn words(replies: &[ProcessingResponse]) -> Vec<String> {
    replies.iter().map(word).collect()
}

fn word(reply: &ProcessingResponse) -> String {
    let mutation = |common: &Option<CommonResponse>| {
        let mutation = common.as_ref().and_then(|common| common.header_mutation.clone()).unwrap_or_default();
        let set: Vec<_> = mutation.set_headers.iter().filter_map(|set| set.header.clone()).map(|h| h.key).collect();
        let streamed = common.as_ref().and_then(|common| common.body_mutation.clone());
        let streamed = match streamed {
            Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) }) => {
                format!(" piece {}{}", piece.body.len(), if piece.end_of_stream { " end" } else { "" })
            }
            Some(_) => " body".to_owned(),
            None => String::new(),
        };
        let set = if set.is_empty() { String::new() } else { format!(" set {}", set.len()) };
        let removed = match mutation.remove_headers.as_slice() {
            [] => String::new(),
            names => format!(" remove {}", names.join(",")),
        };
        format!("{set}{removed}{streamed}")
    };
    match reply.response.as_ref().unwrap() {
        Response::RequestHeaders(r) => format!("headers{}", mutation(&r.response)),
        Response::RequestBody(r) => format!("body{}", mutation(&r.response)),
        Response::RequestTrailers(_) => "trailers".to_owned(),
        Response::ResponseHeaders(r) => format!("response-headers{}", mutation(&r.response)),
        Response::ResponseBody(r) => format!("response-body{}", mutation(&r.response)),
        Response::ResponseTrailers(_) => "response-trailers".to_owned(),
        Response::ImmediateResponse(r) => {
            format!("immediate {} {}", r.status.as_ref().unwrap().code, r.details)
        }
        Response::StreamedImmediateResponse(_) => "streamed-immediate".to_owned(),
    }
}

#[test]
fn buffered_headers_are_answered_at_once_and_the_body_carries_the_decision() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    assert_eq!(words(&say(&mut machine, post(BUFFERED, &[]))), ["headers"]);
    let replies = say(&mut machine, body(BUFFERED, CHAT.as_bytes(), true));
    assert_eq!(words(&replies), ["body set 3"]);
    assert!(replies[0].dynamic_metadata.is_some());
    assert_eq!(bench.in_flight(), 1);
    assert_eq!(words(&say(&mut machine, answer("200"))), ["response-headers set 4"]);
    drop(machine);
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn duplex_headers_wait_for_the_whole_body_which_comes_back_in_pieces() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    assert!(say(&mut machine, post(DUPLEX, &[])).is_empty());
    let (begin, end) = CHAT.as_bytes().split_at(10);
    assert!(say(&mut machine, body(DUPLEX, begin, false)).is_empty());
    assert!(say(&mut machine, body(DUPLEX, end, false)).is_empty());
    let last = say(&mut machine, body(DUPLEX, b"", true));
    assert_eq!(words(&last), ["headers set 3", "body piece 10", &format!("body piece {} end", end.len())]);
    assert!(say(&mut machine, body(DUPLEX, b"", true)).is_empty(), "a repeated end is ignored");
    assert_eq!(bench.in_flight(), 1);
}

#[test]
fn a_duplex_body_that_ends_with_trailers_leaves_the_end_to_them() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    say(&mut machine, post(DUPLEX, &[]));
    say(&mut machine, body(DUPLEX, CHAT.as_bytes(), false));
    let piece = format!("body piece {}", CHAT.len());
    assert_eq!(words(&say(&mut machine, trailers(DUPLEX))), ["headers set 3", &piece, "trailers"]);
}

#[test]
fn large_duplex_pieces_are_cut_to_what_envoy_takes() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    say(&mut machine, post(DUPLEX, &[]));
    let long = CHAT.replace("hi", &"x".repeat(130_000));
    let replies = words(&say(&mut machine, body(DUPLEX, long.as_bytes(), true)));
    let rest = long.len() - 2 * PIECE_BYTES_MAX;
    assert_eq!(replies[1..], ["body piece 62000".into(), "body piece 62000".into(), format!("body piece {rest} end")]);
}

#[test]
fn modes_without_a_body_to_see_decide_on_the_headers() {
    for mode in [NONE, STREAMED] {
        let bench = Bench::new();
        let mut machine = bench.machine();
        assert_eq!(words(&say(&mut machine, post(mode, &[]))), ["headers set 3"]);
        if mode == STREAMED {
            assert_eq!(words(&say(&mut machine, body(mode, b"{", false))), ["body"]);
            assert_eq!(words(&say(&mut machine, body(mode, b"}", true))), ["body"]);
        }
    }
}

#[test]
fn streamed_pieces_that_come_early_are_answered_behind_the_headers() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    let mut first = post(STREAMED, &[]);
    first.protocol_config.as_mut().unwrap().send_body_without_waiting_for_header_response = true;
    assert!(say(&mut machine, first).is_empty());
    let (begin, end) = CHAT.as_bytes().split_at(10);
    assert!(say(&mut machine, body(STREAMED, begin, false)).is_empty());
    assert_eq!(words(&say(&mut machine, body(STREAMED, end, true))), ["headers set 3", "body", "body"]);
}

#[test]
fn a_partial_body_is_read_as_far_as_it_goes() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    assert_eq!(words(&say(&mut machine, post(PARTIAL, &[]))), ["headers"]);
    let cut = &CHAT.as_bytes()[..CHAT.len() - 8];
    assert_eq!(words(&say(&mut machine, body(PARTIAL, cut, false))), ["body set 3"]);
}

#[test]
fn without_protocol_config_a_buffered_body_is_assumed() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    let plain = |message| ProcessingRequest { protocol_config: None, ..message };
    assert_eq!(words(&say(&mut machine, plain(post(0, &[])))), ["headers"]);
    assert_eq!(words(&say(&mut machine, plain(body(0, CHAT.as_bytes(), true)))), ["body set 3"]);
}

#[test]
fn forged_steering_headers_are_removed_in_the_header_phase_on_every_path() {
    let forged = [("target-pod", "10.0.0.1:1"), ("x-gateway-destination-endpoint", "10.0.0.1:1")];
    let bench = Bench::new();
    let removed = "headers remove target-pod,x-gateway-destination-endpoint";
    assert_eq!(words(&say(&mut bench.machine(), post(BUFFERED, &forged))), [removed]);
    for method in ["GET", "POST"] {
        let mut pairs = vec![(":method", method), (":path", "/elsewhere")];
        pairs.extend(forged);
        let get = message(BUFFERED, Request::RequestHeaders(headers_of(&pairs, true)));
        let replies = say(&mut bench.machine(), get);
        assert_eq!(words(&replies), [removed]);
        assert!(replies[0].dynamic_metadata.is_none());
    }
    // Where the same answer sets the header, setting it is removing it.
    assert_eq!(words(&say(&mut bench.machine(), post(NONE, &forged))), ["headers set 3"]);
}

#[test]
fn an_upgrade_is_answered_on_its_headers() {
    let pairs = [(":method", "GET"), (":path", "/v1/realtime?model=m"), ("upgrade", "websocket")];
    for mode in [BUFFERED, DUPLEX] {
        let bench = Bench::new();
        let upgrade = message(mode, Request::RequestHeaders(headers_of(&pairs, false)));
        assert_eq!(words(&say(&mut bench.machine(), upgrade)), ["headers set 3"]);
    }
}

#[test]
fn refusals_say_why_and_end_the_stream() {
    let cases = [
        (r#"{"model":"unheard-of","messages":[]}"#, "immediate 404 model_not_found"),
        (r#"{"model":"m","#, "immediate 400"),
        (r#"{"model":"m","model":"n"}"#, "immediate 400"),
        (r#"{"model":"m","messages":[],"kv_transfer_params":{}}"#, "immediate 400"),
        ("", "immediate 400"),
    ];
    for mode in [BUFFERED, DUPLEX] {
        for (text, expected) in &cases {
            let bench = Bench::new();
            let mut machine = bench.machine();
            say(&mut machine, post(mode, &[]));
            let replies = words(&say(&mut machine, body(mode, text.as_bytes(), true)));
            assert!(replies.len() == 1 && replies[0].starts_with(expected), "{text}: {replies:?}");
            assert_eq!((machine.flow(), bench.in_flight()), (Flow::Close, 0));
        }
    }
    let bench = Bench::new();
    for (extra, expected) in [
        (("routing-strategy", "fastest"), "immediate 400 unknown_strategy"),
        (("content-encoding", "gzip"), "immediate 415 unsupported_content_encoding"),
        (("content-length", "99999999999"), "immediate 413"),
    ] {
        let replies = words(&say(&mut bench.machine(), post(BUFFERED, &[extra])));
        assert!(replies[0].starts_with(expected), "{replies:?}");
    }
}

#[test]
fn models_are_listed_without_any_engine() {
    let bench = Bench::new();
    let get =
        |path| message(BUFFERED, Request::RequestHeaders(headers_of(&[(":method", "GET"), (":path", path)], true)));
    assert_eq!(words(&say(&mut bench.machine(), get("/v1/models"))), ["immediate 200 models"]);
    assert_eq!(words(&say(&mut bench.machine(), get("/v1/models/m"))), ["immediate 200 models"]);
    assert_eq!(words(&say(&mut bench.machine(), get("/v1/models/n"))), ["immediate 404 model_not_found"]);
}

#[test]
fn an_observed_stream_is_never_answered_and_counts_nowhere() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    let observed = |message| ProcessingRequest { observability_mode: true, ..message };
    for message in [post(STREAMED, &[]), body(STREAMED, CHAT.as_bytes(), true), answer("200")] {
        assert!(say(&mut machine, observed(message)).is_empty());
        assert_eq!(bench.in_flight(), 0);
    }
    assert_eq!(machine.flow(), Flow::Close);
}

#[test]
fn a_body_that_never_ends_times_out_where_we_hold_it() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    say(&mut machine, post(DUPLEX, &[]));
    assert_eq!(machine.time_limit().unwrap().after, Duration::from_mins(1));
    machine.time_out();
    assert_eq!(word(&machine.next_reply().unwrap()), "immediate 408 request_timeout");
}

/// Makes every request wait; hands the handles to the test.
#[derive(Debug, Default)]
struct Queue(Mutex<Vec<Resume>>);

impl Router for Queue {
    fn route(&self, _: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let mut waiting = self.0.lock().unwrap();
        if waiting.len() == 2 {
            return Decision::Send(Arc::clone(candidates.at(1)));
        }
        let (wait, resume) = Wait::new();
        waiting.push(resume);
        Decision::Wait(wait)
    }
}

fn queued(mode: i32) -> (Bench, Machine) {
    let bench = Bench::deciding_by(StrategySet::only(Arc::<Queue>::default()), &Config::default());
    let mut machine = bench.machine();
    say(&mut machine, post(mode, &[]));
    assert!(say(&mut machine, body(mode, CHAT.as_bytes(), true)).is_empty());
    (bench, machine)
}

#[test]
fn a_decision_that_takes_too_long_falls_to_the_least_loaded_endpoint() {
    for (mode, expected) in [(BUFFERED, vec!["body set 3"]), (DUPLEX, vec!["headers set 3", "body piece 57 end"])] {
        let (bench, mut machine) = queued(mode);
        assert_eq!(machine.time_limit().unwrap().after, Duration::from_secs(2));
        machine.time_out();
        let replies: Vec<_> = std::iter::from_fn(|| machine.next_reply()).collect();
        assert_eq!(words(&replies), expected);
        assert_eq!((machine.time_limit(), bench.in_flight()), (None, 1));
        assert!(bench.core.metrics.encode().contains("fairlead_degraded_decisions_total 1"));
    }
}

#[test]
fn a_resumed_request_is_decided_again_and_may_wait_again() {
    let (bench, mut machine) = queued(BUFFERED);
    let first = machine.time_limit();
    machine.resume();
    assert!(machine.waiting().is_some());
    assert_ne!(machine.time_limit(), first, "a second wait has a limit of its own");
    machine.resume();
    assert_eq!(word(&machine.next_reply().unwrap()), "body set 3");
    assert_eq!(bench.in_flight(), 1);
}

#[test]
fn a_client_that_leaves_while_its_decision_waits_leaves_nothing() {
    let (bench, machine) = queued(DUPLEX);
    drop(machine);
    assert_eq!((bench.in_flight(), bench.core.metrics.body_bytes_held.get()), (0, 0));
}

#[test]
fn a_path_in_another_spelling_is_the_same_path() {
    let pairs = [(":method", "POST"), (":path", "/v1/%63hat/completions")];
    let bench = Bench::new();
    let mut machine = bench.machine();
    say(&mut machine, message(BUFFERED, Request::RequestHeaders(headers_of(&pairs, false))));
    let steering = r#"{"model":"m","messages":[],"kv_transfer_params":{}}"#;
    let replies = words(&say(&mut machine, body(BUFFERED, steering.as_bytes(), true)));
    assert!(replies[0].starts_with("immediate 400"), "{replies:?}");
}

#[test]
fn an_upgrade_turns_the_buffering_of_a_body_off() {
    let pairs = [(":method", "GET"), (":path", "/v1/realtime?model=m"), ("upgrade", "websocket")];
    let bench = Bench::new();
    let replies = say(&mut bench.machine(), message(BUFFERED, Request::RequestHeaders(headers_of(&pairs, false))));
    assert_eq!(replies[0].mode_override.unwrap().request_body_mode, NONE);
}

#[test]
fn a_long_streamed_body_is_decided_by_its_beginning() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    let mut first = post(STREAMED, &[]);
    first.protocol_config.as_mut().unwrap().send_body_without_waiting_for_header_response = true;
    say(&mut machine, first);
    let long = CHAT.replace("hi", &"x".repeat(40_000));
    let (begin, more) = long.as_bytes().split_at(20_000);
    assert!(say(&mut machine, body(STREAMED, begin, false)).is_empty());
    assert_eq!(words(&say(&mut machine, body(STREAMED, &more[..15_000], false))), ["headers set 3", "body", "body"]);
    assert_eq!(words(&say(&mut machine, body(STREAMED, &more[15_000..], true))), ["body"]);
}

#[test]
fn the_budget_holds_a_duplex_body_until_its_last_piece_is_sent() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    say(&mut machine, post(DUPLEX, &[]));
    machine.on_message(body(DUPLEX, CHAT.as_bytes(), true));
    let held = || bench.core.metrics.body_bytes_held.get();
    assert_eq!(held(), i64::try_from(CHAT.len()).unwrap());
    while machine.next_reply().is_some() {}
    assert_eq!(held(), 0);
}

#[test]
fn trailers_are_asked_for_once_streams_have_shown_to_end_early() {
    let bench = Bench::new();
    for _ in 0..100 {
        let mut machine = bench.machine();
        assert!(say(&mut machine, post(BUFFERED, &[]))[0].mode_override.is_none());
        say(&mut machine, body(BUFFERED, CHAT.as_bytes(), true));
    }
    let mode = say(&mut bench.machine(), post(BUFFERED, &[]))[0].mode_override.unwrap();
    assert_eq!((mode.request_body_mode, mode.response_trailer_mode), (BUFFERED, 1), "the body mode is repeated");
    assert!(say(&mut bench.machine(), post(DUPLEX, &[])).is_empty());
}

fn any_message() -> impl Strategy<Value = ProcessingRequest> {
    let modes = prop::sample::select(vec![NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX, 5, 99]);
    let bytes = prop::sample::select(vec![&b""[..], b"{", CHAT.as_bytes(), b"\xff\xfe"]);
    (modes, 0..8, bytes, any::<bool>()).prop_map(|(mode, kind, bytes, end)| match kind {
        0 | 1 => post(mode, &[]),
        2 | 3 => body(mode, bytes, end),
        4 => trailers(mode),
        5 => answer("503"),
        6 => message(
            mode,
            Request::ResponseBody(HttpBody { body: bytes.to_vec(), end_of_stream: end, ..Default::default() }),
        ),
        _ => message(mode, Request::ResponseTrailers(HttpTrailers::default())),
    })
}

proptest! {
    #[test]
    fn any_order_of_messages_is_survived_and_leaves_nothing_in_flight(messages in prop::collection::vec(any_message(), 0..12)) {
        let bench = Bench::new();
        let mut machine = bench.machine();
        for message in messages {
            say(&mut machine, message);
            if machine.flow() == Flow::Close {
                break;
            }
        }
        drop(machine);
        prop_assert_eq!(bench.in_flight(), 0);
    }

    #[test]
    fn any_split_of_a_duplex_body_comes_back_whole(cuts in prop::collection::vec(0usize..200_000, 0..6), length in 0usize..150_000) {
        let text = CHAT.replace("hi", &"y".repeat(length));
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % text.len()).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let bench = Bench::new();
        let mut machine = bench.machine();
        say(&mut machine, post(DUPLEX, &[]));
        let mut replies = Vec::new();
        for pair in cuts.windows(2) {
            replies.extend(say(&mut machine, body(DUPLEX, &text.as_bytes()[pair[0]..pair[1]], false)));
        }
        replies.extend(say(&mut machine, body(DUPLEX, b"", true)));
        let mut whole = Vec::new();
        let mut ends = 0;
        for reply in &replies[1..] {
            let Some(Response::RequestBody(reply)) = &reply.response else { panic!("not a body") };
            let Some(Mutation::StreamedResponse(piece)) =
                reply.response.clone().unwrap().body_mutation.unwrap().mutation else { panic!("not a piece") };
            prop_assert!(piece.body.len() <= PIECE_BYTES_MAX);
            whole.extend(piece.body);
            ends += usize::from(piece.end_of_stream);
        }
        prop_assert_eq!(whole, text.as_bytes());
        prop_assert_eq!(ends, 1);
    }
}
