//! The KV cache: blocks that are shared by prefix and forgotten by age, and tokens that belong to one sequence.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Names the blocks of one sequence, prompt and answer. Two sequences with the same id at the same place share
/// everything up to and including that block.
#[derive(Debug, Clone)]
pub struct Blocks {
    shared: Arc<[u64]>,
    own: u64,
}

impl Blocks {
    /// Blocks that begin with `shared` and go on with ids of their own, counted from `own`.
    pub fn new(shared: Arc<[u64]>, own: u64) -> Self {
        Self { shared, own }
    }

    /// From where the ids of its own are counted: what tells it from others.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// The id of the block at a position.
    pub fn id(&self, at: usize) -> u64 {
        self.shared.get(at).copied().unwrap_or_else(|| self.own.wrapping_add(at as u64))
    }
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    id: u64,
    /// Sequences that hold it. Without any it is in the list of those that may be forgotten.
    held_by: u32,
    older: u32,
    newer: u32,
}

/// The cache of one engine. Everything is counted in tokens; a block is `block_tokens` of them.
#[derive(Debug)]
pub struct KvCache {
    capacity: u64,
    block_tokens: u64,
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    by_id: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    oldest: u32,
    newest: u32,
    idle: u64,
    /// Tokens that belong to one sequence: parts of blocks, answers, and what a prompt will still need.
    private: u64,
}

impl KvCache {
    /// An empty cache.
    pub fn new(capacity: u64, block_tokens: u64) -> Self {
        Self {
            capacity,
            block_tokens,
            entries: Vec::new(),
            vacant: Vec::new(),
            by_id: HashMap::default(),
            oldest: NONE,
            newest: NONE,
            idle: 0,
            private: 0,
        }
    }

    /// Tokens that a block holds.
    pub fn block_tokens(&self) -> u64 {
        self.block_tokens
    }

    /// Tokens that can still be taken, from what is free and what may be forgotten.
    pub fn available(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    /// Tokens held by sequences.
    pub fn used(&self) -> u64 {
        self.private + (self.by_id.len() as u64 - self.idle) * self.block_tokens
    }

    /// Tokens held by sequences and by blocks that are kept in case they are asked for again.
    pub fn kept(&self) -> u64 {
        self.private + self.by_id.len() as u64 * self.block_tokens
    }

    /// How many of the first `most` blocks are here, and how many of those nobody holds.
    pub fn peek(&self, blocks: &Blocks, most: u64) -> (u64, u64) {
        let mut idle = 0;
        for at in 0..most {
            match self.by_id.get(&blocks.id(at as usize)) {
                None => return (at, idle),
                Some(slot) => idle += u64::from(self.entry(*slot).held_by == 0),
            }
        }
        (most, idle)
    }

    /// Takes hold of the first `count` blocks, all of which must be here.
    pub fn hold(&mut self, blocks: &Blocks, count: u64, held: &mut Vec<u32>) {
        for at in 0..count {
            if let Some(slot) = self.by_id.get(&blocks.id(at as usize)).copied() {
                self.take(slot);
                held.push(slot);
            }
        }
    }

    /// Sets `tokens` aside for one sequence. The caller saw that they are available.
    pub fn reserve(&mut self, tokens: u64) {
        debug_assert!(tokens <= self.available(), "{tokens} tokens taken of {}", self.available());
        self.private += tokens;
        self.make_room();
    }

    /// Gives `tokens` of one sequence back.
    pub fn release(&mut self, tokens: u64) {
        debug_assert!(tokens <= self.private, "{tokens} tokens given back of {}", self.private);
        self.private = self.private.saturating_sub(tokens);
    }

    /// Turns a block's worth of a sequence's own tokens into the block `id`, which others can find from now on.
    pub fn share(&mut self, id: u64, held: &mut Vec<u32>) {
        self.release(self.block_tokens);
        let slot = match self.by_id.get(&id).copied() {
            Some(slot) => {
                self.take(slot);
                slot
            }
            None => self.insert(id),
        };
        held.push(slot);
    }

    /// Lets go of blocks. The last of them is forgotten first, as a prefix is worth more than what follows it.
    pub fn let_go(&mut self, held: &mut Vec<u32>) {
        while let Some(slot) = held.pop() {
            let entry = self.entry_mut(slot);
            entry.held_by -= 1;
            if entry.held_by == 0 {
                self.append(slot);
            }
        }
    }

    fn insert(&mut self, id: u64) -> u32 {
        let entry = Entry { id, held_by: 1, older: NONE, newer: NONE };
        let slot = if let Some(slot) = self.vacant.pop() {
            *self.entry_mut(slot) = entry;
            slot
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.by_id.insert(id, slot);
        slot
    }

    fn take(&mut self, slot: u32) {
        let entry = self.entry_mut(slot);
        entry.held_by += 1;
        if entry.held_by == 1 {
            self.unlink(slot);
        }
    }

    /// Forgets the oldest idle blocks until everything fits.
    fn make_room(&mut self) {
        while self.kept() > self.capacity && self.oldest != NONE {
            let slot = self.oldest;
            self.unlink(slot);
            let id = self.entry(slot).id;
            self.by_id.remove(&id);
            self.vacant.push(slot);
        }
    }

    fn append(&mut self, slot: u32) {
        let newest = self.newest;
        let entry = self.entry_mut(slot);
        (entry.older, entry.newer) = (newest, NONE);
        if newest == NONE {
            self.oldest = slot;
        } else {
            self.entry_mut(newest).newer = slot;
        }
        self.newest = slot;
        self.idle += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { older, newer, .. } = *self.entry(slot);
        if older == NONE {
            self.oldest = newer;
        } else {
            self.entry_mut(older).newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.entry_mut(newer).older = older;
        }
        self.idle -= 1;
    }

    #[expect(clippy::indexing_slicing, reason = "slots are positions that this very vector gave out; it never shrinks")]
    fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "slots are positions that this very vector gave out; it never shrinks")]
    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
}

