//! A model that is rewritten: the body that goes on has the other name, whatever the mode, or is left alone.

use envoy_types::pb::envoy::service::ext_proc::v3::{
    CommonResponse, ProcessingResponse, body_mutation::Mutation, processing_response::Response,
};

use crate::state::{Policies, PolicyBook, Rewrite};

use super::machine_tests::{BUFFERED, Bench, DUPLEX, STREAMED, body, post, say};

pub(super) const ASKED: &[u8] = br#"{"messages":[{"role":"user","content":"hi"}],"model":"public","n":1}"#;
pub(super) const SERVED: &[u8] = br#"{"messages":[{"role":"user","content":"hi"}],"model":"m","n":1}"#;

/// Where everything for `public` goes to the model that is there.
pub(super) fn bench() -> Bench {
    let bench = Bench::new();
    let rule = Rewrite { models: vec!["public".into()], targets: vec![("m".into(), 1)] };
    let objectives = [("hot".into(), 9)].into();
    bench.core.policies.publish(PolicyBook::new(Policies { rewrites: vec![rule], objectives }, [].into()));
    bench
}

pub(super) fn common(reply: &ProcessingResponse) -> Option<&CommonResponse> {
    match reply.response.as_ref()? {
        Response::RequestHeaders(headers) => headers.response.as_ref(),
        Response::RequestBody(body) | Response::ResponseBody(body) => body.response.as_ref(),
        _ => None,
    }
}

/// The body that goes on, out of all replies.
pub(super) fn sent_on(replies: &[ProcessingResponse]) -> Vec<u8> {
    let mutations = replies.iter().filter_map(|reply| common(reply)?.body_mutation.as_ref()?.mutation.as_ref());
    let pieces = mutations.map(|mutation| match mutation {
        Mutation::Body(body) => body.clone(),
        Mutation::StreamedResponse(piece) => piece.body.clone(),
        Mutation::ClearBody(_) => Vec::new(),
    });
    pieces.collect::<Vec<_>>().concat()
}

pub(super) fn header(reply: &ProcessingResponse, name: &str) -> Option<String> {
    let headers = &common(reply)?.header_mutation.as_ref()?.set_headers;
    let header = headers.iter().filter_map(|set| set.header.as_ref()).find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(&header.raw_value).into_owned())
}

#[test]
fn a_buffered_body_is_replaced_with_its_new_length() {
    let mut machine = bench().machine();
    say(&mut machine, post(BUFFERED, &[]));
    let replies = say(&mut machine, body(BUFFERED, ASKED, true));
    assert_eq!(sent_on(&replies), SERVED);
    assert_eq!(header(&replies[0], "content-length"), Some(SERVED.len().to_string()));
    assert!(header(&replies[0], "target-pod").is_some());
}

#[test]
fn a_duplex_body_is_sent_back_rewritten_also_where_the_name_was_cut() {
    let cut = ASKED.windows(6).position(|window| window == b"public").unwrap() + 3;
    let mut machine = bench().machine();
    say(&mut machine, post(DUPLEX, &[]));
    assert!(say(&mut machine, body(DUPLEX, &ASKED[..cut], false)).is_empty());
    let replies = say(&mut machine, body(DUPLEX, &ASKED[cut..], true));
    assert_eq!(sent_on(&replies), SERVED);
    assert_eq!(header(&replies[0], "content-length"), None);
}

#[test]
fn a_body_that_cannot_be_changed_keeps_its_model() {
    let mut machine = bench().machine();
    let replies = say(&mut machine, post(STREAMED, &[("x-gateway-model-name", "public")]));
    let refused = |reply: &ProcessingResponse| matches!(reply.response, Some(Response::ImmediateResponse(_)));
    assert!(replies.iter().any(refused), "nobody serves it under that name: {replies:?}");
}

#[test]
fn what_no_rule_names_is_not_touched() {
    let mut machine = bench().machine();
    say(&mut machine, post(BUFFERED, &[]));
    let replies = say(&mut machine, body(BUFFERED, SERVED, true));
    assert!(sent_on(&replies).is_empty());
    assert_eq!(header(&replies[0], "content-length"), None);
}
