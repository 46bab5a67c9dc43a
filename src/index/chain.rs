//! From the bytes of a prompt to the hashes of its prefixes.

use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes in a block, about 64 tokens of English or code.
///
/// Smaller blocks find no more of practical use, for half a block is a few milliseconds of prefill at most, and cost
/// time and memory in proportion. A prompt's last, incomplete block counts as not held.
pub const BLOCK_BYTES: usize = 256;

/// What stands before the first block: two prompts with different roots share nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Root<'a> {
    /// The model or adapter that the request names.
    pub model: &'a str,
    /// The base model, where that is an adapter.
    pub adapter_of: Option<&'a str>,
    /// The client's `cache_salt`, by which it keeps its blocks apart.
    pub salt: Option<&'a str>,
    /// Makes the hashes of one fleet unlike those of another. Replicas that share an index need the same.
    pub seed: u64,
}

impl Root<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = Xxh3::with_seed(self.seed);
        // 0xff and 0xfe occur in no UTF-8 text, so no two roots are written alike.
        hasher.update(self.model.as_bytes());
        for (mark, text) in [(0xff, self.adapter_of), (0xfe, self.salt)] {
            if let Some(text) = text {
                hasher.update(&[mark]);
                hasher.update(text.as_bytes());
            }
        }
        hasher.digest()
    }
}

/// The hashes of a prompt's prefixes, one block longer each. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain(Arc<[u64]>);

impl Chain {
    /// A chain of given hashes, each of which must stand for its block and all before it.
    pub fn of_hashes(hashes: &[u64]) -> Self {
        Self(hashes.into())
    }

    /// The hashes, root first.
    pub fn hashes(&self) -> &[u64] {
        &self.0
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the prompt was shorter than a block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u64>> for Chain {
    /// As [`Chain::of_hashes`].
    fn from(hashes: Vec<u64>) -> Self {
        Self(hashes.into())
    }
}

/// Makes a [`Chain`] of bytes that come in pieces. Where a piece is long it is hashed in place; only the bytes around
/// its ends are copied, into the one block that is open.
#[derive(Debug)]
pub struct Chainer {
    parent: u64,
    open: [u8; BLOCK_BYTES],
    filled: usize,
    hashes: Vec<u64>,
    blocks_max: usize,
}

impl Chainer {
    /// Starts a chain of at most `blocks_max` blocks; `bytes_expected` is a hint for its length.
    pub fn new(root: &Root<'_>, blocks_max: usize, bytes_expected: usize) -> Self {
        let expected = (bytes_expected / BLOCK_BYTES).min(blocks_max);
        let hashes = Vec::with_capacity(expected);
        Self { parent: root.hash(), open: [0; BLOCK_BYTES], filled: 0, hashes, blocks_max }
    }

    /// Takes the next bytes. It breaks when the chain is as long as it may be: the rest is not looked at.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let end = self.filled + bytes.len();
        if let Some(space) = self.open.get_mut(self.filled..end)
            && end < BLOCK_BYTES
        {
            space.copy_from_slice(bytes);
            self.filled = end;
            return ControlFlow::Continue(());
        }
        self.push_across(bytes)
    }

    fn push_across(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let mut rest = bytes;
        if self.filled > 0 {
            let (head, tail) = rest.split_at((BLOCK_BYTES - self.filled).min(rest.len()));
            let end = self.filled + head.len();
            if let Some(space) = self.open.get_mut(self.filled..end) {
                space.copy_from_slice(head);
            }
            let block = self.open;
            self.filled = 0;
            self.close(&block)?;
            rest = tail;
        }
        let (blocks, tail) = rest.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            self.close(block)?;
        }
        if let Some(space) = self.open.get_mut(..tail.len()) {
            space.copy_from_slice(tail);
        }
        self.filled = tail.len();
        ControlFlow::Continue(())
    }

    fn close(&mut self, block: &[u8; BLOCK_BYTES]) -> ControlFlow<()> {
        if self.hashes.len() >= self.blocks_max {
            return ControlFlow::Break(());
        }
        let mut pair = [0; 16];
        let (parent, content) = pair.split_at_mut(8);
        parent.copy_from_slice(&self.parent.to_le_bytes());
        content.copy_from_slice(&xxh3_64(block).to_le_bytes());
        self.parent = xxh3_64(&pair);
        self.hashes.push(self.parent);
        ControlFlow::Continue(())
    }

    /// The chain of the complete blocks.
    pub fn finish(self) -> Chain {
        Chain(self.hashes.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(root: &Root<'_>, pieces: &[&[u8]]) -> Chain {
        let mut chainer = Chainer::new(root, 1000, 0);
        pieces.iter().try_for_each(|piece| chainer.push(piece)).is_break().then(|| panic!("broke"));
        chainer.finish()
    }

    #[test]
    fn roots_share_nothing() {
        let bytes = [7; 2 * BLOCK_BYTES];
        let base = Root { model: "ab", ..Root::default() };
        let roots = [
            base,
            Root { model: "a", ..base },
            Root { adapter_of: Some(""), ..base },
            Root { salt: Some(""), ..base },
            Root { model: "a", salt: Some("b"), ..base },
            Root { seed: 1, ..base },
        ];
        let mut seen: Vec<u64> = roots.iter().flat_map(|root| chain(root, &[&bytes]).hashes().to_vec()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2 * roots.len());
    }

    #[test]
    fn equal_blocks_at_different_places_have_different_hashes() {
        let chain = chain(&Root::default(), &[&[0; 3 * BLOCK_BYTES]]);
        let [a, b, c] = chain.hashes() else { panic!() };
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn a_chain_stops_at_its_cap() {
        let mut chainer = Chainer::new(&Root::default(), 2, usize::MAX);
        assert!(chainer.push(&[0; 2 * BLOCK_BYTES + 9]).is_continue());
        assert!(chainer.push(&[0; BLOCK_BYTES]).is_break());
        assert_eq!(chainer.finish().len(), 2);
    }

    proptest! {
        #[test]
        fn cuts_between_pieces_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..2000),
                                              cuts in prop::collection::vec(0_usize..2000, 0..9)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
            let whole = chain(&Root::default(), &[&bytes]);
            prop_assert_eq!(chain(&Root::default(), &pieces), whole.clone());
            prop_assert_eq!(whole.len(), bytes.len() / BLOCK_BYTES);
        }
    }
}
