//! Prompts as strategies see them: block ids as a chain of hashes.

use crate::index::{BLOCK_BYTES, Chain};

use super::engine::Blocks;

/// Tokens in a block of the index, at four bytes each.
const INDEX_TOKENS: u64 = BLOCK_BYTES as u64 / 4;

/// The chain of a prompt of so many tokens, whose blocks of `block_tokens` each are `blocks`.
///
/// An id of [`Blocks`] stands for everything up to and including its block, as a hash of the index does. So the id of
/// the block in which a block of the index ends says what it is, with its place where several end in the same.
pub(super) fn chain(blocks: &Blocks, block_tokens: u64, prompt_tokens: u64) -> Chain {
    let hash = |at: u64| {
        let last_token = (at + 1) * INDEX_TOKENS - 1;
        mixed(blocks.id((last_token / block_tokens) as usize), at)
    };
    Chain::of_hashes(&(0..prompt_tokens / INDEX_TOKENS).map(hash).collect::<Vec<_>>())
}

/// Spreads ids, which are counted, over all 64 bits (`MurmurHash3`'s finaliser).
fn mixed(id: u64, at: u64) -> u64 {
    let mut hash = id ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(a: &Chain, b: &Chain) -> usize {
        a.hashes().iter().zip(b.hashes()).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn prompts_share_what_their_blocks_share_whatever_the_size_of_a_block() {
        for block in [16, 64, 128, 512] {
            let shared: Vec<u64> = (0..2048 / block).collect();
            let one = chain(&Blocks::new(shared.clone().into(), 1 << 40), block, 4000);
            let two = chain(&Blocks::new(shared.into(), 2 << 40), block, 5000);
            assert_eq!((one.len(), two.len()), (62, 78));
            assert_eq!(common(&one, &two), 2048 / 64, "blocks of {block}");
        }
    }

    #[test]
    fn a_later_turn_begins_with_the_earlier_one() {
        let blocks = Blocks::new([7, 8].into(), 1 << 40);
        let (first, second) = (chain(&blocks, 128, 1000), chain(&blocks, 128, 3000));
        assert_eq!(common(&first, &second), first.len());
        let mut all = second.hashes().to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), second.len());
    }
}
