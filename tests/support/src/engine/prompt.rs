//! What the engine reads of a request body, and the pseudo tokens of its prompt.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::options::BLOCK_TOKENS;

/// Bytes in the longest pseudo token.
const TOKEN_BYTES: usize = 4;
/// Size of the pretended vocabulary.
const VOCABULARY: u64 = 32_000;

/// One generation request.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) tokens_max: Option<u32>,
    pub(super) ignore_eos: bool,
    pub(super) token_count: usize,
    /// Chained hashes of the full blocks.
    pub(super) block_hashes: Vec<u64>,
    /// Hash of the whole prompt; with the engine's seed it decides the reply.
    pub(super) fingerprint: u64,
}

impl Prompt {
    /// Reads a parsed body; whatever has the wrong type counts as missing.
    pub(super) fn read(body: &Value) -> Self {
        let text = prompt_text(body);
        let model = body.get("model").and_then(Value::as_str).map(str::to_owned);
        let limit =
            ["max_completion_tokens", "max_tokens", "max_output_tokens"].iter().find_map(|key| body.get(key)?.as_u64());
        let (token_count, block_hashes, fingerprint) = hash_blocks(model.as_deref().unwrap_or_default(), &text);
        Self {
            model,
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            include_usage: body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false),
            tokens_max: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            ignore_eos: body.get("ignore_eos").and_then(Value::as_bool).unwrap_or(false),
            token_count,
            block_hashes,
            fingerprint,
        }
    }
}

/// All text of a prompt in order: `prompt`, `input`, `instructions`, `system`, `messages`.
pub(super) fn prompt_text(body: &Value) -> String {
    let mut text = String::new();
    for key in ["instructions", "system", "prompt", "input", "messages"] {
        if let Some(value) = body.get(key) {
            collect_text(value, &mut text);
        }
    }
    text
}

fn collect_text(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => {
            text.push_str(part);
            text.push('\n');
        }
        Value::Number(token) => {
            text.push_str(&token.to_string());
            text.push(' ');
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_text(part, text)),
        Value::Object(fields) => fields.values().for_each(|field| collect_text(field, text)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Pseudo tokens: words at white space, cut into pieces of four bytes.
fn tokens(text: &str) -> impl Iterator<Item = &[u8]> {
    text.as_bytes().split(u8::is_ascii_whitespace).flat_map(|word| word.chunks(TOKEN_BYTES))
}

/// Token ids as `/tokenize` shows them.
pub(super) fn token_ids(text: &str) -> Vec<u64> {
    tokens(text)
        .map(|token| {
            let mut hasher = DefaultHasher::new();
            token.hash(&mut hasher);
            hasher.finish() % VOCABULARY
        })
        .collect()
}

/// Number of tokens, hashes of the full blocks (each covers all before it and the model's name), hash of everything.
fn hash_blocks(model: &str, text: &str) -> (usize, Vec<u64>, u64) {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    let mut blocks = Vec::with_capacity(text.len() / (TOKEN_BYTES * BLOCK_TOKENS));
    let mut count = 0;
    for token in tokens(text) {
        token.hash(&mut hasher);
        count += 1;
        if count % BLOCK_TOKENS == 0 {
            blocks.push(hasher.finish());
        }
    }
    (count.max(1), blocks, hasher.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prompts_with_a_common_start_share_leading_block_hashes() {
        let shared = "four ".repeat(BLOCK_TOKENS * 2);
        let read = |tail: &str| {
            Prompt::read(&json!({"model": "m", "prompt": format!("{shared}{tail} {}", "tail ".repeat(20))}))
        };
        let (one, two) = (read("one"), read("two"));
        assert_eq!(one.block_hashes[..2], two.block_hashes[..2]);
        assert_ne!(one.block_hashes[2], two.block_hashes[2]);
        assert_ne!(one.fingerprint, two.fingerprint);
    }

    #[test]
    fn the_adapter_is_part_of_the_block_hash() {
        let read = |model: &str| Prompt::read(&json!({"model": model, "prompt": "four ".repeat(BLOCK_TOKENS)}));
        assert_ne!(read("base").block_hashes, read("adapter").block_hashes);
    }

    #[test]
    fn chat_text_parts_and_strings_count_alike() {
        let plain = json!({"messages": [{"role": "user", "content": "hello world"}]});
        let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello world"}]}]});
        assert!(prompt_text(&plain).contains("hello world"));
        assert!(prompt_text(&parts).contains("hello world"));
        assert_eq!(token_ids("hello world").len(), 4);
    }
}
