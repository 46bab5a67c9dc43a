//! The answer to a request whose model was rewritten: it names the model that the client asked for, whatever the mode.

use std::sync::Arc;

use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, HttpBody, HttpTrailers, ProcessingRequest, ProcessingResponse, body_mutation::Mutation,
    processing_request::Request, processing_response::Response,
};

use super::answer_tests::sent;
use super::machine::Machine;
use super::machine_tests::{BUFFERED, Bench, DUPLEX, NONE, STREAMED, headers_of, message, say, words};
use super::rewrite_tests::{ASKED, SERVED, bench, common, header, sent_on};
use super::settings::Settings;

const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
const STREAM: &[u8] =
    b"data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"m\"}}]}\n\ndata: {\"model\":\"m\"}\n\ndata: [DONE]\n\n";
const RESTORED: &[u8] =
    b"data: {\"model\":\"public\",\"choices\":[{\"delta\":{\"content\":\"m\"}}]}\n\ndata: {\"model\":\"public\"}\n\ndata: [DONE]\n\n";

/// The response headers; whether the answer's body is asked for.
fn is_asked_for(machine: &mut Machine, status: &str, headers: &[(&str, &str)]) -> bool {
    let pairs = [&[(":status", status)], headers].concat();
    let replies = say(machine, message(BUFFERED, Request::ResponseHeaders(headers_of(&pairs, false))));
    let mode = replies[0].mode_override;
    let Some(Response::ResponseHeaders(reply)) = &replies[0].response else { panic!("{replies:?}") };
    let mutation = reply.response.as_ref().unwrap().header_mutation.as_ref().unwrap();
    assert_eq!(mutation.remove_headers == ["content-length"], mode.is_some());
    mode.inspect(|mode| assert_eq!((mode.request_body_mode, mode.response_body_mode), (BUFFERED, STREAMED))).is_some()
}

fn piece(bytes: &[u8], end_of_stream: bool) -> ProcessingRequest {
    message(BUFFERED, Request::ResponseBody(HttpBody { body: bytes.to_vec(), end_of_stream, ..Default::default() }))
}

/// What reaches the client of an answer in these pieces, each answered once.
fn received(machine: &mut Machine, pieces: &[&[u8]]) -> Vec<u8> {
    let mut received = Vec::new();
    for (at, bytes) in pieces.iter().enumerate() {
        let replies = say(machine, piece(bytes, at + 1 == pieces.len()));
        assert_eq!(replies.len(), 1);
        match common(&replies[0]).unwrap().body_mutation.as_ref() {
            None => received.extend_from_slice(bytes),
            Some(BodyMutation { mutation: Some(Mutation::Body(body)) }) => received.extend_from_slice(body),
            other => panic!("{other:?}"),
        }
    }
    received
}

fn refusing() -> Bench {
    let bench = bench();
    let settings = Settings { mode_override: false, ..(*bench.settings).clone() };
    Bench { settings: Arc::new(settings), ..bench }
}

#[test]
fn the_body_of_an_answer_is_asked_for_where_its_model_was_rewritten_and_nowhere_else() {
    let asked = |bench: &Bench, modes, request: &[u8], status, headers: &[(&str, &str)]| {
        is_asked_for(&mut sent(bench, modes, request), status, headers)
    };
    let (bench, modes) = (bench(), (BUFFERED, NONE));
    assert!(asked(&bench, modes, ASKED, "200", &[JSON]));
    assert!(asked(&bench, modes, ASKED, "200", &[EVENTS]));
    assert!(!asked(&bench, modes, SERVED, "200", &[JSON]));
    assert!(!asked(&bench, modes, ASKED, "404", &[JSON]));
    assert!(!asked(&bench, modes, ASKED, "200", &[("content-type", "audio/wav")]));
    assert!(!asked(&bench, modes, ASKED, "200", &[JSON, ("content-encoding", "gzip")]));
    assert!(!asked(&bench, (DUPLEX, NONE), ASKED, "200", &[JSON]));
    assert!(!asked(&refusing(), modes, ASKED, "200", &[JSON]));
}

#[test]
fn pieces_are_answered_one_by_one_and_only_those_that_change_are_replaced() {
    for modes in [(BUFFERED, NONE), (BUFFERED, STREAMED), (DUPLEX, STREAMED)] {
        for size in [1, 2, 7, 16, 500] {
            let mut machine = sent(&bench(), modes, ASKED);
            is_asked_for(&mut machine, "200", &[EVENTS]);
            let mut pieces: Vec<_> = STREAM.chunks(size).collect();
            pieces.push(b"");
            assert_eq!(received(&mut machine, &pieces), RESTORED, "{modes:?} {size}");
        }
    }
    let mut machine = sent(&bench(), (BUFFERED, NONE), ASKED);
    is_asked_for(&mut machine, "200", &[EVENTS]);
    assert_eq!(words(&say(&mut machine, piece(b": ping\n\n", false))), ["response-body"]);
    let mut machine = sent(&bench(), (BUFFERED, STREAMED), SERVED);
    is_asked_for(&mut machine, "200", &[EVENTS]);
    assert_eq!(received(&mut machine, &[STREAM]), STREAM);
}

#[test]
fn a_name_that_never_ends_is_not_lost() {
    let mut machine = sent(&bench(), (BUFFERED, NONE), ASKED);
    is_asked_for(&mut machine, "200", &[JSON]);
    assert_eq!(received(&mut machine, &[b"{\"model\":\"", b"m", b""]), b"{\"model\":\"m");
}

#[test]
fn in_duplex_mode_the_pieces_are_sent_back_changed_and_what_is_held_back_before_the_trailers() {
    let mut machine = sent(&bench(), (DUPLEX, DUPLEX), ASKED);
    is_asked_for(&mut machine, "200", &[EVENTS]);
    let replies: Vec<ProcessingResponse> = STREAM
        .chunks(9)
        .chain([&b""[..]])
        .enumerate()
        .flat_map(|(at, bytes)| say(&mut machine, piece(bytes, at == STREAM.len().div_ceil(9))))
        .collect();
    assert_eq!(sent_on(&replies), RESTORED);
    let mut machine = sent(&bench(), (DUPLEX, DUPLEX), ASKED);
    is_asked_for(&mut machine, "200", &[JSON]);
    assert_eq!(sent_on(&say(&mut machine, piece(b"{\"model\":\"m", false))), b"{\"model\":\"");
    let replies = say(&mut machine, message(DUPLEX, Request::ResponseTrailers(HttpTrailers::default())));
    assert_eq!(words(&replies), ["response-body piece 1", "response-trailers"]);
}

#[test]
fn a_body_that_envoy_holds_back_is_replaced_with_its_new_length() {
    let mut machine = sent(&bench(), (BUFFERED, BUFFERED), ASKED);
    assert!(!is_asked_for(&mut machine, "200", &[JSON]));
    let replies = say(&mut machine, piece(br#"{"model":"m","n":1}"#, true));
    assert_eq!(sent_on(&replies), br#"{"model":"public","n":1}"#);
    assert_eq!(header(&replies[0], "content-length").as_deref(), Some("24"));
}
