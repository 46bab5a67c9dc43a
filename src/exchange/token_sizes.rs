//! How many bytes of a prompt make a token, learned for each model from what engines report.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

/// English text and code, roughly, until something was learned.
const USUAL: f64 = 4.0;
/// Tokens whose size weighs as much as what was known before.
const MEMORY_TOKENS: f64 = 8192.0;
/// Shorter prompts tell more of the chat template than of their text.
const TELLING_TOKENS: u64 = 64;
/// A prompt with more bytes a token than this has media in it, and tells nothing of text.
const BYTES_MAX: f64 = 16.0;
/// Most models that are told apart; of further ones nothing is learned.
const MODELS_MAX: usize = 1024;

/// Bytes per token by model. Reading takes no lock.
#[derive(Debug, Default)]
pub struct TokenSizes {
    /// `f64` bits. Replaced when a model is heard of for the first time.
    models: ArcSwap<HashMap<Box<str>, Arc<AtomicU64>>>,
}

impl TokenSizes {
    /// Bytes of JSON that make a token of a prompt for this model.
    pub fn bytes_per_token(&self, model: &str) -> f64 {
        let models = self.models.load();
        // Mostly nothing was learned, and then nothing is looked up.
        if models.is_empty() {
            return USUAL;
        }
        models.get(model).map_or(USUAL, |size| f64::from_bits(size.load(Relaxed)))
    }

    /// Learns that a prompt of so many bytes was so many tokens.
    pub fn learn(&self, model: &str, bytes: u64, tokens: u64) {
        let (bytes, count) = (bytes as f64, tokens as f64);
        if tokens < TELLING_TOKENS || bytes < count || bytes > count * BYTES_MAX {
            return;
        }
        let Some(size) = self.size(model) else { return };
        let known = f64::from_bits(size.load(Relaxed));
        // Two who learn at once: one of them is not heard.
        size.store(((known * MEMORY_TOKENS + bytes) / (MEMORY_TOKENS + count)).to_bits(), Relaxed);
    }

    fn size(&self, model: &str) -> Option<Arc<AtomicU64>> {
        if let Some(size) = self.models.load().get(model) {
            return Some(Arc::clone(size));
        }
        // Nothing is copied for a model that there is no room for.
        if self.models.load().len() >= MODELS_MAX {
            return None;
        }
        self.models.rcu(|models| {
            let mut models = HashMap::clone(models);
            if models.len() < MODELS_MAX {
                models.entry(model.into()).or_insert_with(|| Arc::new(AtomicU64::new(USUAL.to_bits())));
            }
            models
        });
        self.models.load().get(model).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_token_is_learned_for_each_model() {
        let sizes = TokenSizes::default();
        for _ in 0..40 {
            sizes.learn("chinese", 2000, 1000);
            sizes.learn("english", 4500, 1000);
        }
        let [chinese, english, other] = ["chinese", "english", "other"].map(|model| sizes.bytes_per_token(model));
        assert!((2.0..2.1).contains(&chinese) && (4.45..=4.5).contains(&english), "{chinese} {english}");
        assert!((other - 4.0).abs() < 1e-9);
    }

    #[test]
    fn short_prompts_and_those_with_media_teach_nothing() {
        let sizes = TokenSizes::default();
        for (bytes, tokens) in [(2_000_000, 1000), (10, 63), (10, 0), (0, 100), (100, 1000)] {
            sizes.learn("m", bytes, tokens);
        }
        assert!((sizes.bytes_per_token("m") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn no_more_models_are_kept_than_the_bound() {
        let sizes = TokenSizes::default();
        (0..MODELS_MAX + 10).for_each(|model| sizes.learn(&model.to_string(), 2000, 1000));
        assert_eq!(sizes.models.load().len(), MODELS_MAX);
    }
}
