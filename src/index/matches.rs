//! How much of a chain each endpoint holds.

use smallvec::SmallVec;

use crate::domain::EndpointId;

use super::PrefixIndex;
use super::blocks::Blocks;
use super::endpoint_set::slots_of;

/// How much of one chain each endpoint holds. It stays as it was found, except that an endpoint that was removed or
/// cleared since holds nothing.
#[derive(Debug)]
pub struct Matches<'i> {
    index: &'i PrefixIndex,
    /// By slot; slots beyond the end hold nothing.
    blocks: Vec<u32>,
    most: u32,
}

impl Matches<'_> {
    /// How many leading blocks of the chain an endpoint holds, pending ones included.
    pub fn blocks(&self, id: EndpointId) -> u32 {
        let blocks = self.blocks.get(id.slot as usize).copied().unwrap_or(0);
        if blocks > 0 && self.index.is_current(id) { blocks } else { 0 }
    }

    /// The most that any endpoint holds.
    pub fn most(&self) -> u32 {
        self.most
    }
}

impl<'i> Matches<'i> {
    /// Looks a chain up.
    pub(super) fn find(index: &'i PrefixIndex, blocks: &Blocks, hashes: &[u64]) -> Self {
        let (blocks, most) = depths(blocks, hashes);
        Self { index, blocks, most }
    }
}

/// By slot how many leading blocks of a chain are held there, and the most of that.
pub(super) fn depths(blocks: &Blocks, hashes: &[u64]) -> (Vec<u32>, u32) {
    let (mut found, mut most) = (Vec::new(), 0);
    let mut seen: SmallVec<[u64; 16]> = SmallVec::new();
    // Who holds more blocks is among those who hold fewer, so going from many to few meets each at its depth.
    for at in steps(blocks, hashes) {
        let Some(hash) = hashes.get(at) else { continue };
        let depth = at as u32 + 1;
        most = most.max(depth);
        blocks.for_each_word(*hash, |word, bits| {
            if seen.len() <= word {
                seen.resize(word + 1, 0);
                found.resize((word + 1) * 64, 0);
            }
            let Some(known) = seen.get_mut(word) else { return };
            for slot in slots_of(word, bits & !*known) {
                if let Some(cell) = found.get_mut(slot) {
                    *cell = depth;
                }
            }
            *known |= bits;
        });
    }
    (found, most)
}

/// The blocks behind which fewer endpoints go on, the last first.
///
/// The sets of holders are nested, so where two blocks have as many holders, all between them have the same ones.
fn steps(blocks: &Blocks, hashes: &[u64]) -> SmallVec<[usize; 32]> {
    let mut found = SmallVec::new();
    let holders_at = |at: usize| hashes.get(at).map_or(0, |hash| blocks.holders(*hash));
    // Stretches still to look at: the ends, and the number of holders there. Behind the chain nobody goes on.
    let mut stretches: SmallVec<[_; 32]> = SmallVec::new();
    stretches.push(((0, holders_at(0)), (hashes.len(), 0)));
    while let Some((left, right)) = stretches.pop() {
        if left.1 <= right.1 {
            continue;
        }
        if left.0 + 1 == right.0 {
            found.push(left.0);
            continue;
        }
        let middle = usize::midpoint(left.0, right.0);
        // Others may be changing the index: what is no longer nested is made so.
        let middle = (middle, holders_at(middle).clamp(right.1, left.1));
        stretches.push((left, middle));
        stretches.push((middle, right));
    }
    found
}
