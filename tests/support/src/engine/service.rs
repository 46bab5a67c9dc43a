//! Paths and answers of an engine.

use std::fmt;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::{Cut, InProgress, ReplyBody};
use super::dialect::Dialect;
use super::exposition::Honesty;
use super::fault::{Fault, FaultCommand};
use super::generate::{self, Outcome};
use super::render::{self, Shape};
use super::stats::Stats;
use super::{Recorded, Shared, pages, prompt};

/// Largest request body.
const BODY_BYTES_MAX: usize = 64 << 20;
const SSE: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");

type Answer = Response<ReplyBody>;

/// Answers one request; an error resets the connection.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let mut answer = if head.uri.path() == "/_lab/fault" {
        set_fault(&shared, body).await?
    } else if is_control(head.uri.path()) {
        control(&shared, head.uri.path(), &read(body).await?)
    } else if head.method == Method::POST {
        infer(&shared, head, body).await?
    } else {
        page(&shared, head.uri.path()).await
    };
    answer.headers_mut().insert("x-engine", shared.name.clone());
    Ok(answer)
}

async fn read(body: Incoming) -> Result<Bytes, Cut> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|_| Cut)
}

fn respond(status: StatusCode, kind: HeaderValue, body: ReplyBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

pub(super) fn json_answer(value: &impl fmt::Display) -> Answer {
    respond(StatusCode::OK, JSON, ReplyBody::whole(value.to_string()))
}

pub(super) fn stream_answer(body: ReplyBody) -> Answer {
    respond(StatusCode::OK, SSE, body)
}

/// An error answer in vLLM's words.
pub(super) fn error_answer(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Answer {
    let body = render::error(status.as_u16(), kind, message, param);
    respond(status, JSON, ReplyBody::whole(body.to_string()))
}

async fn set_fault(shared: &Shared, body: Incoming) -> Result<Answer, Cut> {
    let body = read(body).await?;
    Ok(match serde_json::from_slice::<FaultCommand>(&body) {
        Ok(command) => {
            shared.arm(command.reachable_again());
            json_answer(&json!({"ok": true}))
        }
        Err(error) => error_answer(StatusCode::BAD_REQUEST, "BadRequestError", &error.to_string(), None),
    })
}

async fn infer(shared: &Arc<Shared>, head: Parts, body: Incoming) -> Result<Answer, Cut> {
    let guard = InProgress::new(Arc::clone(&shared.tally));
    let body = read(body).await?;
    shared.tally.body_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    let path = head.uri.path().to_owned();
    let rank = head.headers.get("x-data-parallel-rank").and_then(|value| value.to_str().ok()?.parse().ok());
    if shared.options.record {
        record(shared, head, body.clone());
    }
    let cut = match shared.faults.next_traffic() {
        None => None,
        Some(Fault::Hang) => pending().await,
        Some(Fault::Reset) => return Err(Cut),
        Some(Fault::ResetMidStream { after_chunks }) => Some(after_chunks),
        Some(fault) => return Ok(failure(&fault).map(|body| body.guarded(guard))),
    };
    let answer = dispatch(shared, &path, rank, &body).await;
    Ok(finish(answer, cut, guard))
}

fn finish(mut answer: Answer, cut: Option<usize>, guard: InProgress) -> Answer {
    if cut.is_some() {
        // A whole body that is cut still promises its full length.
        if let Some(length) = hyper::body::Body::size_hint(answer.body()).exact() {
            answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
    }
    answer.map(|body| match cut {
        Some(after_chunks) => body.cut(after_chunks).guarded(guard),
        None => body.guarded(guard),
    })
}

fn record(shared: &Shared, head: Parts, body: Bytes) {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let recorded = Recorded { method: head.method, path, headers: head.headers, body };
    *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
}

fn failure(fault: &Fault) -> Answer {
    let Fault::Status { code, retry_after_s } = fault else {
        return error_answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "", None);
    };
    let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = match *code {
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        _ => "InternalServerError",
    };
    let mut answer = error_answer(status, kind, "fault on command", None);
    let retry_after = retry_after_s.or_else(|| matches!(*code, 429 | 503).then_some(1));
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

async fn dispatch(shared: &Arc<Shared>, path: &str, rank: Option<usize>, body: &[u8]) -> Answer {
    let shape = match path {
        "/v1/chat/completions" => Shape::Chat,
        "/v1/completions" => Shape::Completion,
        "/tokenize" => return tokenize(shared, body),
        _ => return generate::other(shared, path, body).await,
    };
    if shared.options.fast {
        let (reply, streamed) = shared.fast.answer(shape, body);
        return respond(StatusCode::OK, if streamed { SSE } else { JSON }, reply);
    }
    match generate::openai(shared, shape, rank, body) {
        Ok(Outcome::Stream(reply, progress)) => stream_answer(ReplyBody::stream(reply.stream(progress))),
        Ok(Outcome::Whole(reply, progress)) => json_answer(&reply.whole(generate::last(progress).await)),
        Err(refusal) => *refusal,
    }
}

fn tokenize(shared: &Shared, body: &[u8]) -> Answer {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return error_answer(StatusCode::BAD_REQUEST, "Bad Request", "body is not JSON", None);
    };
    let tokens = prompt::token_ids(&prompt::prompt_text(&body));
    json_answer(
        &json!({"count": tokens.len(), "max_model_len": shared.options.model_len_max, "tokens": tokens, "token_strs": null}),
    )
}

/// Paths of a `POST` that is no inference.
fn is_control(path: &str) -> bool {
    matches!(path, "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" | "/load_lora_adapter" | "/unload_lora_adapter")
        || matches!(path, "/sleep" | "/wake_up")
}

/// Adapters come and go, the engine sleeps and wakes, as vLLM has it (`SGLang` without `/v1`).
fn control(shared: &Shared, path: &str, body: &[u8]) -> Answer {
    let outcome = match path.trim_start_matches("/v1") {
        "/load_lora_adapter" => shared.adapters.load(body),
        "/unload_lora_adapter" => shared.adapters.unload(body),
        path => {
            shared.asleep.store(path == "/sleep", Ordering::Relaxed);
            Ok(String::new())
        }
    };
    match outcome {
        Ok(text) => respond(StatusCode::OK, TEXT, ReplyBody::whole(text)),
        Err((status, kind, message)) => error_answer(status, kind, &message, None),
    }
}

async fn page(shared: &Shared, path: &str) -> Answer {
    let dialect = shared.options.dialect;
    if dialect.metrics_path() == Some(path) {
        return metrics(shared).await;
    }
    match path {
        "/v1/loads" if dialect == Dialect::Sglang => {
            json_answer(&pages::sglang_loads(&shared.stats(), &shared.options))
        }
        "/server_info" | "/get_server_info" if dialect == Dialect::Sglang => {
            json_answer(&pages::sglang_info(&shared.options))
        }
        "/metrics" if dialect == Dialect::Trtllm => {
            json_answer(&pages::trtllm_iterations(&Stats::merged(&shared.stats())))
        }
        "/props" if dialect == Dialect::Llamacpp => json_answer(&pages::llamacpp_props(&shared.options)),
        "/is_sleeping" => json_answer(&json!({"is_sleeping": shared.asleep.load(Ordering::Relaxed)})),
        "/health" | "/ping" => respond(StatusCode::OK, JSON, ReplyBody::whole("")),
        "/version" => json_answer(&json!({"version": "0.32.0"})),
        "/load" => json_answer(&json!({"server_load": shared.counters().in_progress})),
        "/v1/models" => json_answer(&models(shared)),
        "/_lab/counters" => json_answer(&json!(shared.counters())),
        _ => respond(StatusCode::NOT_FOUND, JSON, ReplyBody::whole(json!({"detail": "Not Found"}).to_string())),
    }
}

async fn metrics(shared: &Shared) -> Answer {
    shared.tally.scrapes.fetch_add(1, Ordering::Relaxed);
    let mut honesty = Honesty::Truth;
    let (mut padding, mut trickle) = (0, None);
    match shared.faults.next_metrics() {
        Some(Fault::MetricsHang) => pending().await,
        Some(Fault::MetricsDelay { delay_ms }) => {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        Some(Fault::MetricsNan) => honesty = Honesty::NotANumber,
        Some(Fault::MetricsAbsurd) => honesty = Honesty::Lie(-1e308),
        Some(Fault::MetricsLie { value }) => honesty = Honesty::Lie(value),
        Some(Fault::MetricsGarbage { bytes }) => return respond(StatusCode::OK, TEXT, ReplyBody::garbage(bytes)),
        Some(Fault::MetricsStatus { code }) => return failure(&Fault::Status { code, retry_after_s: None }),
        Some(Fault::MetricsTrickle { bytes_per_second }) => trickle = Some(bytes_per_second),
        Some(Fault::MetricsHuge { bytes }) => padding = bytes,
        _ => {}
    }
    let mut text = shared.exposition.render(&shared.stats(), honesty);
    let end = text.len() + padding;
    while text.len() < end {
        text.push_str("lab:padding{kind=\"a series that nobody asked for\"} 1.0\n");
    }
    let body = match trickle {
        Some(pace) => ReplyBody::trickle(text, pace),
        None => ReplyBody::whole(text),
    };
    respond(StatusCode::OK, TEXT, body)
}

fn models(shared: &Shared) -> Value {
    let options = &shared.options;
    let (base, adapters) = (options.models.first(), shared.adapters.names());
    let card = |id: &String, parent: Option<&String>| {
        json!({
            "id": id, "object": "model", "created": render::unix_time(), "owned_by": "vllm", "root": format!("/models/{id}"),
            "parent": parent, "max_model_len": parent.is_none().then_some(options.model_len_max), "permission": [],
        })
    };
    let cards: Vec<Value> =
        options.models.iter().map(|id| card(id, None)).chain(adapters.iter().map(|id| card(id, base))).collect();
    json!({"object": "list", "data": cards})
}
