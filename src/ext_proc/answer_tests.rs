//! Answers as they pass: what is asked for, what is learned, and that nothing of them changes.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpTrailers, ProcessingRequest, ProcessingResponse, ProtocolConfiguration, processing_request::Request,
    processing_response::Response,
};

use crate::config::{Config, ObserveAnswers};
use crate::routing::{
    AnswerNeeds, Candidates, Decision, Needs, RequestView, ResponseHeaders, Router, StrategySet, Trace,
};
use crate::state::{Endpoint, Outcomes};

use super::machine::Machine;
use super::machine_tests::{
    BUFFERED, Bench, CHAT, DUPLEX, NONE, STREAMED, body, headers_of, message, post, say, words,
};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
const STREAM: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n";

/// Takes the first endpoint, measures answers, and has a header for the client.
#[derive(Debug)]
struct Measuring(AnswerNeeds);

impl Router for Measuring {
    fn needs(&self) -> Needs {
        Needs { answers: self.0, ..Needs::default() }
    }

    fn route(&self, _: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        Decision::Send(Arc::clone(candidates.at(0)))
    }

    fn response_headers(&self, _: &RequestView<'_>, served: &Endpoint, headers: &mut ResponseHeaders) {
        headers.push(("x-session-id", served.address_text().to_owned().into()));
    }
}

const BOTH: AnswerNeeds = AnswerNeeds { first_token: true, usage: true };

fn config(observe_answers: ObserveAnswers) -> Config {
    let mut config = Config::default();
    config.routing.observe_answers = observe_answers;
    config
}

fn bench(needs: AnswerNeeds, observe: ObserveAnswers) -> Bench {
    Bench::deciding_by(StrategySet::only(Arc::new(Measuring(needs))), &config(observe))
}

/// A request that was sent, under these body modes of request and response.
pub(super) fn sent(bench: &Bench, (request, response): (i32, i32), asked: &[u8]) -> Machine {
    let mut machine = bench.machine();
    let protocol = ProtocolConfiguration {
        request_body_mode: request,
        response_body_mode: response,
        ..ProtocolConfiguration::default()
    };
    say(&mut machine, ProcessingRequest { protocol_config: Some(protocol), ..post(request, &[]) });
    say(&mut machine, body(request, asked, true));
    assert_eq!(bench.in_flight(), 1);
    machine
}

fn chat(bench: &Bench, request: i32, response: i32) -> Machine {
    sent(bench, (request, response), CHAT.as_bytes())
}

fn answered(status: &str, content_type: &str) -> ProcessingRequest {
    let pairs = [(":status", status), ("content-type", content_type)];
    message(BUFFERED, Request::ResponseHeaders(headers_of(&pairs, false)))
}

fn piece(bytes: &[u8], end_of_stream: bool) -> ProcessingRequest {
    message(BUFFERED, Request::ResponseBody(HttpBody { body: bytes.to_vec(), end_of_stream, ..Default::default() }))
}

fn asks(replies: &[ProcessingResponse]) -> Option<(i32, i32, i32)> {
    let mode = replies[0].mode_override?;
    Some((mode.request_body_mode, mode.response_body_mode, mode.response_trailer_mode))
}

fn outcomes(bench: &Bench) -> Outcomes {
    bench.core.reader.load().endpoints()[0].live.measured.outcomes(bench.core.clock.now())
}

#[test]
fn a_body_is_asked_for_where_the_strategy_measures_it_and_nowhere_else() {
    let usage = AnswerNeeds { usage: true, ..AnswerNeeds::default() };
    let first_token = AnswerNeeds { first_token: true, ..AnswerNeeds::default() };
    let none = AnswerNeeds::default();
    let shown = Some((BUFFERED, STREAMED, 1));
    for (needs, observe, status, content_type, expected) in [
        (BOTH, ObserveAnswers::Auto, "200", EVENTS, shown),
        (usage, ObserveAnswers::Auto, "200", EVENTS, shown),
        (usage, ObserveAnswers::Auto, "200", JSON, shown),
        (first_token, ObserveAnswers::Auto, "200", EVENTS, shown),
        (first_token, ObserveAnswers::Auto, "200", JSON, None),
        (BOTH, ObserveAnswers::Auto, "429", JSON, None),
        (BOTH, ObserveAnswers::Auto, "200", "audio/wav", None),
        (BOTH, ObserveAnswers::Never, "200", EVENTS, None),
        (none, ObserveAnswers::Auto, "200", EVENTS, None),
        (none, ObserveAnswers::Always, "200", JSON, shown),
    ] {
        let bench = bench(needs, observe);
        let replies = say(&mut chat(&bench, BUFFERED, NONE), answered(status, content_type));
        assert_eq!(asks(&replies), expected, "{needs:?} {observe:?} {status} {content_type}");
    }
}

#[test]
fn where_envoy_ignores_overrides_none_is_sent() {
    let bench = bench(BOTH, ObserveAnswers::Auto);
    for (request, response) in [(DUPLEX, NONE), (BUFFERED, STREAMED), (BUFFERED, DUPLEX)] {
        assert_eq!(asks(&say(&mut chat(&bench, request, response), answered("200", EVENTS))), None);
    }
    let refusing = Config {
        envoy: crate::config::Envoy { mode_override: false, ..Config::default().envoy },
        ..config(ObserveAnswers::Auto)
    };
    let bench = Bench::deciding_by(StrategySet::only(Arc::new(Measuring(BOTH))), &refusing);
    assert_eq!(asks(&say(&mut chat(&bench, BUFFERED, NONE), answered("200", EVENTS))), None);
}

