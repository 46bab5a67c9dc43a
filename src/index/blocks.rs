//! Who holds each block. Sharded by hash; a shard is locked for the time of one lookup, or of a change to a few blocks.

use std::hint::black_box;
use std::sync::PoisonError;

use smallvec::SmallVec;

use super::account::Account;
use super::endpoint_set::EndpointSet;
use super::sync::{RwLock, RwLockWriteGuard};
use super::table::Table;

const SHARDS: usize = 256;

/// Blocks of a chain that are changed at once.
const TOGETHER: usize = 32;

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
    #[expect(clippy::indexing_slicing, reason = "below the length")]
    fn shard(&self, hash: u64) -> &RwLock<Table<EndpointSet>> {
        &self.shards[shard_of(hash)].0
    }

    /// Locks the shards of a few blocks.
    fn lock(&self, hashes: &[u64]) -> Locked<'_> {
        let mut shards: SmallVec<[usize; TOGETHER]> = hashes.iter().map(|hash| shard_of(*hash)).collect();
        // In one order, so that no two threads wait for each other.
        shards.sort_unstable();
        shards.dedup();
        let mut locked = Locked { tables: SmallVec::new(), places: [0; SHARDS] };
        for (place, number) in (0..).zip(shards) {
            if let (Some(shard), Some(known)) = (self.shards.get(number), locked.places.get_mut(number)) {
                *known = place;
                locked.tables.push(shard.0.write().unwrap_or_else(PoisonError::into_inner));
            }
        }
        locked.touch(hashes);
        locked
    }

    /// Adds a holder of blocks that follow each other, the first one first. Returns to how many: fewer than all if there
    /// is no memory.
    pub(super) fn add(&self, hashes: &[u64], slot: u16, account: &Account) -> usize {
        let mut added = 0;
        for few in hashes.chunks(TOGETHER) {
            let mut locked = self.lock(few);
            for hash in few {
                let more = |set: &mut EndpointSet| set.insert(slot, account);
                let room =
                    |table: &mut Table<_>| table.change_or_insert(*hash, account, more, || EndpointSet::of(slot));
                if !locked.table(*hash).is_some_and(room) {
                    return added;
                }
                added += 1;
            }
        }
        added
    }

    /// Removes a holder of blocks that follow each other, the last one first; each goes with its last holder.
    pub(super) fn remove(&self, hashes: &[u64], slot: u16, account: &Account) {
        for few in hashes.rchunks(TOGETHER) {
            let mut locked = self.lock(few);
            for hash in few.iter().rev() {
                let Some(table) = locked.table(*hash) else { continue };
                match table.get_mut(*hash) {
                    Some(set) if set.is_only(slot) => {
                        table.remove(*hash);
                    }
                    Some(set) => {
                        set.remove(slot, account);
                    }
                    None => {}
                }
            }
        }
    }

    /// How many hold a block.
    pub(super) fn holders(&self, hash: u64) -> usize {
        let table = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        table.get(hash).map_or(0, EndpointSet::len)
    }

    /// Whether a slot holds a block.
    pub(super) fn contains(&self, hash: u64, slot: u16) -> bool {
        let table = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        table.get(hash).is_some_and(|set| set.contains(slot))
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

/// The shards of a few blocks, locked.
struct Locked<'a> {
    tables: SmallVec<[RwLockWriteGuard<'a, Table<EndpointSet>>; TOGETHER]>,
    /// By shard: where it is in `tables`.
    places: [u8; SHARDS],
}

impl Locked<'_> {
    fn table(&mut self, hash: u64) -> Option<&mut Table<EndpointSet>> {
        let place = *self.places.get(shard_of(hash))?;
        self.tables.get_mut(usize::from(place)).map(|table| &mut **table)
    }

    /// Has the processor wait for the memory of all these blocks at once: what changes them waits for one after the other.
    fn touch(&mut self, hashes: &[u64]) {
        if hashes.len() > 1 {
            let known = |hash: &&u64| self.table(**hash).is_some_and(|table| table.get(**hash).is_some());
            black_box(hashes.iter().filter(known).count());
        }
    }
}

/// The tables use the ends of a hash; the shard comes from its middle.
fn shard_of(hash: u64) -> usize {
    (hash >> 36) as usize % SHARDS
}
