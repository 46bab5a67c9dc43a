//! Which JSON keys [`super::head`] reads for which API, and the visitor that reads them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::head::Head;
use super::paths::Api;
use super::seeds::{Flag, Member, Text, Whole};

/// Fields by which a client could steer an engine behind the router's back. They are refused on
/// every path; `kv_transfer_params` alone can end a vLLM 0.32 process.
pub const STEERING_FIELDS: [&str; 6] = [
    "kv_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "disaggregated_params",
    "disagg_prefill_resp",
];

/// The steering field called `name`.
pub(super) fn steering(name: &str) -> Option<&'static str> {
    STEERING_FIELDS.into_iter().find(|field| *field == name)
}

/// Why reading stopped before anything was wrong with the JSON.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    Duplicate(&'static str),
    Steering(&'static str),
}

/// What the visitor knew when it stopped; `serde` errors carry only text.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The field being read, and what it must be.
    pub(super) reading: Option<(&'static str, &'static str)>,
    pub(super) refusal: Option<Refusal>,
    /// One bit per key of [`KEYS`].
    seen: u64,
    /// The place in [`Dialect::limit`] of the key that set `max_tokens`.
    limit_rank: Option<usize>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Model,
    Stream,
    StreamOptions,
    User,
    Metadata,
    Limit,
    SamplingParams,
    N,
    Priority,
    Prompt,
    Preamble,
    Tools,
    SessionId,
    PromptCacheKey,
    CacheSalt,
    PreviousResponseId,
}

/// Every key that some API reads.
const KEYS: [(&str, Slot); 37] = [
    ("model", Slot::Model),
    ("messages", Slot::Prompt),
    ("stream", Slot::Stream),
    ("stream_options", Slot::StreamOptions),
    ("max_tokens", Slot::Limit),
    ("max_completion_tokens", Slot::Limit),
    ("max_output_tokens", Slot::Limit),
    ("n_predict", Slot::Limit),
    ("sampling_params", Slot::SamplingParams),
    ("user", Slot::User),
    ("metadata", Slot::Metadata),
    ("n", Slot::N),
    ("priority", Slot::Priority),
    ("tools", Slot::Tools),
    ("session_id", Slot::SessionId),
    ("prompt_cache_key", Slot::PromptCacheKey),
    ("cache_salt", Slot::CacheSalt),
    ("previous_response_id", Slot::PreviousResponseId),
    ("prompt", Slot::Prompt),
    ("input", Slot::Prompt),
    ("documents", Slot::Prompt),
    ("text", Slot::Prompt),
    ("texts", Slot::Prompt),
    ("input_ids", Slot::Prompt),
    ("token_ids", Slot::Prompt),
    ("text_2", Slot::Prompt),
    ("data_2", Slot::Prompt),
    ("content", Slot::Prompt),
    ("tokens", Slot::Prompt),
    ("input_prefix", Slot::Prompt),
    ("system", Slot::Preamble),
    ("instructions", Slot::Preamble),
    ("query", Slot::Preamble),
    ("queries", Slot::Preamble),
    ("text_1", Slot::Preamble),
    ("data_1", Slot::Preamble),
    ("input_suffix", Slot::Preamble),
];

/// The keys whose meaning depends on the API. Of several limits the first listed wins; of several
/// prompts the first in the body is kept (engines refuse such bodies).
struct Dialect {
    prompt: &'static [&'static str],
    preamble: &'static [&'static str],
    limit: &'static [&'static str],
}

fn dialect(api: Api) -> Dialect {
    let (prompt, preamble, limit): (&'static [&'static str], &'static [&'static str], &'static [&'static str]) =
        match api {
            Api::Chat => (&["messages"], &[], &["max_completion_tokens", "max_tokens"]),
            Api::Completions => (&["prompt"], &[], &["max_tokens", "n_predict"]),
            Api::Infill => (&["input_prefix"], &["input_suffix"], &["n_predict"]),
            Api::Responses => (&["input"], &["instructions"], &["max_output_tokens"]),
            Api::Messages => (&["messages"], &["system"], &["max_tokens"]),
            Api::CountTokens => (&["messages", "input"], &["system", "instructions"], &[]),
            Api::Embeddings => (&["input", "messages", "text", "texts", "content"], &[], &[]),
            Api::Pooling | Api::Classify => (&["input", "messages", "text"], &[], &[]),
            Api::Rerank => (&["documents"], &["query"], &[]),
            Api::Score => (&["text_2", "data_2", "documents"], &["text_1", "data_1", "queries", "query"], &[]),
            Api::Generate => (&["text", "input_ids", "token_ids"], &[], &["sampling_params"]),
            Api::Tokenize => (&["prompt", "messages", "content"], &[], &[]),
            Api::Render => (&["messages", "prompt"], &[], &[]),
            Api::Detokenize => (&["tokens"], &[], &[]),
            Api::AudioSpeech => (&["input"], &[], &[]),
            Api::ImagesGenerations | Api::VideoGenerations => (&["prompt"], &[], &[]),
            Api::ImagesEdits | Api::ImagesVariations | Api::AudioTranscriptions | Api::AudioTranslations => {
                (&[], &[], &[])
            }
        };
    Dialect { prompt, preamble, limit }
}

impl Dialect {
    fn reads(&self, api: Api, name: &str, slot: Slot) -> bool {
        match slot {
            Slot::Prompt => self.prompt.contains(&name),
            Slot::Preamble => self.preamble.contains(&name),
            Slot::Limit | Slot::SamplingParams => self.limit.contains(&name),
            // Anthropic's; elsewhere `metadata` is the client's own.
            Slot::Metadata => api == Api::Messages,
            _ => true,
        }
    }
}