/// A hasher for ids that are well spread or plainly counted: one multiplication. Nobody hostile chooses them.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(shared: &[u64], own: u64) -> Blocks {
        Blocks::new(shared.into(), own)
    }

    /// A sequence of `count` blocks comes and goes.
    fn pass(cache: &mut KvCache, blocks: &Blocks, count: u64) {
        let mut held = Vec::new();
        cache.reserve(count * 16);
        for at in 0..count {
            cache.share(blocks.id(at as usize), &mut held);
        }
        cache.let_go(&mut held);
    }

    #[test]
    fn what_was_computed_is_found_again_up_to_where_it_differs() {
        let mut cache = KvCache::new(160, 16);
        pass(&mut cache, &blocks(&[1, 2], 100), 3);
        assert_eq!(cache.peek(&blocks(&[1, 2], 100), 3), (3, 3));
        assert_eq!(cache.peek(&blocks(&[1, 2], 200), 3), (2, 2));
        assert_eq!((cache.used(), cache.kept(), cache.available()), (0, 48, 160));
    }

    #[test]
    fn the_oldest_go_first_and_of_a_sequence_its_end() {
        let mut cache = KvCache::new(64, 16);
        pass(&mut cache, &blocks(&[], 100), 2);
        pass(&mut cache, &blocks(&[], 200), 2);
        cache.reserve(16);
        assert_eq!(cache.peek(&blocks(&[], 100), 2).0, 1);
        assert_eq!(cache.peek(&blocks(&[], 200), 2).0, 2);
        cache.release(16);
    }

    #[test]
    fn what_is_held_is_not_forgotten() {
        let mut cache = KvCache::new(64, 16);
        let mut held = Vec::new();
        pass(&mut cache, &blocks(&[], 100), 2);
        cache.hold(&blocks(&[], 100), 2, &mut held);
        pass(&mut cache, &blocks(&[], 200), 2);
        cache.reserve(32);
        assert_eq!((cache.available(), cache.peek(&blocks(&[], 100), 2).0), (0, 2));
        cache.let_go(&mut held);
        assert_eq!(cache.available(), 32);
    }

    #[test]
    fn two_that_compute_the_same_keep_it_once() {
        let mut cache = KvCache::new(64, 16);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        cache.reserve(32);
        cache.share(1, &mut a);
        cache.share(1, &mut b);
        assert_eq!(cache.used(), 16);
        cache.let_go(&mut a);
        assert_eq!(cache.used(), 16);
        cache.let_go(&mut b);
        assert_eq!((cache.used(), cache.kept()), (0, 16));
    }
}
