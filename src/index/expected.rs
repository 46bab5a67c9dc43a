//! What engines are expected to hold in a moment: a prompt that was sent will be cached, but its engine says so later.
//!
//! An expectation ends when the engine tells of its last block, for from then on only what is told counts; when the
//! request fails; or when its life is over. Then it is taken out of the list first, so that whoever does that, and
//! nobody else, withdraws it from the index. No lock of the list is held while a chain is walked.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::domain::{EndpointId, Moment};

use super::account::Account;
use super::held::HeldIndex;
use super::matches::Matches;
use super::prefix_index::Claim;
use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use super::sync::{Mutex, MutexGuard};
use super::{Chain, PrefixIndex, Settings};

/// Parts of the list, by slot.
const SHARDS: usize = 64;

/// What an expectation takes beside its chain: nodes of a tree are at least half full, and have others above them.
const OPEN_BYTES: usize = 3 * size_of::<(Key, Open)>();

/// An endpoint, our hash of the last block that is expected there, and a number that no other expectation has.
type Key = (EndpointId, u64, u64);

#[derive(Debug)]
struct Open {
    claim: Claim,
    chain: Arc<Kept>,
    until: Moment,
}

/// A chain in the account for as long as anyone has it: equal prompts at one endpoint share one.
#[derive(Debug)]
struct Kept {
    chain: Chain,
    account: Arc<Account>,
}

impl Kept {
    /// `None` if there is no room for it.
    fn new(chain: &Chain, account: &Arc<Account>) -> Option<Arc<Self>> {
        let kept = || Arc::new(Self { chain: chain.clone(), account: Arc::clone(account) });
        account.take(Self::bytes(chain)).then(kept)
    }

    /// Of the hashes, and of two shared allocations.
    fn bytes(chain: &Chain) -> usize {
        size_of_val(chain.hashes()) + size_of::<Self>() + 4 * size_of::<usize>()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.account.give_back(Self::bytes(&self.chain));
    }
}

/// The expectations at some endpoints, in a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    open: Mutex<BTreeMap<Key, Open>>,
    /// How many they are, so that nobody locks them for nothing.
    count: AtomicUsize,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that is expected.
#[derive(Debug)]
pub(super) struct Expected {
    index: PrefixIndex,
    shards: Box<[Shard]>,
    /// Memory of what is in `shards`.
    account: Arc<Account>,
    serials: AtomicU64,
    refused: AtomicU64,
    life: Duration,
}

impl Expected {
    /// Half of `bytes_max` is for the blocks, half for the list. `endpoints_max` as in [`Settings`].
    pub(super) fn new(bytes_max: usize, endpoints_max: usize, life: Duration) -> Self {
        let blocks_max = bytes_max / 2;
        let settings = Settings {
            bytes_max: blocks_max,
            endpoints_max,
            pending_life: life,
            idle_life: life,
            ..Settings::default()
        };
        let index = PrefixIndex::new(settings);
        // Standing empty, the index may take more than its half.
        let left = bytes_max.saturating_sub(index.bytes().max(blocks_max));
        Self {
            index,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            account: Arc::new(Account::new(left)),
            serials: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            life,
        }
    }