/// Reads a JSON object into a [`Head`]; what was read before an error stays read.
pub(super) struct HeadSeed<'s, 'a> {
    api: Api,
    dialect: Dialect,
    head: &'s mut Head<'a>,
    progress: &'s mut Progress,
}

impl<'s, 'a> HeadSeed<'s, 'a> {
    pub(super) fn new(api: Api, head: &'s mut Head<'a>, progress: &'s mut Progress) -> Self {
        Self { api, dialect: dialect(api), head, progress }
    }

    /// Notes that a key was met; a second time is an error.
    fn enter(&mut self, index: usize, name: &'static str) -> Result<(), Refusal> {
        let bit = 1_u64 << index;
        if self.progress.seen & bit != 0 {
            return Err(Refusal::Duplicate(name));
        }
        self.progress.seen |= bit;
        Ok(())
    }

    fn read_slot<M: MapAccess<'a>>(&mut self, name: &'static str, slot: Slot, map: &mut M) -> Result<(), M::Error> {
        self.progress.reading = Some((name, expected(slot)));
        let head = &mut *self.head;
        match slot {
            Slot::Model => (head.model, head.model_written) = model(raw(map)?)?.unzip(),
            Slot::Stream => head.stream = map.next_value_seed(Flag)?.unwrap_or(false),
            Slot::StreamOptions => {
                let member = Member(&["include_usage"], Flag);
                head.include_usage = map.next_value_seed(member)?.unwrap_or(false);
            }
            Slot::User => head.user = map.next_value_seed(Text)?.or(head.user.take()),
            Slot::Metadata => {
                let user = map.next_value_seed(Member(&["user_id"], Text))?;
                head.user = head.user.take().or(user);
            }
            Slot::Limit => {
                let limit = map.next_value_seed(Whole)?;
                self.set_limit(name, limit);
            }
            Slot::SamplingParams => {
                let member = Member(&["max_new_tokens", "max_tokens"], Whole);
                let limit = map.next_value_seed(member)?;
                self.set_limit(name, limit);
            }
            Slot::N => {
                let n = map.next_value_seed(Whole)?.and_then(|n| u64::try_from(n).ok());
                head.n = n.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            }
            Slot::Priority => {
                head.priority = map.next_value_seed(Whole)?.map(saturate);
            }
            Slot::Prompt => head.prompt = head.prompt.or(raw(map)?),
            Slot::Preamble => head.preamble = head.preamble.or(raw(map)?),
            Slot::Tools => head.tools = raw(map)?,
            Slot::SessionId => head.session_id = map.next_value_seed(Text)?,
            Slot::PromptCacheKey => head.prompt_cache_key = map.next_value_seed(Text)?,
            Slot::CacheSalt => head.cache_salt = map.next_value_seed(Text)?,
            Slot::PreviousResponseId => head.previous_response_id = map.next_value_seed(Text)?,
        }
        self.progress.reading = None;
        Ok(())
    }

    fn set_limit(&mut self, name: &str, limit: Option<i128>) {
        let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) else {
            return;
        };
        let rank = self.dialect.limit.iter().position(|key| *key == name);
        if self.progress.limit_rank.is_none() || rank < self.progress.limit_rank {
            self.progress.limit_rank = rank;
            self.head.max_tokens = Some(limit);
        }
    }
}

fn expected(slot: Slot) -> &'static str {
    match slot {
        Slot::Stream => "true or false",
        Slot::StreamOptions => "an object whose `include_usage` is true or false",
        Slot::Metadata => "an object whose `user_id` is a string",
        Slot::SamplingParams => "an object whose token limit is a whole number",
        Slot::Limit | Slot::N | Slot::Priority => "a whole number",
        Slot::Prompt | Slot::Preamble | Slot::Tools => "JSON",
        _ => "a string",
    }
}

fn raw<'a, M: MapAccess<'a>>(map: &mut M) -> Result<Option<&'a RawValue>, M::Error> {
    let value: &'a RawValue = map.next_value()?;
    Ok((value.get() != "null").then_some(value))
}

/// What a name says, and how it is written. Only one with escapes is copied.
fn model<E: de::Error>(raw: Option<&RawValue>) -> Result<Option<(Cow<'_, str>, &str)>, E> {
    let Some(raw) = raw else { return Ok(None) };
    let quoted = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let written = quoted.ok_or_else(|| E::custom("not a string"))?;
    let name = if written.contains('\\') {
        Cow::Owned(serde_json::from_str(raw.get()).map_err(E::custom)?)
    } else {
        Cow::Borrowed(written)
    };
    Ok(Some((name, written)))
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl<'a> DeserializeSeed<'a> for HeadSeed<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for HeadSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let outcome = match key {
                Key::Steering(name) => Err(Refusal::Steering(name)),
                Key::Known(index, name, slot) if self.dialect.reads(self.api, name, slot) => {
                    self.enter(index, name).map(|()| Some((name, slot)))
                }
                Key::Known(..) | Key::Other => Ok(None),
            };
            match outcome {
                Ok(Some((name, slot))) => self.read_slot(name, slot, &mut map)?,
                Ok(None) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Err(refusal) => {
                    self.progress.refusal = Some(refusal);
                    return Err(de::Error::custom("refused"));
                }
            }
        }
        Ok(())
    }
}

/// A key, unescaped: `"kv_transfer_param\u0073"` is no way around a refusal.
enum Key {
    Known(usize, &'static str, Slot),
    Steering(&'static str),
    Other,
}

struct KeySeed;

impl<'a> DeserializeSeed<'a> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        let known = KEYS.iter().enumerate().find(|(_, (name, _))| *name == key);
        Ok(match (known, steering(key)) {
            (Some((index, (name, slot))), _) => Key::Known(index, name, *slot),
            (None, Some(name)) => Key::Steering(name),
            (None, None) => Key::Other,
        })
    }
}