#[test]
fn pieces_are_passed_on_and_tell_the_first_token_and_the_usage() {
    for (mode, plain) in [(STREAMED, true), (DUPLEX, false)] {
        let bench = bench(BOTH, ObserveAnswers::Auto);
        let mut machine = chat(&bench, BUFFERED, mode);
        say(&mut machine, answered("200", EVENTS));
        let live = Arc::clone(&bench.core.reader.load().endpoints()[0].live);
        for (at, bytes) in STREAM.chunks(20).enumerate() {
            let reply = words(&say(&mut machine, piece(bytes, false)));
            let expected =
                if plain { "response-body".to_owned() } else { format!("response-body piece {}", bytes.len()) };
            assert_eq!(reply, [expected], "{at}");
        }
        let now = bench.core.clock.now();
        assert!(live.measured.ttft_mean(now).is_some());
        assert_eq!((live.ours.in_flight(), live.ours.prefill_tokens()), (1, 0));
        say(&mut machine, piece(b"", true));
        let seen = outcomes(&bench);
        assert_eq!((seen.answered, seen.prompt_tokens, seen.output_tokens, bench.in_flight()), (1, 40, 7, 0));
    }
}

#[test]
fn a_json_answer_tells_its_usage_and_no_first_token() {
    for mode in [STREAMED, BUFFERED] {
        let bench = bench(BOTH, ObserveAnswers::Auto);
        let mut machine = chat(&bench, BUFFERED, mode);
        say(&mut machine, answered("200", JSON));
        say(&mut machine, piece(br#"{"usage":{"prompt_tokens":9,"completion_tokens":3}}"#, true));
        let seen = outcomes(&bench);
        assert_eq!((seen.prompt_tokens, seen.output_tokens), (9, 3));
        let now = bench.core.clock.now();
        assert_eq!(bench.core.reader.load().endpoints()[0].live.measured.ttft_mean(now), None);
    }
}

#[test]
fn an_answer_that_cannot_be_read_costs_nothing_but_its_numbers() {
    let expected = u64::from(Config::default().routing.expected_output_tokens);
    for (content_type, bytes) in [(EVENTS, &b"\xff\0garbage"[..]), (JSON, b"{\"usage\":"), ("text/html", b"<html>")] {
        let bench = bench(BOTH, ObserveAnswers::Auto);
        let mut machine = chat(&bench, BUFFERED, STREAMED);
        say(&mut machine, answered("200", content_type));
        assert_eq!(words(&say(&mut machine, piece(bytes, false))), ["response-body"]);
        assert_eq!(words(&say(&mut machine, piece(b"", true))), ["response-body"]);
        assert_eq!(outcomes(&bench).output_tokens, expected);
    }
}

#[test]
fn an_answer_that_broke_off_counts_with_what_was_seen() {
    let bench = bench(BOTH, ObserveAnswers::Auto);
    let mut machine = chat(&bench, BUFFERED, STREAMED);
    say(&mut machine, answered("200", EVENTS));
    for _ in 0..3 {
        say(&mut machine, piece(b"data: {\"choices\":[]}\n\n", false));
    }
    drop(machine);
    assert_eq!((outcomes(&bench).output_tokens, bench.in_flight()), (3, 0));
}

#[test]
fn answers_and_failures_are_booked_at_the_head() {
    for (status, expected) in [("200", (1, 0)), ("404", (1, 0)), ("429", (1, 0)), ("500", (0, 1)), ("504", (0, 1))] {
        let bench = bench(AnswerNeeds::default(), ObserveAnswers::Auto);
        let mut machine = chat(&bench, BUFFERED, NONE);
        say(&mut machine, answered(status, JSON));
        let seen = outcomes(&bench);
        assert_eq!((seen.answered, seen.failed), expected, "{status}");
        say(&mut machine, message(BUFFERED, Request::ResponseTrailers(HttpTrailers::default())));
        let is_good = status == "200";
        assert_eq!(outcomes(&bench).output_tokens > 0, is_good, "only answers have tokens: {status}");
    }
}

#[test]
fn a_header_of_the_strategy_replaces_the_engines_in_every_mode() {
    for (request, response) in [(BUFFERED, NONE), (BUFFERED, STREAMED), (DUPLEX, DUPLEX), (NONE, BUFFERED), (3, NONE)] {
        let bench = bench(BOTH, ObserveAnswers::Auto);
        let replies = say(&mut chat(&bench, request, response), answered("200", EVENTS));
        let Some(Response::ResponseHeaders(reply)) = &replies[0].response else { panic!("{replies:?}") };
        let set = &reply.response.as_ref().unwrap().header_mutation.as_ref().unwrap().set_headers;
        let ours = set.iter().find(|set| set.header.as_ref().unwrap().key == "x-session-id").unwrap();
        assert_eq!(ours.append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd));
        assert_eq!(ours.header.as_ref().unwrap().raw_value, b"127.0.0.1:1");
    }
}
