//! The body of a request to the admin port, under the limits of those that we route.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::exchange::Core;

/// Longest time that a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(30);

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    TooLarge,
    TooSlow,
    /// The memory for bodies is in use.
    Overloaded,
    /// The client broke it off.
    Broken,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "the body is larger than `limits.body_bytes_max`")
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body took longer than 30 s"),
            Self::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "other requests use the memory for bodies; try again")
            }
            Self::Broken => (StatusCode::BAD_REQUEST, "invalid_body", "the body broke off"),
        };
        (status, Json(json!({ "error": { "message": message, "code": code } }))).into_response()
    }
}

/// Collects a body. Its bytes are taken from the budget of all bodies while they arrive.
pub(super) async fn collect(core: &Core, body: Body) -> Result<Vec<u8>, Refused> {
    match tokio::time::timeout(BODY_MAX, collect_slowly(core, body)).await {
        Ok(collected) => collected,
        Err(_) => Err(Refused::TooSlow),
    }
}

async fn collect_slowly(core: &Core, mut body: Body) -> Result<Vec<u8>, Refused> {
    // Known before it comes, where it is announced.
    if body.size_hint().lower() > core.policy.body_bytes_max as u64 {
        return Err(Refused::TooLarge);
    }
    let (mut collected, mut permit) = (Vec::new(), core.budget.permit());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
        if collected.len() + data.len() > core.policy.body_bytes_max {
            return Err(Refused::TooLarge);
        }
        if !permit.grow(data.len()) {
            return Err(Refused::Overloaded);
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected)
}
