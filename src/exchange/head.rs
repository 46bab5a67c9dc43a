//! What we keep of the request headers.

use smallvec::SmallVec;

use crate::openai::{Route, paths};
use crate::routing::KeptHeaders;

/// Headers that choose or describe an endpoint. A client must never be believed in them, so they are removed from
/// every request, routed or not.
pub const STEERING_HEADERS: &[&str] = &[
    "target-pod",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-fallback",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-scores",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-endpoint",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
    "x-llm-d-request-dropped-reason",
    "routing-strategy",
];

/// Longest request id that is taken over from the request.
const REQUEST_ID_MAX: usize = 128;

/// The request headers, reduced to what decides.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// What the path asks for.
    pub route: Option<Route>,
    /// The path, if it is one that we do not know.
    pub path: Option<Box<str>>,
    /// The strategy that the client asked for.
    pub strategy: Option<Box<str>>,
    /// The config profile that the client asked for.
    pub profile: Option<Box<str>>,
    /// The body's type.
    pub content_type: Option<Box<str>>,
    /// The body's announced length, in bytes.
    pub content_length: Option<u64>,
    /// The body's encoding, if it has one that hides its text.
    pub content_encoding: Option<Box<str>>,
    /// `x-request-id`, for logs and the `request-id` response header; never a key.
    pub request_id: Option<Box<str>>,
    /// A model named outside the body: query parameter `model`, or a gateway's header.
    pub model_hint: Option<Box<str>>,
    /// Only endpoints whose labels match this selector may serve (`external-filter`).
    pub label_filter: Option<Box<str>>,
    /// The objective that it names, which says how urgent it is.
    pub objective: Option<Box<str>>,
    /// Endpoints that a conformance test names (`destination.conformance_hooks`).
    pub test_selection: Option<Box<str>>,
    /// The client asks for the reasons of the decision.
    pub explain: bool,
    /// The client wants to change protocols (WebSocket): it sends no body before it has an answer.
    pub is_upgrade: bool,
    /// The headers that strategies need.
    pub kept: KeptHeaders,
    /// Steering headers that the client sent.
    pub forged: SmallVec<[&'static str; 4]>,
}

impl RequestHead {
    /// Reads the headers; names in lower case, as Envoy gives them, pseudo headers included. Those that are `wanted` are
    /// kept as they are.
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, wanted: &[Box<str>]) -> Self {
        let mut head = Self::default();
        let (mut method, mut path) = ("", "");
        for (name, value) in headers {
            let text = || std::str::from_utf8(value).ok().map(str::trim).filter(|text| !text.is_empty());
            if let Some(steering) = STEERING_HEADERS.iter().find(|known| **known == name) {
                head.forged.push(steering);
            }
            if wanted.iter().any(|wanted| **wanted == *name)
                && let Some(text) = text()
            {
                head.kept.keep(name, text);
            }
            match name {
                ":method" => method = text().unwrap_or_default(),
                ":path" => path = text().unwrap_or_default(),
                "routing-strategy" => head.strategy = text().map(Into::into),
                "config-profile" => head.profile = text().map(Into::into),
                "content-type" => head.content_type = text().map(Into::into),
                "content-length" => head.content_length = text().and_then(|text| text.parse().ok()),
                "content-encoding" => {
                    head.content_encoding =
                        text().filter(|text| !text.eq_ignore_ascii_case("identity")).map(Into::into);
                }
                "x-request-id" => head.request_id = text().filter(|text| is_request_id(text)).map(Into::into),
                "x-gateway-model-name" | "model" => head.model_hint = text().map(Into::into),
                "x-llm-d-inference-objective" => head.objective = text().map(Into::into).or(head.objective.take()),
                "x-gateway-inference-objective" if head.objective.is_none() => {
                    head.objective = text().map(Into::into);
                }
                "external-filter" => head.label_filter = text().map(Into::into),
                "test-epp-endpoint-selection" => head.test_selection = text().map(Into::into),
                "x-fairlead-explain" => head.explain = text() == Some("1"),
                "upgrade" | ":protocol" => head.is_upgrade = true,
                _ => {}
            }
        }
        if head.is_upgrade
            && let Some(model) = paths::query_param(path, "model")
        {
            head.model_hint = Some(model.into());
        }
        let route = paths::classify(method, path);
        if matches!(route, Route::Unknown) {
            head.path = Some(path.into());
        }
        head.route = Some(route);
        head
    }
}

fn is_request_id(text: &str) -> bool {
    text.len() <= REQUEST_ID_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use crate::openai::Api;

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> RequestHead {
        RequestHead::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())), &["x-kept".into()])
    }

    #[test]
    fn steering_headers_are_noticed_whatever_the_path() {
        let head =
            read(&[(":method", "GET"), (":path", "/x"), ("target-pod", "1.2.3.4:5"), ("routing-strategy", "random")]);
        assert_eq!(head.forged.as_slice(), ["target-pod", "routing-strategy"]);
        assert!(matches!(head.route, Some(Route::Unknown)));
    }

    #[test]
    fn a_query_string_does_not_hide_the_path() {
        let head = read(&[(":method", "POST"), (":path", "/v1/chat/completions?a=b")]);
        assert!(matches!(head.route, Some(Route::Inference(Api::Chat))));
    }

    #[test]
    fn a_request_id_that_could_break_a_log_line_is_not_taken() {
        assert!(read(&[("x-request-id", "a\nb")]).request_id.is_none());
        assert_eq!(read(&[("x-request-id", "abc-1")]).request_id.as_deref(), Some("abc-1"));
    }

    #[test]
    fn only_headers_that_are_wanted_are_kept() {
        let head = read(&[("x-kept", " 1 "), ("x-other", "2"), ("x-kept", "3")]);
        assert_eq!((head.kept.get("x-kept"), head.kept.get("x-other")), (Some("1"), None));
    }

    #[test]
    fn an_objective_has_two_spellings_and_the_newer_one_counts() {
        let (old, new) = (("x-gateway-inference-objective", "old"), ("x-llm-d-inference-objective", "new"));
        for headers in [&[old, new][..], &[new, old]] {
            assert_eq!(read(headers).objective.as_deref(), Some("new"));
        }
        assert_eq!(read(&[old]).objective.as_deref(), Some("old"));
    }

    #[test]
    fn an_upgrade_names_its_model_in_the_query() {
        let head = read(&[(":method", "GET"), (":path", "/v1/realtime?model=m%2F1"), ("upgrade", "websocket")]);
        assert!(head.is_upgrade);
        assert_eq!(head.model_hint.as_deref(), Some("m/1"));
    }
}
