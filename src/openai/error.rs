//! The errors that we answer with ourselves: `OpenAI`'s body, `AIBrix`'s header, and a stable reason
//! for access logs and metrics. An engine's own errors pass through and never come here.

use std::borrow::Cow;

use serde::Serialize;

use super::body_error::BodyError;

/// Longest header value made from what a client sent.
const HEADER_VALUE_BYTES_MAX: usize = 256;

/// A refusal, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// For people: `error.message`.
    pub message: Cow<'static, str>,
    /// `error.type`, by status.
    pub kind: &'static str,
    /// `error.param`: the field at fault.
    pub param: Option<Cow<'static, str>>,
    /// `error.code`.
    pub code: Option<&'static str>,
    /// Stable, one word: `ImmediateResponse.details` and metric label.
    pub reason: &'static str,
    /// `retry-after`, in seconds.
    pub retry_after_s: Option<u32>,
    /// `AIBrix`'s header for this case. The value is safe to send.
    pub extra_header: Option<(&'static str, String)>,
}

/// Which limit a request hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests per minute of a user.
    RequestsPerMinute,
    /// Tokens per minute of a user.
    TokensPerMinute,
    /// Requests per second of a model.
    ModelRequestsPerSecond,
}

impl ApiError {
    fn new(status: u16, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
            code: Some(reason),
            reason,
            retry_after_s: None,
            extra_header: None,
        }
    }

    fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.extra_header = Some((name, header_value(value)));
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 400: the request is malformed in a way that [`BodyError`] does not cover.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "malformed_request", message).header("x-error-request-body-processing", "true")
    }

    /// 404: nobody serves `model`.
    pub fn model_not_found(model: &str) -> Self {
        Self::new(404, "model_not_found", format!("the model `{}` does not exist", shown(model)))
            .param("model")
            .header("x-error-no-model-backends", model)
    }

    /// 413: the body is longer than `limit_bytes`.
    pub fn too_large(limit_bytes: u64) -> Self {
        let message = format!("the request body is longer than {limit_bytes} bytes");
        Self::new(413, "request_too_large", message).header("x-error-request-body-processing", "true")
    }

    /// 429: `limit` is used up for the next `retry_after_s` seconds.
    pub fn rate_limited(limit: Limit, retry_after_s: u32) -> Self {
        let (what, header) = match limit {
            Limit::RequestsPerMinute => ("requests per minute", "x-error-rpm-exceeded"),
            Limit::TokensPerMinute => ("tokens per minute", "x-error-tpm-exceeded"),
            Limit::ModelRequestsPerSecond => ("requests per second of this model", "x-error-model-rps-exceeded"),
        };
        Self::new(429, "rate_limit_exceeded", format!("the limit of {what} is reached"))
            .header(header, "true")
            .retry_after(retry_after_s)
    }

    /// 429: the request was shed to protect the others.
    pub fn shed(retry_after_s: u32) -> Self {
        Self::new(429, "load_shed", "the request was shed because of load, try again later")
            .header("x-error-routing", "true")
            .retry_after(retry_after_s)
    }

    /// 503: `model` is known, but none of its endpoints is ready.
    pub fn no_ready_endpoints(model: &str, pool: Option<&str>, retry_after_s: u32) -> Self {
        let place = pool.map(|pool| format!(" in pool `{}`", shown(pool))).unwrap_or_default();
        let message = format!("no endpoint of model `{}` is ready{place}", shown(model));
        Self::new(503, "no_ready_endpoints", message)
            .header("x-error-no-model-backends", "true")
            .retry_after(retry_after_s)
    }

    /// 503: the header `external-filter` cannot be read.
    pub fn bad_label_filter(fault: &str) -> Self {
        Self::new(503, "bad_label_filter", format!("the label selector in `external-filter` cannot be read: {fault}"))
            .param("external-filter")
            .header("x-error-routing", "true")
    }

    /// 503: no endpoint of `model` has the labels that the header `external-filter` asks for.
    pub fn nobody_matches(model: &str, filter: &str) -> Self {
        let message = format!("no endpoint of model `{}` matches `external-filter: {}`", shown(model), shown(filter));
        Self::new(503, "no_matching_endpoints", message).param("external-filter").header("x-error-routing", "true")
    }

    /// 503: none of the endpoints that the gateway allows serves `model`.
    pub fn nobody_allowed(model: &str, retry_after_s: u32) -> Self {
        let message = format!("no endpoint of model `{}` is among those that the gateway allows", shown(model));
        Self::new(503, "no_allowed_endpoints", message)
            .header("x-error-no-model-backends", "true")
            .retry_after(retry_after_s)
    }

    /// 503: there is no room for the request, here or in the engines.
    pub fn overloaded(retry_after_s: u32) -> Self {
        Self::new(503, "overloaded", "there is no room for this request, try again later")
            .header("x-error-routing", "true")
            .retry_after(retry_after_s)
    }

    /// 504: our own deadline for a decision passed.
    pub fn deadline(after_ms: u64) -> Self {
        Self::new(504, "deadline_exceeded", format!("no endpoint was found within {after_ms} ms"))
            .header("x-error-routing", "true")
    }

    /// 400: no strategy is called `name`; `known` are those that exist.
    pub fn unknown_strategy<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("unknown routing strategy `{}`, known are: {known}", shown(name));
        Self::new(400, "unknown_strategy", message).param("routing-strategy").header("x-error-routing", "true")
    }

    /// 400: a text that should name strategies does not; `fault` says what is wrong with it.
    pub fn invalid_strategy(fault: &str) -> Self {
        let message = format!("incorrect routing strategy: {}", shown(fault));
        Self::new(400, "invalid_strategy", message).param("routing-strategy").header("x-error-routing", "true")
    }

    /// 401: the bearer token is missing or wrong.
    pub fn invalid_api_key() -> Self {
        Self::new(401, "invalid_api_key", "a valid API key is required").param("api_key")
    }

    /// 404: the path is not an API that we route.
    pub fn path_not_found(path: &str) -> Self {
        Self::new(404, "unknown_path", format!("the path `{}` is not served here", shown(path)))
            .header("x-error-request-body-processing", "true")
    }

    /// 405: the path is served, but not with this method.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("`{}` is not served for `{}`", shown(method), shown(path));
        Self::new(405, "method_not_allowed", message).header("x-error-request-body-processing", "true")
    }

    /// The body is compressed or otherwise encoded, so that its model cannot be read.
    pub fn unsupported_encoding(encoding: &str) -> Self {
        Self::new(
            415,
            "unsupported_content_encoding",
            format!("content-encoding `{}` is not supported: send the body as it is", header_value(encoding)),
        )
    }

    /// The body did not arrive in time.
    pub fn body_timeout(after_ms: u128) -> Self {
        Self::new(408, "request_timeout", format!("the request body did not arrive within {after_ms} ms"))
    }

    /// The response body: `OpenAI`'s four keys, always all of them.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let envelope = Envelope {
            error: Body { message: &self.message, r#type: self.kind, param: self.param.as_deref(), code: self.code },
        };
        // Strings always serialise.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let header = match error {
            BodyError::Multipart { .. } | BodyError::CutForm { .. } | BodyError::FieldTooLong { .. } => {
                "x-error-multipart-parsing"
            }
            _ => "x-error-request-body-processing",
        };
        Self {
            param: error.param().map(Cow::Borrowed),
            ..Self::new(error.status(), error.code(), error.to_string()).header(header, "true")
        }
    }
}

