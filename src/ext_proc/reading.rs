//! Reading what Envoy sends.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::ProcessingRequest;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use crate::exchange::{Content, Subset, UpstreamReport};

/// Where Envoy puts the attributes of this filter.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";
/// Namespace and key in which an `override_host` cluster names the endpoint that served.
const SERVED: (&str, &str) = ("envoy.lb", "x-gateway-destination-endpoint-served");

/// Namespace and key in which a gateway says among whom to choose.
const SUBSET: (&str, &str) = ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset");

/// Namespace and key in which a route says from which pool to choose.
const POOL: (&str, &str) = ("fairlead", "pool");

/// Names and values; a value is in `raw_value`, or in `value` with proxies that follow the older form.
pub(super) fn headers(map: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &[u8])> {
    map.into_iter().flat_map(|map| &map.headers).map(|header| (header.key.as_str(), value(header)))
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

/// What came with the response headers: status, and the attributes and metadata that tell of the attempts.
pub(super) fn upstream_report(message: &ProcessingRequest, map: Option<&HeaderMap>) -> UpstreamReport {
    let mut report = UpstreamReport::default();
    let (mut content_type, mut content_encoding): (&[u8], &[u8]) = (&[], &[]);
    for (name, value) in headers(map) {
        match name {
            ":status" => report.status = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).unwrap_or(0),
            "x-envoy-upstream-service-time" => report.timed = true,
            "content-type" => content_type = value,
            "content-encoding" => content_encoding = value,
            _ => {}
        }
    }
    let attributes = message.attributes.get(ATTRIBUTES);
    let text = |name| attributes.and_then(|a| field(a, name)).and_then(as_text);
    let number = |name| attributes.and_then(|a| field(a, name)).and_then(as_number);
    let served = || {
        let metadata = message.metadata_context.as_ref()?.filter_metadata.get(SERVED.0)?;
        as_text(field(metadata, SERVED.1)?)?.parse().ok()
    };
    UpstreamReport {
        address: text("upstream.address").and_then(|text| text.parse::<SocketAddr>().ok()).or_else(served),
        attempts: number("upstream.request_attempt_count").map(|count| count as u32),
        flags: number("response.flags"),
        content: Content::read(content_type, content_encoding),
        ..report
    }
}

/// Among whom to choose, if the gateway says so: a list of texts, or one text with commas.
pub(super) fn subset(message: &ProcessingRequest) -> Option<Subset> {
    let metadata = message.metadata_context.as_ref()?.filter_metadata.get(SUBSET.0)?;
    match field(metadata, SUBSET.1)?.kind.as_ref()? {
        Kind::NullValue(_) => None,
        Kind::ListValue(list) => Some(Subset::read(list.values.iter().filter_map(as_text))),
        Kind::StringValue(text) => Some(Subset::read([text.as_str()])),
        _ => Some(Subset::read([])),
    }
}

/// The pool that the route names. What is no text names one that nobody knows, so that it opens none.
pub(super) fn pool(message: &ProcessingRequest) -> Option<&str> {
    let metadata = message.metadata_context.as_ref()?.filter_metadata.get(POOL.0)?;
    match field(metadata, POOL.1)?.kind.as_ref()? {
        Kind::NullValue(_) => None,
        Kind::StringValue(text) => Some(text),
        _ => Some(""),
    }
}

fn field<'a>(fields: &'a Struct, name: &str) -> Option<&'a Value> {
    fields.fields.get(name)
}

fn as_text(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Envoy sends whole numbers as doubles.
#[expect(clippy::cast_sign_loss, reason = "negative values are refused before")]
fn as_number(value: &Value) -> Option<u64> {
    match value.kind.as_ref()? {
        Kind::NumberValue(number) if *number >= 0.0 && *number < 1e15 => Some(*number as u64),
        Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}
