//! From a request body to a job of the scheduler, and the plain answers of the paths that are not modelled further.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::body::ReplyBody;
use super::options::BLOCK_TOKENS;
use super::prompt::Prompt;
use super::render::{Reply, Shape};
use super::scheduler::{Job, Progress};
use super::service::{error_answer, json_answer};
use super::stats::Finish;

type Refusal = Box<Response<ReplyBody>>;

/// vLLM's default `max_tokens` of `/v1/completions`.
const COMPLETION_TOKENS_DEFAULT: u32 = 16;

/// A job in the scheduler's hands and how its answer is wanted.
pub(super) enum Outcome {
    Whole(Reply, watch::Receiver<Progress>),
    Stream(Reply, watch::Receiver<Progress>),
}

/// Checks a chat or completion request as vLLM does and hands it to the scheduler.
pub(super) fn openai(shared: &Shared, shape: Shape, rank: Option<usize>, body: &[u8]) -> Result<Outcome, Refusal> {
    let prompt = read(body)?;
    check_model(shared, &prompt)?;
    let streamed = prompt.stream;
    let (reply, progress) = submit(shared, shape, rank, prompt)?;
    Ok(if streamed { Outcome::Stream(reply, progress) } else { Outcome::Whole(reply, progress) })
}

fn read(body: &[u8]) -> Result<Prompt, Refusal> {
    match serde_json::from_slice::<Value>(body) {
        Ok(body) if body.is_object() => Ok(Prompt::read(&body)),
        Ok(_) => Err(refuse(StatusCode::BAD_REQUEST, "Bad Request", "body is not an object", None)),
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, "Bad Request", &format!("body is not JSON: {error}"), None)),
    }
}

fn refuse(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Refusal {
    Box::new(error_answer(status, kind, message, param))
}

fn check_model(shared: &Shared, prompt: &Prompt) -> Result<(), Refusal> {
    let options = &shared.options;
    match &prompt.model {
        Some(model) if !options.models.contains(model) && !shared.adapters.has(model) => {
            let message = format!("The model `{model}` does not exist.");
            Err(refuse(StatusCode::NOT_FOUND, "NotFoundError", &message, Some("model")))
        }
        _ => Ok(()),
    }
}

fn submit(
    shared: &Shared,
    shape: Shape,
    rank: Option<usize>,
    prompt: Prompt,
) -> Result<(Reply, watch::Receiver<Progress>), Refusal> {
    let options = &shared.options;
    if shared.asleep.load(Ordering::Relaxed) {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", "the engine is asleep", None));
    }
    let seed = options.seed ^ prompt.fingerprint;
    let (reply_tokens, finish) = reply_length(shared, shape, &prompt, seed);
    let tokens_max = options.model_len_max.min(options.capacity.kv_blocks * BLOCK_TOKENS);
    if prompt.token_count + reply_tokens as usize > tokens_max {
        let message = format!(
            "This model's maximum context length is {tokens_max} tokens, the prompt has {}.",
            prompt.token_count
        );
        return Err(refuse(StatusCode::BAD_REQUEST, "BadRequestError", &message, None));
    }
    let model = prompt.model.or_else(|| options.models.first().cloned()).unwrap_or_default();
    let (sender, receiver) = watch::channel(Progress::default());
    let lora = shared.adapters.has(&model).then(|| model.clone());
    let job = Job {
        prompt_tokens: prompt.token_count,
        block_hashes: prompt.block_hashes,
        reply_tokens,
        finish,
        lora,
        progress: sender,
    };
    let Some(rank) = shared.rank(rank) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "BadRequestError", "no such rank", None));
    };
    if let Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) = rank.jobs.try_send(job) {
        rank.stats.lock().unwrap_or_else(PoisonError::into_inner).rejections += 1;
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", "the queue is full", None));
    }
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed) ^ options.seed.rotate_left(32);
    let reply =
        Reply { shape, id, model, seed, prompt_tokens: prompt.token_count, include_usage: prompt.include_usage };
    Ok((reply, receiver))
}

/// A natural length around the engine's mean, cut by the request's limit.
fn reply_length(shared: &Shared, shape: Shape, prompt: &Prompt, seed: u64) -> (u32, Finish) {
    let mean = shared.options.reply_tokens.max(1);
    let natural = fastrand::Rng::with_seed(seed).u32(mean.div_ceil(2)..=mean + mean / 2);
    let default = if shape == Shape::Completion { COMPLETION_TOKENS_DEFAULT } else { u32::MAX };
    let limit = prompt.tokens_max.unwrap_or(default).max(1);
    match (prompt.ignore_eos && prompt.tokens_max.is_some(), natural < limit) {
        (true, _) | (false, false) => (limit, Finish::Length),
        (false, true) => (natural, Finish::Stop),
    }
}

/// Waits for the end of a job.
pub(super) async fn last(mut progress: watch::Receiver<Progress>) -> Progress {
    // An error means that the engine stops; its connections are reset anyway.
    progress.wait_for(|progress| progress.finish.is_some()).await.ok();
    *progress.borrow()
}

/// Plain answers of the other paths; those with a prompt and a reply take their time in the scheduler too.
pub(super) async fn other(shared: &Arc<Shared>, path: &str, body: &[u8]) -> Response<ReplyBody> {
    match path {
        "/v1/embeddings" => json_answer(&embeddings(body)),
        "/v1/responses" | "/v1/messages" => match generated(shared, body).await {
            Ok((text, prompt_tokens, progress)) if path == "/v1/messages" => {
                json_answer(&message(&text, prompt_tokens, progress))
            }
            Ok((text, prompt_tokens, progress)) => json_answer(&response(&text, prompt_tokens, progress)),
            Err(refusal) => *refusal,
        },
        _ => json_answer(
            &json!({"object": path.trim_start_matches("/v1/").replace('/', "."), "text": "", "data": [], "results": []}),
        ),
    }
}

async fn generated(shared: &Shared, body: &[u8]) -> Result<(String, usize, Progress), Refusal> {
    if shared.options.fast {
        return Ok(("ok".to_owned(), 8, Progress { generated: 1, cached_tokens: 0, finish: Some(Finish::Stop) }));
    }
    let prompt = read(body)?;
    check_model(shared, &prompt)?;
    let (reply, progress) = submit(shared, Shape::Chat, None, prompt)?;
    let progress = last(progress).await;
    Ok((reply.text(progress.generated), reply.prompt_tokens, progress))
}

fn message(text: &str, prompt_tokens: usize, progress: Progress) -> Value {
    let stop = if progress.finish == Some(Finish::Length) { "max_tokens" } else { "end_turn" };
    json!({
        "id": "msg-lab", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
        "stop_reason": stop, "usage": {"input_tokens": prompt_tokens, "output_tokens": progress.generated,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": progress.cached_tokens},
    })
}

fn response(text: &str, prompt_tokens: usize, progress: Progress) -> Value {
    json!({
        "id": "resp-lab", "object": "response", "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}],
        "usage": {"input_tokens": prompt_tokens, "input_tokens_details": {"cached_tokens": progress.cached_tokens},
            "output_tokens": progress.generated, "total_tokens": prompt_tokens + progress.generated as usize},
    })
}

fn embeddings(body: &[u8]) -> Value {
    let count = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| body.get("input").and_then(Value::as_array).map(Vec::len))
        .unwrap_or(1);
    let data: Vec<Value> = (0..count)
        .map(|index| json!({"object": "embedding", "index": index, "embedding": [0.25, 0.5, 0.75]}))
        .collect();
    json!({"object": "list", "data": data, "usage": {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0}})
}