    /// How much of a chain is expected where.
    pub(super) fn matches(&self, chain: &Chain) -> Matches<'_> {
        self.index.matches(chain)
    }

    /// Expects a chain at an endpoint; `None` if there is nothing to it, or too much is expected.
    pub(super) fn expect(&self, endpoint: EndpointId, chain: &Chain, now: Moment) -> Option<Key> {
        let key = (endpoint, *chain.hashes().last()?, self.serials.fetch_add(1, Relaxed));
        let Some(chain) = self.keep(key, chain) else {
            self.refused.fetch_add(1, Relaxed);
            return None;
        };
        let claim = self.index.pend(endpoint, &chain.chain, now);
        let shard = self.shard(endpoint);
        let mut open = shard.lock();
        open.insert(key, Open { claim, chain, until: now + self.life });
        shard.count.store(open.len(), Relaxed);
        Some(key)
    }

    /// Takes memory for one more: for its chain too, unless an equal one is there.
    fn keep(&self, key: Key, chain: &Chain) -> Option<Arc<Kept>> {
        if !self.account.take(OPEN_BYTES) {
            return None;
        }
        let equal =
            self.shard(key.0).lock().range(equals(key.0, key.1)).next().map(|(_, open)| Arc::clone(&open.chain));
        let kept = equal.filter(|kept| kept.chain == *chain).or_else(|| Kept::new(chain, &self.account));
        if kept.is_none() {
            self.account.give_back(OPEN_BYTES);
        }
        kept
    }

    /// The engine told of a block: who expected it as the last one expects nothing any longer.
    pub(super) fn told(&self, endpoint: EndpointId, hash: u64) {
        self.end(self.shard(endpoint), equals(endpoint, hash), |_| true);
    }

    /// A request failed.
    pub(super) fn withdraw(&self, key: Key) {
        self.end(self.shard(key.0), key..=key, |_| true);
    }

    /// An endpoint's cache was emptied, so what is expected there will not come true.
    pub(super) fn clear(&self, endpoint: EndpointId) {
        drop(self.take_out(self.shard(endpoint), all_at(endpoint), |_| true));
        self.index.clear(endpoint);
    }

    /// An endpoint left.
    pub(super) fn remove(&self, endpoint: EndpointId) {
        drop(self.take_out(self.shard(endpoint), all_at(endpoint), |_| true));
        self.index.remove(endpoint);
    }

    pub(super) fn upkeep(&self, now: Moment) {
        // Where others expect the same beginning, the index drops nothing by itself.
        for shard in &self.shards {
            self.end(shard, all(), |open| open.until < now);
        }
        self.index.upkeep(now);
    }

    fn end(&self, shard: &Shard, keys: RangeInclusive<Key>, ends: impl Fn(&Open) -> bool) {
        for ((endpoint, ..), open) in self.take_out(shard, keys, ends) {
            self.index.withdraw(endpoint, &open.chain.chain, open.claim);
        }
    }

    /// Forgets expectations; what the index holds of them is the caller's to drop.
    fn take_out(&self, shard: &Shard, keys: RangeInclusive<Key>, goes: impl Fn(&Open) -> bool) -> Vec<(Key, Open)> {
        if shard.count.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut open = shard.lock();
        let taken: Vec<_> = open.extract_if(keys, |_, open| goes(open)).collect();
        shard.count.store(open.len(), Relaxed);
        drop(open);
        self.account.give_back(taken.len() * OPEN_BYTES);
        taken
    }

    /// Memory of all of it, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.account.held()
    }

    /// Expectations that were not had for want of memory, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "below the length")]
    fn shard(&self, endpoint: EndpointId) -> &Shard {
        &self.shards[endpoint.slot as usize % SHARDS]
    }
}

/// Keys of equal prompts at one endpoint.
fn equals(endpoint: EndpointId, last: u64) -> RangeInclusive<Key> {
    (endpoint, last, 0)..=(endpoint, last, u64::MAX)
}

fn all_at(endpoint: EndpointId) -> RangeInclusive<Key> {
    (endpoint, 0, 0)..=(endpoint, u64::MAX, u64::MAX)
}

fn all() -> RangeInclusive<Key> {
    let end = |all| EndpointId { slot: all, generation: all };
    (end(0), 0, 0)..=(end(u32::MAX), u64::MAX, u64::MAX)
}

/// The expectation that an engine will hold a request's prompt. Dropped, it is withdrawn: the engine failed, or nobody
/// knows what became of the request.
#[derive(Debug)]
#[must_use = "dropping an expectation withdraws it"]
pub struct Awaited {
    pub(super) index: Arc<HeldIndex>,
    pub(super) key: Key,
    pub(super) stays: bool,
}

impl Awaited {
    /// An engine answered. If it is the one, the expectation stays until that engine tells of it.
    pub fn answered(mut self, served: EndpointId) {
        self.stays = served == self.key.0;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.stays {
            self.index.expected.withdraw(self.key);
        }
    }
}

#[cfg(test)]
impl Expected {
    /// Expectations, blocks that are expected, and bytes of the list.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let open = self.shards.iter().map(|shard| shard.lock().len()).sum();
        (open, self.index.stats().held, self.account.held())
    }
}
