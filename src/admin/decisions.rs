//! Why requests went where they went: `/api/decisions`, and `/api/explain` as a dry run.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::AdminState;
use super::body::{Refused, collect};
use crate::exchange::{self, Explanation};

/// `/api/decisions`.
#[derive(Debug, Serialize)]
pub(super) struct Decisions {
    /// Newest first.
    decisions: Vec<Arc<Explanation>>,
}

/// What may be said of the request besides its headers and body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// As if the header `routing-strategy` said so.
    strategy: Option<String>,
    /// As if its route named this pool.
    pool: Option<String>,
    /// The path that it would be sent to.
    #[serde(default = "Question::chat")]
    path: String,
}

impl Question {
    fn chat() -> String {
        "/v1/chat/completions".to_owned()
    }
}

pub(super) async fn decisions(State(state): State<Arc<AdminState>>) -> Json<Decisions> {
    Json(Decisions { decisions: state.core.load().decisions.newest_first() })
}

pub(super) async fn explain(
    State(state): State<Arc<AdminState>>,
    Query(question): Query<Question>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Explanation>, Refused> {
    // Few at a time: whoever asks is a person or a script, and each body may be large.
    let _turn = state.explains.try_acquire().map_err(|_| Refused::Overloaded)?;
    let core = state.core.load();
    let body = collect(&core, body).await?;
    // What a tool such as curl sets by itself is not meant: a form is no inference request.
    let is_form = |value: &[u8]| value.starts_with(b"application/x-www-form-urlencoded");
    let asked = question.strategy.as_deref().map(|name| ("routing-strategy", name.as_bytes()));
    let sent = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let sent = sent.filter(|(name, value)| match *name {
        "content-type" => !is_form(value),
        "routing-strategy" => asked.is_none(),
        _ => true,
    });
    let headers: Vec<_> = asked.into_iter().chain(sent).collect();
    Ok(Json(exchange::explain(&core, &question.path, question.pool.as_deref(), &headers, body)))
}
