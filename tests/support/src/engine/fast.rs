//! Prepared answers of the fast mode: no parsing, no scheduling, no allocation of text.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use super::body::ReplyBody;
use super::options::EngineOptions;
use super::render::{Reply, Shape};
use super::scheduler::Progress;
use super::stats::Finish;

const TOKENS: u32 = 4;

/// Everything that a fast engine ever answers.
#[derive(Debug)]
pub(super) struct FastReplies {
    chat: Prepared,
    completion: Prepared,
}

#[derive(Debug)]
struct Prepared {
    whole: Bytes,
    stream: Arc<[Bytes]>,
    stream_usage: Arc<[Bytes]>,
}

impl FastReplies {
    pub(super) fn new(options: &EngineOptions) -> Self {
        Self { chat: Prepared::new(Shape::Chat, options), completion: Prepared::new(Shape::Completion, options) }
    }

    /// The answer, and whether it is an event stream.
    pub(super) fn answer(&self, shape: Shape, body: &[u8]) -> (ReplyBody, bool) {
        let prepared = if shape == Shape::Chat { &self.chat } else { &self.completion };
        if !has_true(body, b"\"stream\"") {
            return (ReplyBody::whole(prepared.whole.clone()), false);
        }
        let frames = if has_true(body, b"\"include_usage\"") { &prepared.stream_usage } else { &prepared.stream };
        (ReplyBody::frames(Arc::clone(frames)), true)
    }
}

impl Prepared {
    fn new(shape: Shape, options: &EngineOptions) -> Self {
        let model = options.models.first().cloned().unwrap_or_default();
        let reply = |include_usage| Reply {
            shape,
            id: options.seed,
            model: model.clone(),
            seed: options.seed,
            prompt_tokens: 8,
            include_usage,
        };
        let progress = Progress { generated: TOKENS, cached_tokens: 0, finish: Some(Finish::Stop) };
        let created = super::render::unix_time();
        Self {
            whole: Bytes::from(reply(false).whole(progress).to_string()),
            stream: Vec::from(reply(false).events(created, 0, progress)).into(),
            stream_usage: Vec::from(reply(true).events(created, 0, progress)).into(),
        }
    }
}

/// Whether `key` is followed by `:true`, with blanks allowed. Looks at the end first: options follow long prompts.
fn has_true(body: &[u8], key: &[u8]) -> bool {
    let Some(at) = memmem::rfind(body, key) else {
        return false;
    };
    let value = body.get(at + key.len()..).unwrap_or_default();
    let mut rest = value.iter().filter(|byte| !byte.is_ascii_whitespace());
    rest.next() == Some(&b':') && rest.take(4).eq(b"true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_recognised_with_and_without_blanks() {
        assert!(has_true(br#"{"a":1,"stream":true}"#, b"\"stream\""));
        assert!(has_true(br#"{"stream" : true , "a":1}"#, b"\"stream\""));
        assert!(!has_true(br#"{"stream":false}"#, b"\"stream\""));
        assert!(!has_true(br#"{"a":1}"#, b"\"stream\""));
    }
}
