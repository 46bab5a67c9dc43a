//! What is asked: what strategies may go by, taken out of a request's body.

use std::borrow::Cow;
use std::mem;

use crate::domain::Work;
use crate::index::{Chain, Chainer, Held, Root};
use crate::lookup::Key;
use crate::openai::{ApiError, Head, canonical};
use crate::routing::{Asked, KeptHeaders};
use crate::state::Snapshot;

use super::Step;
use super::machine::Exchange;
use super::told::PromptKey;

/// Blocks of a prompt that are looked at: its first mebibyte.
const PREFIX_BLOCKS_MAX: usize = 4096;
/// Answers to one request that count at most: engines refuse more, and nobody is to seem full until they do.
const ANSWERS_MAX: u32 = 128;
/// What an inline media file is taken for. Engines make some hundred to some thousand tokens of an image, by its size in
/// pixels and not in bytes.
const MEDIA_TOKENS: u32 = 1024;
/// Longest name of a model that may exist, in bytes.
pub(super) const MODEL_BYTES_MAX: usize = 8 * 1024;

impl Exchange {
    /// Keeps of the body's head what strategies may go by. It is kept long after the body is gone, so it is bounded.
    /// `model` is the one to be served.
    pub(super) fn ask(&mut self, head: &Head<'_>, model: &str, snapshot: &Snapshot) -> Result<(), Box<ApiError>> {
        if model.len() > MODEL_BYTES_MAX {
            return Err(Box::new(ApiError::model_not_found(model)));
        }
        let is_short = |text: &&str| text.len() <= KeptHeaders::VALUE_BYTES_MAX;
        let own = |text: &Option<Cow<'_, str>>| text.as_deref().filter(is_short).map(Into::into);
        let expected = self.core.policy.expected_output_tokens;
        let output = head.max_tokens.map_or(expected, |most| expected.min(u32::try_from(most).unwrap_or(u32::MAX)));
        let size = head.prompt_size();
        let bytes_per_token = self.bytes_per_token(model, snapshot);
        #[expect(clippy::cast_sign_loss, reason = "a quotient of positive numbers")]
        let text_tokens = (size.text_bytes as f64 / bytes_per_token) as u32;
        let media = u32::try_from(size.media).unwrap_or(u32::MAX);
        self.asked = Asked {
            model: model.into(),
            prompt_bytes: u32::try_from(size.text_bytes).unwrap_or(u32::MAX),
            bytes_per_token,
            media,
            work: Work {
                prompt_tokens: text_tokens.saturating_add(media.saturating_mul(MEDIA_TOKENS)),
                output_tokens: output.saturating_mul(head.n.unwrap_or(1).clamp(1, ANSWERS_MAX)),
            },
            max_tokens: head.max_tokens.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            streams: head.stream,
            priority: self.priority(),
            user: own(&head.user),
            session_id: own(&head.session_id),
            prompt_cache_key: own(&head.prompt_cache_key),
            headers: mem::take(&mut self.head.kept),
            prefix: Chain::default(),
            held: Held::default(),
        };
        Ok(())
    }

    /// An adapter's tokens are those of its base model.
    fn bytes_per_token(&self, model: &str, snapshot: &Snapshot) -> f64 {
        let base = self.fleet(snapshot).model(model).and_then(|view| view.parent.as_deref()).unwrap_or(model);
        self.core.token_sizes.bytes_per_token(base)
    }

    /// Hashes the prompt, if the strategy that will decide goes by it: then, if the prompt is not too long, what it is
    /// known by comes back.
    pub(super) fn ask_prefix(&mut self, head: &Head<'_>, snapshot: &Snapshot) -> Option<PromptKey> {
        // What is wrong with the choice, the decision tells.
        let choice = self.choice(snapshot).ok()?;
        let needs_prefix = choice.strategy.needs.prefix;
        self.chosen = Some(choice);
        if !needs_prefix {
            return None;
        }
        let adapter_of = self.view(snapshot).adapter_of;
        let root = Root { model: &self.asked.model, adapter_of, salt: head.cache_salt.as_deref(), seed: 0 };
        let mut chainer = Chainer::new(&root, PREFIX_BLOCKS_MAX, self.asked.prompt_bytes as usize);
        let mut key = self.core.lookup.is_some().then(|| Key::of_model(&self.asked.model));
        let is_whole = canonical::write(head, |piece| {
            if let Some(key) = &mut key {
                key.update(piece);
            }
            chainer.push(piece)
        });
        self.asked.prefix = chainer.finish();
        Some(PromptKey(key.filter(|_| is_whole).map(|key| key.digest())))
    }

    /// Decides without a body.
    pub(super) fn decide_for(&mut self, model: &str) -> Step {
        let (priority, headers) = (self.priority(), mem::take(&mut self.head.kept));
        self.asked = Asked { model: model.into(), priority, headers, ..Asked::default() };
        let snapshot = self.core.reader.load();
        self.decide(&snapshot)
    }

    /// How urgent the request is, by the objective that it names.
    fn priority(&self) -> i32 {
        let objective = self.head.objective.as_deref();
        objective.map_or(0, |objective| self.core.policies.load().of(self.pool.as_deref()).priority(objective))
    }
}

#[cfg(test)]
#[path = "asking_tests.rs"]
mod tests;