/// What a client sent, short enough to be repeated.
fn shown(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// Visible ASCII only, so that a model name cannot end the header and begin another.
fn header_value(text: &str) -> String {
    text.chars().take(HEADER_VALUE_BYTES_MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(error: &ApiError) -> String {
        String::from_utf8(error.to_json()).unwrap()
    }

    #[test]
    fn the_body_has_openai_s_four_keys() {
        assert_eq!(
            json(&ApiError::model_not_found("a\"b")),
            r#"{"error":{"message":"the model `a\"b` does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        );
        assert!(json(&ApiError::overloaded(1)).contains(r#""type":"overloaded_error","param":null"#));
    }

    #[test]
    fn a_model_name_cannot_inject_a_header() {
        let error = ApiError::model_not_found(&format!("x\r\ntarget-pod: 10.0.0.1\u{e9}{}", "y".repeat(999)));
        let (_, value) = error.extra_header.unwrap();
        assert!(value.starts_with("x??target-pod: 10.0.0.1?y"));
        assert_eq!(value.len(), HEADER_VALUE_BYTES_MAX);
        assert!(error.message.len() < 300);
    }

    #[test]
    fn an_unknown_strategy_lists_the_known_ones() {
        let error = ApiError::unknown_strategy("fast", ["random", "least-request"]);
        assert_eq!(error.status, 400);
        assert!(error.message.ends_with("known are: random, least-request"));
    }

    #[test]
    fn a_body_error_keeps_its_status_code_and_field() {
        let error = ApiError::from(BodyError::SteeringField("bootstrap_host"));
        assert_eq!((error.status, error.reason), (400, "unsupported_field"));
        assert_eq!(error.param.as_deref(), Some("bootstrap_host"));
        let error = ApiError::from(BodyError::FieldTooLong { field: "model", limit_bytes: 1 });
        assert_eq!((error.status, error.extra_header.unwrap().0), (413, "x-error-multipart-parsing"));
    }

    #[test]
    fn limits_say_when_to_come_back() {
        let error = ApiError::rate_limited(Limit::TokensPerMinute, 30);
        assert_eq!((error.status, error.kind, error.retry_after_s), (429, "rate_limit_error", Some(30)));
        assert_eq!(error.extra_header, Some(("x-error-tpm-exceeded", "true".to_owned())));
        assert_eq!(ApiError::deadline(5).status, 504);
    }
}
