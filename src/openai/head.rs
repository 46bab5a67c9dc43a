//! The head of a request: what a router must know of a body, read in one pass over borrowed bytes.
//!
//! The body is never turned into a tree. Prompts stay raw JSON ([`RawValue`]) for whoever needs
//! their text; everything else is skipped. A field that we read may occur once only, so that we and
//! the engine cannot read different models from one body.
//!
//! That a head could be read does not mean that the engine will like the body: escapes inside
//! skipped strings are not checked.

use std::borrow::Cow;

use serde::de::DeserializeSeed;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::body_error::BodyError;
use super::fields::{HeadSeed, Progress, Refusal};
use super::media::{self, PromptSize};
use super::multipart;
use super::paths::{Api, BodyKind};

/// What a router reads from a request body. `null` counts as absent everywhere.
#[derive(Debug, Clone, Default)]
pub struct Head<'a> {
    /// The model or adapter asked for; [`Head::require_model`] refuses a request that lacks it.
    pub model: Option<Cow<'a, str>>,
    /// The model as it stands in the body, a slice of it: between the quotes, escapes and all; the whole field of a form.
    pub model_written: Option<&'a str>,
    /// The answer is wanted as server-sent events.
    pub stream: bool,
    /// `stream_options.include_usage`: the stream will end with a usage event.
    pub include_usage: bool,
    /// `user`, or `metadata.user_id` in Anthropic's API.
    pub user: Option<Cow<'a, str>>,
    /// Most tokens to generate, by whatever name the API gives it (`max_completion_tokens` before
    /// `max_tokens`). Negative means unlimited to some engines and is absent here.
    pub max_tokens: Option<u64>,
    /// Number of answers wanted.
    pub n: Option<u32>,
    /// vLLM's `priority`: lower goes first.
    pub priority: Option<i64>,
    /// What the model is to work on, as raw JSON: messages, prompt, input, documents, …
    pub prompt: Option<&'a RawValue>,
    /// What stands before the prompt, as raw JSON: `system`, `instructions`, a rerank query.
    pub preamble: Option<&'a RawValue>,
    /// `tools`, as raw JSON: chat templates put them before the messages.
    pub tools: Option<&'a RawValue>,
    /// `session_id` of the body.
    pub session_id: Option<Cow<'a, str>>,
    /// `prompt_cache_key`: requests with the same key share a prefix.
    pub prompt_cache_key: Option<Cow<'a, str>>,
    /// `cache_salt`: prompts with different salts share no cache blocks.
    pub cache_salt: Option<Cow<'a, str>>,
    /// `previous_response_id`: an answer that only the engine which gave it knows.
    pub previous_response_id: Option<Cow<'a, str>>,
}

impl Head<'_> {
    /// Refuses a request that does not name its model, unless it is the engine-specific call that needs none.
    ///
    /// # Errors
    /// [`BodyError::MissingModel`].
    pub fn require_model(&self, api: Api) -> Result<(), BodyError> {
        match (&self.model, api) {
            (Some(model), _) if !model.is_empty() => Ok(()),
            (None, Api::Generate) => Ok(()),
            _ => Err(BodyError::MissingModel),
        }
    }

    /// What the model is to read: prompt, preamble and tools.
    pub fn prompt_size(&self) -> PromptSize {
        let parts = [self.prompt, self.preamble, self.tools].into_iter().flatten();
        parts.map(|raw| media::measure(raw.get())).sum()
    }
}

/// What could be read of a body whose end did not arrive.
#[derive(Debug, Clone)]
pub struct CutHead<'a> {
    /// The fields that arrived whole. A field that is absent here may still be in the rest.
    pub head: Head<'a>,
    /// Something wrong other than the cut: [`read`] would refuse the whole body too.
    pub fault: Option<BodyError>,
}

/// Reads the head of a whole body. `content_type` matters for multipart APIs only.
pub fn read<'a>(api: Api, content_type: Option<&str>, body: &'a [u8]) -> Result<Head<'a>, BodyError> {
    let mut head = Head::default();
    match api.body_kind() {
        BodyKind::Multipart => multipart::read_into(&mut head, content_type, body)?,
        BodyKind::Json => {
            refuse_form(content_type)?;
            let text =
                std::str::from_utf8(body).map_err(|error| BodyError::InvalidUtf8 { byte: error.valid_up_to() })?;
            read_json(api, text, &mut head)?;
        }
    }
    Ok(head)
}

/// Reads what it can from the first bytes of a body. `None` if they neither name the model nor
/// have a fault.
pub fn read_cut<'a>(api: Api, content_type: Option<&str>, prefix: &'a [u8]) -> Option<CutHead<'a>> {
    let mut head = Head::default();
    let result = match api.body_kind() {
        BodyKind::Multipart => multipart::read_into(&mut head, content_type, prefix),
        BodyKind::Json => refuse_form(content_type)
            .and_then(|()| whole_characters(prefix))
            .and_then(|text| read_json(api, without_cut_number(text), &mut head)),
    };
    let fault = result.err().filter(|error| !is_cut(error));
    (head.model.is_some() || fault.is_some()).then_some(CutHead { head, fault })
}

/// A form sent to a JSON API would only be refused with a puzzling position otherwise.
fn refuse_form(content_type: Option<&str>) -> Result<(), BodyError> {
    let is_form = content_type.is_some_and(|value| {
        value.trim_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"))
    });
    if is_form {
        return Err(BodyError::ContentType { expected: "application/json" });
    }
    Ok(())
}

/// The prefix without a last character that was cut in two.
fn whole_characters(prefix: &[u8]) -> Result<&str, BodyError> {
    match std::str::from_utf8(prefix) {
        Ok(text) => Ok(text),
        Err(error) => {
            let whole = prefix
                .get(..error.valid_up_to())
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .filter(|_| error.error_len().is_none());
            whole.ok_or(BodyError::InvalidUtf8 { byte: error.valid_up_to() })
        }
    }
}

/// A number at the cut may go on after it, so it is not read. Harmless if it is not a number.
fn without_cut_number(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E'))
}

fn is_cut(error: &BodyError) -> bool {
    matches!(error, BodyError::Empty | BodyError::Truncated { .. } | BodyError::CutForm { .. })
}

fn read_json<'a>(api: Api, text: &'a str, head: &mut Head<'a>) -> Result<(), BodyError> {
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Err(BodyError::Empty);
    }
    let mut progress = Progress::default();
    let mut json = serde_json::Deserializer::from_str(text);
    HeadSeed::new(api, head, &mut progress)
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| body_error(&error, &progress))
}

fn body_error(error: &serde_json::Error, progress: &Progress) -> BodyError {
    let (line, column) = (error.line(), error.column());
    match (progress.refusal, error.classify()) {
        (Some(Refusal::Duplicate(field)), _) => BodyError::Duplicate { field },
        (Some(Refusal::Steering(field)), _) => BodyError::SteeringField(field),
        (None, Category::Eof) => BodyError::Truncated { line, column },
        (None, Category::Data) => match progress.reading {
            Some((field, expected)) => BodyError::WrongType { field, expected, line, column },
            None => BodyError::NotAnObject,
        },
        (None, Category::Syntax | Category::Io) => BodyError::Syntax { reason: reason(error), line, column },
    }
}

/// `serde_json`'s text without the position, which we give ourselves.
fn reason(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.rfind(" at line ") {
        text.truncate(end);
    }
    text
}
