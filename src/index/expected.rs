//! What engines are expected to hold in a moment: a prompt that was sent will be cached, but its engine says so later.
//!
//! An expectation ends when the engine tells of its last block, for from then on only what is told counts; when the
//! request fails; or when its life is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{EndpointId, Moment};

use super::held::HeldIndex;
use super::matches::Matches;
use super::prefix_index::Claim;
use super::{Chain, PrefixIndex, Settings};

/// Expectations at once; further ones are not had.
const OPEN_MAX: usize = 65_536;

/// An endpoint, and our hash of the last block that is expected there.
type Key = (EndpointId, u64);

#[derive(Debug)]
struct Open {
    serial: u64,
    claim: Claim,
    chain: Chain,
    until: Moment,
}

/// All that is expected.
#[derive(Debug)]
pub(super) struct Expected {
    index: PrefixIndex,
    open: Mutex<HashMap<Key, Vec<Open>>>,
    /// Entries of `open`, so that nobody locks it for nothing.
    count: AtomicUsize,
    serials: AtomicU64,
    life: Duration,
}

impl Expected {
    pub(super) fn new(bytes_max: usize, life: Duration) -> Self {
        let settings = Settings { bytes_max, pending_life: life, idle_life: life, ..Settings::default() };
        Self {
            index: PrefixIndex::new(settings),
            open: Mutex::default(),
            count: AtomicUsize::new(0),
            serials: AtomicU64::new(0),
            life,
        }
    }

    /// How much of a chain is expected where.
    pub(super) fn matches(&self, chain: &Chain) -> Matches<'_> {
        self.index.matches(chain)
    }

    /// Expects a chain at an endpoint; `None` if there is nothing to it, or too much is expected.
    pub(super) fn expect(&self, endpoint: EndpointId, chain: Chain, now: Moment) -> Option<(Key, u64)> {
        let key = (endpoint, *chain.hashes().last()?);
        let mut open = self.lock();
        if open.len() >= OPEN_MAX {
            return None;
        }
        let serial = self.serials.fetch_add(1, Relaxed);
        let claim = self.index.pend(endpoint, &chain, now);
        open.entry(key).or_default().push(Open { serial, claim, chain, until: now + self.life });
        self.count.store(open.len(), Relaxed);
        Some((key, serial))
    }

    /// The engine told of a block: who expected it as the last one expects nothing any longer.
    pub(super) fn told(&self, endpoint: EndpointId, hash: u64) {
        if self.count.load(Relaxed) > 0 {
            self.end(&(endpoint, hash), |_| true);
        }
    }

    /// A request failed.
    pub(super) fn withdraw(&self, key: Key, serial: u64) {
        self.end(&key, |open| open.serial == serial);
    }

    fn end(&self, key: &Key, ends: impl Fn(&Open) -> bool) {
        let mut open = self.lock();
        let Some(those) = open.get_mut(key) else { return };
        for one in those.extract_if(.., |one| ends(one)) {
            self.index.withdraw(key.0, &one.chain, one.claim);
        }
        if those.is_empty() {
            open.remove(key);
        }
        self.count.store(open.len(), Relaxed);
    }

    /// An endpoint's cache was emptied, so what is expected there will not come true.
    pub(super) fn clear(&self, endpoint: EndpointId) {
        self.drop_open(|key, _| key.0 == endpoint);
        self.index.clear(endpoint);
    }

    /// An endpoint left.
    pub(super) fn remove(&self, endpoint: EndpointId) {
        self.drop_open(|key, _| key.0 == endpoint);
        self.index.remove(endpoint);
    }

    pub(super) fn upkeep(&self, now: Moment) {
        self.drop_open(|_, open| open.until < now);
        self.index.upkeep(now);
    }

    /// Forgets expectations whose blocks the index drops by itself.
    fn drop_open(&self, goes: impl Fn(&Key, &Open) -> bool) {
        let mut open = self.lock();
        open.retain(|key, those| {
            those.retain(|one| !goes(key, one));
            !those.is_empty()
        });
        self.count.store(open.len(), Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.index.bytes()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The expectation that an engine will hold a request's prompt. Dropped, it is withdrawn: the engine failed, or nobody
/// knows what became of the request.
#[derive(Debug)]
#[must_use = "dropping an expectation withdraws it"]
pub struct Awaited {
    pub(super) index: Arc<HeldIndex>,
    pub(super) key: Key,
    pub(super) serial: u64,
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
            self.index.expected.withdraw(self.key, self.serial);
        }
    }
}
