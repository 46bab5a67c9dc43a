//! What an exchange tells its front end to do.

use std::borrow::Cow;

use crate::openai::ApiError;
use crate::routing::{Plan, Wait};

/// Header in which endpoint pickers say why they dropped a request.
const DROPPED: &str = "x-llm-d-request-dropped-reason";

/// What the front end knows of the request body when the headers arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyOutlook {
    /// There is none.
    None,
    /// It will be shown to us before we have to answer.
    Coming,
    /// There is one, but we have to answer without it.
    Unseen,
}

/// The next thing to do.
#[derive(Debug)]
pub enum Step {
    /// Forward the request without a destination of ours.
    Pass,
    /// Show us the body.
    NeedBody,
    /// Send the request where [`Exchange::dispatch`](super::Exchange::dispatch) says.
    Send,
    /// Answer the client; the request goes nowhere.
    Answer(LocalReply),
    /// Call [`Exchange::resume`](super::Exchange::resume) when this is resumed, or
    /// [`Exchange::give_up_waiting`](super::Exchange::give_up_waiting) at the decision deadline.
    Wait(Wait),
}

/// A decision.
#[derive(Debug, Clone, Copy)]
pub struct Dispatch<'a> {
    /// The endpoints, best first.
    pub plan: &'a Plan,
    /// Who decided.
    pub strategy: &'a str,
}

impl Dispatch<'_> {
    /// The endpoints' addresses as a header value, `ip:port,ip:port`.
    pub fn list(self) -> String {
        let mut list = String::with_capacity(24 * self.plan.endpoints().len());
        for endpoint in self.plan.endpoints() {
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(endpoint.address_text());
        }
        list
    }
}

/// An answer of our own.
#[derive(Debug)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Headers besides `content-type: application/json`.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// JSON.
    pub body: Vec<u8>,
    /// Stable word for the access log and metrics.
    pub reason: &'static str,
}

impl LocalReply {
    /// A 200 with this JSON.
    pub fn ok(body: Vec<u8>, reason: &'static str) -> Self {
        Self { status: 200, headers: Vec::new(), body, reason }
    }
}

impl From<ApiError> for LocalReply {
    fn from(error: ApiError) -> Self {
        let mut headers = Vec::new();
        if let Some(seconds) = error.retry_after_s {
            headers.push(("retry-after", Cow::Owned(seconds.to_string())));
        }
        let dropped = match error.reason {
            "no_ready_endpoints" | "no_allowed_endpoints" => Some("rejected-no-endpoints"),
            "overloaded" => Some("rejected-saturated"),
            _ => None,
        };
        headers.extend(dropped.map(|why| (DROPPED, Cow::Borrowed(why))));
        headers.extend(error.extra_header.iter().map(|(name, value)| (*name, Cow::Owned(value.clone()))));
        Self { status: error.status, headers, body: error.to_json(), reason: error.reason }
    }
}
