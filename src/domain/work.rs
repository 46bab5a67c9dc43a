//! What a request asks of an engine.

/// The size of a request, in tokens, as far as it is known or guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer, expected.
    pub output_tokens: u32,
}

impl Work {
    /// Both together: what the request may come to hold in the KV cache.
    pub fn tokens(self) -> u64 {
        u64::from(self.prompt_tokens) + u64::from(self.output_tokens)
    }
}
