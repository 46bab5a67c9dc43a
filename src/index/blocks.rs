//! Who holds each block. Sharded by hash; a shard is locked for the time of one lookup.

use std::sync::{PoisonError, RwLock};

use super::account::Account;
use super::endpoint_set::EndpointSet;
use super::table::Table;

const SHARDS: usize = 256;

/// A cache line of its own, so that locking one shard does not slow its neighbours.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<Table<EndpointSet>>);

/// From block hash to the endpoints that hold it.
#[derive(Debug)]
pub(super) struct Blocks {
    shards: Box<[Shard]>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Blocks {
    /// The tables use the ends of a hash; the shard comes from its middle.
    #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
    fn shard(&self, hash: u64) -> &RwLock<Table<EndpointSet>> {
        &self.shards[(hash >> 36) as usize % SHARDS].0
    }

    /// Adds a holder. False if there is no memory for it.
    pub(super) fn add(&self, hash: u64, slot: u16, account: &Account) -> bool {
        let mut table = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        // A set takes its first endpoints without memory, so none stays empty.
        table.get_or_default(hash, account).is_some_and(|set| set.insert(slot, account))
    }

    /// Removes a holder, and the block with its last one.
    pub(super) fn remove(&self, hash: u64, slot: u16, account: &Account) {
        let mut table = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = table.get_mut(hash) else { return };
        if set.remove(slot, account) && set.len() == 0 {
            table.remove(hash);
        }
    }

    /// How many hold a block.
    pub(super) fn holders(&self, hash: u64) -> usize {
        let table = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        table.get(hash).map_or(0, EndpointSet::len)
    }

    /// Whether a slot holds a block.
    pub(super) fn is_held_by(&self, hash: u64, slot: usize) -> bool {
        let mut holds = false;
        self.for_each_word(hash, |word, bits| holds |= word == slot / 64 && bits & (1 << (slot % 64)) != 0);
        holds
    }

    /// Calls `each` with the holders of a block, 64 slots at a time.
    pub(super) fn for_each_word(&self, hash: u64, each: impl FnMut(usize, u64)) {
        let table = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = table.get(hash) {
            set.for_each_word(each);
        }
    }

    /// Number of different blocks.
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Shard| shard.0.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }

    /// Bytes of an empty one.
    pub(super) const fn bytes_min() -> usize {
        SHARDS * size_of::<Shard>()
    }
}
