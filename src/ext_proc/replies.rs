//! Building what Envoy is answered.

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ImmediateResponse, ProcessingResponse,
    StreamedBodyResponse, TrailersResponse, body_mutation::Mutation, processing_response::Response,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use crate::exchange::{Dispatch, LocalReply};

use super::settings::Settings;

/// Header and metadata key of the endpoint-picker protocol.
const ENDPOINT: &str = "x-gateway-destination-endpoint";
/// Metadata namespace of the endpoint-picker protocol.
const NAMESPACE: &str = "envoy.lb";
/// Largest piece in which a body is sent back: Envoy builds cap a streamed piece near 64 KiB.
pub(super) const PIECE_BYTES_MAX: usize = 62_000;

pub(super) fn message(response: Response) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

/// Overwrites a header. The value goes into `raw_value`; Envoy ignores `value`.
pub(super) fn set(name: &str, value: impl Into<Vec<u8>>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), raw_value: value.into(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// The headers that carry a decision.
pub(super) fn destination(settings: &Settings, dispatch: Dispatch<'_>, list: &str) -> HeaderMutation {
    let mut mutation = HeaderMutation::default();
    if settings.endpoint_header {
        mutation.set_headers.push(set(ENDPOINT, list));
    }
    if settings.target_pod {
        mutation.set_headers.push(set("target-pod", dispatch.plan.first().address_text()));
    }
    mutation.set_headers.push(set("routing-strategy", dispatch.strategy));
    mutation
}

/// The same decision as dynamic metadata, which no client can forge.
pub(super) fn metadata(list: String) -> Struct {
    let text = Value { kind: Some(Kind::StringValue(list)) };
    let inner = Struct { fields: HashMap::from([(ENDPOINT.to_owned(), text)]) };
    let outer = Value { kind: Some(Kind::StructValue(inner)) };
    Struct { fields: HashMap::from([(NAMESPACE.to_owned(), outer)]) }
}

/// Removes headers, except those that the same mutation sets: overwriting is removing.
pub(super) fn remove(mutation: &mut HeaderMutation, names: &[&'static str]) {
    let is_set = |name: &str| mutation.set_headers.iter().any(|set| set.header.as_ref().is_some_and(|h| h.key == name));
    let removed: Vec<_> = names.iter().filter(|name| !is_set(name)).map(|name| (*name).to_owned()).collect();
    mutation.remove_headers.extend(removed);
}

pub(super) fn common(mutation: HeaderMutation, clear_route_cache: bool) -> CommonResponse {
    let is_empty = mutation.set_headers.is_empty() && mutation.remove_headers.is_empty();
    CommonResponse { header_mutation: (!is_empty).then_some(mutation), clear_route_cache, ..CommonResponse::default() }
}

pub(super) fn request_headers(common: CommonResponse) -> Response {
    Response::RequestHeaders(HeadersResponse { response: Some(common) })
}

pub(super) fn request_body(common: CommonResponse) -> Response {
    Response::RequestBody(BodyResponse { response: Some(common) })
}

pub(super) fn request_trailers() -> Response {
    Response::RequestTrailers(TrailersResponse::default())
}

/// Headers for the client. The body's length goes if it `loses_length`.
pub(super) fn response_headers(headers: Vec<(&'static str, Cow<'static, str>)>, loses_length: bool) -> Response {
    let set_headers = headers.into_iter().map(|(name, value)| set(name, value.into_owned())).collect();
    let mut mutation = HeaderMutation { set_headers, ..HeaderMutation::default() };
    if loses_length {
        remove(&mut mutation, &["content-length"]);
    }
    Response::ResponseHeaders(HeadersResponse { response: Some(common(mutation, false)) })
}

pub(super) fn response_body(common: CommonResponse) -> Response {
    Response::ResponseBody(BodyResponse { response: Some(common) })
}

pub(super) fn response_trailers() -> Response {
    Response::ResponseTrailers(TrailersResponse::default())
}

/// A piece of a body on its way on, in duplex mode.
pub(super) fn streamed(body: Vec<u8>, end_of_stream: bool) -> CommonResponse {
    let piece = StreamedBodyResponse { body, end_of_stream, ..StreamedBodyResponse::default() };
    CommonResponse {
        body_mutation: Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) }),
        ..CommonResponse::default()
    }
}

/// A body in the place of the one that came, in every mode but duplex. Where Envoy has not removed its length, the new
/// one `has_length`.
pub(super) fn replaced(body: Vec<u8>, has_length: bool) -> CommonResponse {
    let length = has_length.then(|| set("content-length", body.len().to_string()));
    let mutation = HeaderMutation { set_headers: length.into_iter().collect(), ..HeaderMutation::default() };
    CommonResponse { body_mutation: Some(whole_body(body)), ..common(mutation, false) }
}

/// The body of [`replaced`].
pub(super) fn whole_body(body: Vec<u8>) -> BodyMutation {
    BodyMutation { mutation: Some(Mutation::Body(body)) }
}

/// Cuts a body into pieces that Envoy takes. A piece that is small enough is moved, not copied. Always at least
/// one, so that there is one to carry the end of the stream.
pub(super) fn pieces(body: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::with_capacity(body.len().max(1));
    for part in body {
        if part.len() <= PIECE_BYTES_MAX {
            pieces.push(part);
        } else {
            pieces.extend(part.chunks(PIECE_BYTES_MAX).map(<[u8]>::to_vec));
        }
    }
    if pieces.is_empty() {
        pieces.push(Vec::new());
    }
    pieces
}

/// An answer to the client in place of the engine's.
pub(super) fn immediate(reply: LocalReply) -> ProcessingResponse {
    let content_type = ("content-type", Cow::Borrowed("application/json"));
    let headers = std::iter::once(content_type).chain(reply.headers);
    let set_headers = headers.map(|(name, value)| set(name, value.into_owned())).collect();
    message(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(reply.status) }),
        headers: Some(HeaderMutation { set_headers, ..HeaderMutation::default() }),
        body: reply.body,
        details: reply.reason.to_owned(),
        ..ImmediateResponse::default()
    }))
}
