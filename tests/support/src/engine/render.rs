//! JSON and SSE as vLLM 0.32 frames them (`fixtures/vllm-0.32.0-sse.txt` shows the original).

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::scheduler::Progress;
use super::stats::Finish;

const WORDS: [&str; 32] = [
    "the", "rope", "runs", "through", "a", "ring", "and", "holds", "its", "way", "over", "every", "wave", "while",
    "wind", "turns", "north", "of", "harbour", "lights", "where", "boats", "wait", "for", "tide", "to", "carry",
    "them", "out", "past", "old", "stones",
];

/// The last event of every `OpenAI` stream.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// Which of the two `OpenAI` shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

/// What an answer tells besides its tokens.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) shape: Shape,
    pub(super) id: u64,
    pub(super) model: String,
    pub(super) seed: u64,
    pub(super) prompt_tokens: usize,
    pub(super) include_usage: bool,
}

/// Seconds since the epoch.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Reply {
    /// Text of token `index`; the same seed gives the same text.
    fn token(&self, index: u32) -> String {
        let mixed = fastrand::Rng::with_seed(self.seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .usize(..WORDS.len());
        let word = WORDS.get(mixed).copied().unwrap_or("the");
        if index == 0 { word.to_owned() } else { format!(" {word}") }
    }

    pub(super) fn text(&self, tokens: u32) -> String {
        (0..tokens).map(|index| self.token(index)).collect()
    }

    fn id(&self) -> String {
        let prefix = if self.shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        format!("{prefix}-{:016x}", self.id)
    }

    fn usage(&self, progress: Progress) -> Value {
        let (prompt, completion) = (self.prompt_tokens, progress.generated);
        json!({
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion as usize,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": progress.cached_tokens},
        })
    }

    /// The plain answer.
    pub(super) fn whole(&self, progress: Progress) -> Value {
        let text = self.text(progress.generated);
        let finish = progress.finish.map(Finish::as_str);
        let (object, choice) = match self.shape {
            Shape::Chat => (
                "chat.completion",
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": null, "finish_reason": finish, "stop_reason": null}),
            ),
            Shape::Completion => (
                "text_completion",
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish, "stop_reason": null}),
            ),
        };
        json!({
            "id": self.id(), "object": object, "created": unix_time(), "model": self.model,
            "choices": [choice], "usage": self.usage(progress), "kv_transfer_params": null,
        })
    }

    /// One event, with the keys in the order in which vLLM writes them.
    fn event(&self, created: u64, choices: &str, rest: &str) -> Bytes {
        let object = if self.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        let (id, model) = (self.id(), Value::from(self.model.as_str()));
        Bytes::from(format!(
            "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[{choices}]{rest}}}\n\n"
        ))
    }

    /// The words of a token need no escaping.
    fn choice(&self, index: u32, finish: Option<Finish>) -> String {
        let text = self.token(index);
        let finish = finish.map_or("\"finish_reason\":null".to_owned(), |finish| {
            format!("\"finish_reason\":\"{}\",\"stop_reason\":null", finish.as_str())
        });
        match self.shape {
            Shape::Chat => format!(
                "{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"logprobs\":null,{finish},\"token_ids\":null}}"
            ),
            Shape::Completion => {
                format!("{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,{finish},\"token_ids\":null}}")
            }
        }
    }

    /// The events of the tokens from `sent` to `progress`, with everything that comes before and after them.
    pub(super) fn events(&self, created: u64, sent: u32, progress: Progress) -> VecDeque<Bytes> {
        const ROLE: &str =
            r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#;
        let mut events = VecDeque::new();
        if sent == 0 && progress.generated > 0 && self.shape == Shape::Chat {
            events.push_back(self.event(created, ROLE, r#","prompt_token_ids":null,"prompt_text":null"#));
        }
        for index in sent..progress.generated {
            // vLLM puts the finish reason into the last content chunk.
            let finish = progress.finish.filter(|_| index + 1 == progress.generated);
            events.push_back(self.event(created, &self.choice(index, finish), ""));
        }
        if progress.finish.is_some() {
            if self.include_usage {
                let (prompt, completion, cached) = (self.prompt_tokens, progress.generated, progress.cached_tokens);
                let total = prompt + completion as usize;
                let usage = format!(
                    ",\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\"completion_tokens\":{completion},\
                     \"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}},\"system_fingerprint\":\"vllm-0.32.0-lab\""
                );
                events.push_back(self.event(created, "", &usage));
            }
            events.push_back(Bytes::from_static(DONE));
        }
        events
    }

    /// The answer as a stream that follows the scheduler; dropping it aborts the sequence.
    pub(super) fn stream(self, progress: watch::Receiver<Progress>) -> BoxStream<'static, Bytes> {
        let follower =
            Follower { created: unix_time(), reply: self, progress, sent: 0, ready: VecDeque::new(), ended: false };
        stream::unfold(follower, Follower::next).boxed()
    }
}

struct Follower {
    reply: Reply,
    created: u64,
    progress: watch::Receiver<Progress>,
    sent: u32,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while self.ready.is_empty() && !self.ended {
            let stopped = self.progress.changed().await.is_err();
            let progress = *self.progress.borrow_and_update();
            self.ready = self.reply.events(self.created, self.sent, progress);
            self.sent = progress.generated;
            self.ended = stopped || progress.finish.is_some();
        }
        let event = self.ready.pop_front()?;
        Some((event, self))
    }
}

/// An error in the `OpenAI` shape, with vLLM's integer code.
pub(super) fn error(code: u16, kind: &str, message: &str, param: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURED: &str = include_str!("../../fixtures/vllm-0.32.0-sse.txt");

    /// The text with everything that differs from run to run taken out: keys, their order and the literals stay.
    fn outline(event: &str) -> Vec<String> {
        let chunk = event.strip_prefix("data: ").unwrap();
        chunk
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| CAPTURED.contains(&format!("\"{word}\":")))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn chat_events_have_the_keys_of_the_captured_ones_in_their_order() {
        let captured: Vec<&str> =
            CAPTURED.lines().filter(|line| line.starts_with("data: {") && line.contains("chatcmpl")).collect();
        let reply =
            Reply { shape: Shape::Chat, id: 1, model: "tiny".into(), seed: 1, prompt_tokens: 14, include_usage: true };
        let progress = Progress { generated: 3, cached_tokens: 0, finish: Some(Finish::Length) };
        let events = reply.events(1, 0, progress);
        assert_eq!(events.len(), captured.len() + 1);
        for (event, captured) in events.iter().zip(captured) {
            let event = std::str::from_utf8(event).unwrap();
            let chunk: Value = serde_json::from_str(event.trim().strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(chunk["object"], "chat.completion.chunk");
            let expected: Vec<String> =
                outline(captured).into_iter().filter(|key| key != "created_cache_tokens").collect();
            assert_eq!(outline(event), expected);
        }
    }
}
