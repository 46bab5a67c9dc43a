//! From token ids to the hashes of their prefixes, in the engine's own blocks.
//!
//! These hashes are ours, not the engine's: whatever algorithm an engine uses, its events tell the tokens of each block.
//! Their roots are seeded apart from those of texts, so a chain of tokens never meets one of bytes.

use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::Chain;

/// Keeps the roots of token chains apart from those of text chains.
const ROOT_SEED: u64 = 0x746f_6b65_6e20_6964;
/// Keeps what is hashed beside tokens apart from them.
const EXTRA_SEED: u64 = 0x6578_7472_6120_6b65;

/// The hash before the first block. No model is in it: an engine has one, and who is asked about a prompt serves the
/// model that the prompt was made for. An adapter makes other blocks of the same tokens, and so does another block size.
pub fn token_root(adapter: Option<&str>, block_tokens: u32) -> u64 {
    let mut hasher = Xxh3::with_seed(ROOT_SEED);
    hasher.update(&block_tokens.to_le_bytes());
    if let Some(adapter) = adapter {
        hasher.update(&[0xff]);
        hasher.update(adapter.as_bytes());
    }
    hasher.digest()
}

/// The hash of a block behind `parent`. `extra` stands for what else the engine goes by, 0 for nothing.
pub fn token_block(parent: u64, tokens: &[u32], extra: u64) -> u64 {
    let mut bytes = SmallVec::<[u8; 16 + 4 * 32]>::new();
    bytes.extend_from_slice(&parent.to_le_bytes());
    bytes.extend_from_slice(&extra.to_le_bytes());
    for token in tokens {
        bytes.extend_from_slice(&token.to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// What stands for a client's `cache_salt`. It is in the first block only; the others inherit it.
pub fn salt_digest(salt: &str) -> u64 {
    extra_digest(salt.as_bytes())
}

/// What stands for anything else beside the tokens; never 0.
pub fn extra_digest(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, EXTRA_SEED) | 1
}

/// A prompt in tokens, as one engine reads it.
#[derive(Debug, Clone, Copy)]
pub struct TokenPrompt<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The adapter that the request names.
    pub adapter: Option<&'a str>,
    /// The client's `cache_salt`.
    pub salt: Option<&'a str>,
}

impl TokenPrompt<'_> {
    /// The chain of its complete blocks, at most `blocks_max`.
    pub fn chain(&self, block_tokens: u32, blocks_max: usize) -> Chain {
        let size = (block_tokens as usize).max(1);
        let mut parent = token_root(self.adapter, block_tokens);
        let mut extra = self.salt.map_or(0, salt_digest);
        let blocks = self.tokens.chunks_exact(size).take(blocks_max);
        let hashes: Vec<u64> = blocks
            .map(|block| {
                parent = token_block(parent, block, std::mem::take(&mut extra));
                parent
            })
            .collect();
        Chain::from(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Chainer, Root};

    fn chain(adapter: Option<&str>, salt: Option<&str>, size: u32) -> Vec<u64> {
        let tokens: Vec<u32> = (0..70).collect();
        TokenPrompt { tokens: &tokens, adapter, salt }.chain(size, 1000).hashes().to_vec()
    }

    #[test]
    fn adapters_salts_and_block_sizes_share_nothing() {
        let variants =
            [(None, None, 16), (Some("a"), None, 16), (None, Some("a"), 16), (Some(""), None, 16), (None, None, 32)];
        let mut seen: Vec<u64> = variants.iter().flat_map(|(a, s, size)| chain(*a, *s, *size)).collect();
        let count = seen.len();
        assert_eq!(count, 4 * 4 + 2, "only complete blocks count");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_longer_prompt_begins_with_the_same_hashes() {
        let tokens: Vec<u32> = (0..320).collect();
        let of = |length: usize| TokenPrompt { tokens: &tokens[..length], adapter: None, salt: Some("s") }.chain(16, 9);
        assert_eq!(of(320).len(), 9, "no longer than it may be");
        assert_eq!(of(100).hashes(), &of(320).hashes()[..6]);
    }

    #[test]
    fn tokens_never_meet_text() {
        let zeros = [0_u8; 512];
        let mut chainer = Chainer::new(&Root::default(), 9, 0);
        assert!(chainer.push(&zeros).is_continue());
        let texts = chainer.finish();
        let tokens = TokenPrompt { tokens: &[0; 128], adapter: None, salt: None }.chain(64, 9);
        assert!(texts.hashes().iter().all(|hash| !tokens.hashes().contains(hash)));
    }
}
