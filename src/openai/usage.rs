//! Token counts of a reply, in the words of `OpenAI`, Anthropic and the Responses API.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Tokens that a request cost. A count that the engine did not give is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, as the engine counts them. Anthropic's own service leaves cached tokens
    /// out of `input_tokens`; `OpenAI`'s counts include them.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Tokens of the prompt that came from a cache; `None` where the engine does not tell.
    pub cached_tokens: Option<u64>,
}

/// The usage of a whole JSON reply; `None` if there is none or it is not JSON.
pub fn from_body(body: &[u8]) -> Option<Usage> {
    let text = std::str::from_utf8(body).ok()?;
    let reply: Reply<'_> = serde_json::from_str(text).ok()?;
    let mut usage = None;
    reply.add_to(&mut usage);
    usage
}

/// The usage in the last bytes of a JSON reply whose start was dropped.
pub fn from_end(end: &[u8]) -> Option<Usage> {
    let mut usage = None;
    super::sse::last_usage(end)?.add_to(&mut usage);
    usage
}

/// The parts of a reply, or of one event of a streamed reply, that say how it went.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reply<'a> {
    /// The event type of Anthropic and Responses events.
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Cow<'a, str>>,
    /// `error` in the flat errors of `SGLang` and TensorRT-LLM.
    #[serde(borrow)]
    object: Option<Cow<'a, str>>,
    error: Option<IgnoredAny>,
    usage: Option<Counts>,
    /// Responses: the response that an event is about.
    response: Option<Carrier>,
    /// Anthropic: the message of `message_start`.
    message: Option<Inner>,
}

/// `message` is an object in events and a string in flat errors.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Inner {
    Message(Carrier),
    Text(IgnoredAny),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Carrier {
    usage: Option<Counts>,
}

/// A usage object in any dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

impl Reply<'_> {
    /// Whether this is an error in any engine's shape.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some() || self.object.as_deref() == Some("error") || self.kind.as_deref() == Some("error")
    }

    /// Puts the counts of this reply over those known so far.
    pub(super) fn add_to(&self, usage: &mut Option<Usage>) {
        let nested = self.response.as_ref().and_then(|it| it.usage.as_ref());
        let message = match &self.message {
            Some(Inner::Message(message)) => message.usage.as_ref(),
            _ => None,
        };
        for counts in [message, nested, self.usage.as_ref()].into_iter().flatten() {
            counts.add_to(usage);
        }
    }
}

impl Counts {
    /// Later counts replace earlier ones (streams repeat running totals); missing ones do not.
    pub(super) fn add_to(&self, usage: &mut Option<Usage>) {
        let details = self.prompt_tokens_details.as_ref();
        let details = details.or(self.input_tokens_details.as_ref());
        let cached = details.and_then(|it| it.cached_tokens);
        let total = usage.get_or_insert_default();
        let fields = [
            (&mut total.prompt_tokens, self.prompt_tokens.or(self.input_tokens)),
            (&mut total.completion_tokens, self.completion_tokens.or(self.output_tokens)),
        ];
        for (known, new) in fields {
            *known = new.unwrap_or(*known);
        }
        total.cached_tokens = cached.or(self.cache_read_input_tokens).or(total.cached_tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt_tokens: u64, completion_tokens: u64, cached_tokens: Option<u64>) -> Usage {
        Usage { prompt_tokens, completion_tokens, cached_tokens }
    }

    #[test]
    fn every_dialect_is_understood() {
        for (body, expected) in [
            (
                r#"{"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":null}}"#,
                Some(usage(5, 7, None)),
            ),
            (
                r#"{"usage":{"prompt_tokens":5,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                Some(usage(5, 0, Some(4))),
            ),
            (
                r#"{"type":"message","usage":{"input_tokens":3,"output_tokens":2,"cache_read_input_tokens":1}}"#,
                Some(usage(3, 2, Some(1))),
            ),
            (
                r#"{"object":"response","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":8},"output_tokens":1}}"#,
                Some(usage(9, 1, Some(8))),
            ),
            (r#"{"choices":[],"usage":null}"#, None),
            (r#"{"object":"error","message":"no"}"#, None),
            ("[1]", None),
            ("<html>", None),
        ] {
            assert_eq!(from_body(body.as_bytes()), expected, "{body}");
        }
    }
}
