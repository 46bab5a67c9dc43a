//! The index as others see it.

use std::sync::{OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use crate::domain::{EndpointId, Moment};

use super::account::Account;
use super::blocks::Blocks;
use super::chain::Chain;
use super::ledger::{Ledger, Place, Use};
use super::matches::Matches;
use super::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use super::sync::{Mutex, MutexGuard};

/// Bounds of an index.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Endpoint slots; a slot at or above this holds nothing. At most 65,536.
    pub endpoints_max: usize,
    /// Most bytes held in all. What it takes to stand empty, some 40 bytes a slot and 16 KiB, is always granted.
    pub bytes_max: usize,
    /// Most blocks of an endpoint whose capacity is not known.
    pub endpoint_blocks: usize,
    /// How long a prefix may stay pending.
    pub pending_life: Duration,
    /// How long a prefix is kept without use.
    pub idle_life: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoints_max: 16_384,
            bytes_max: 256 << 20,
            // 1,000,000 tokens.
            endpoint_blocks: 16_384,
            pending_life: Duration::from_mins(1),
            idle_life: Duration::from_hours(1),
        }
    }
}

/// The expectation that a prefix will be there. To be settled by a commit, or by withdrawing it.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim(u64);

/// Numbers about an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes held.
    pub bytes: usize,
    /// Different blocks.
    pub blocks: usize,
    /// Blocks of all endpoints together: one that two endpoints hold counts twice.
    pub held: usize,
    /// Blocks dropped because an endpoint was full, since the start.
    pub evicted_full: u64,
    /// Blocks dropped for want of memory.
    pub evicted_memory: u64,
    /// Blocks dropped because they were pending or unused for too long.
    pub expired: u64,
}

/// How full an endpoint's cache is, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Blocks held.
    pub held: usize,
    /// Blocks that fit.
    pub capacity: usize,
}

/// [`Fill`] to be read without a lock; a capacity of 0 is not known.
#[derive(Debug, Default)]
struct FillCell {
    held: AtomicU32,
    capacity: AtomicU32,
}

/// Which endpoint holds which prefix. All methods may be called from any thread; none waits for anything slow.
#[derive(Debug)]
pub struct PrefixIndex {
    settings: Settings,
    account: Account,
    blocks: Blocks,
    ledgers: Box<[OnceLock<Box<Mutex<Ledger>>>]>,
    /// By slot: generation of the endpoint that it belongs to, or [`CLEARING`].
    generations: Box<[AtomicU32]>,
    /// By slot: when its oldest prefix was used, in microseconds; `u64::MAX` if it holds none.
    oldest: Box<[AtomicU64]>,
    fills: Box<[FillCell]>,
    claims: AtomicU64,
    evicted_full: AtomicU64,
    evicted_memory: AtomicU64,
    expired: AtomicU64,
}

/// Stands for the generation of a slot that is being emptied.
const CLEARING: u32 = u32::MAX;

/// Blocks that are dropped at once for want of memory.
const RELIEF_BLOCKS: usize = 512;

/// How often memory is made before a prefix is left incomplete.
const RELIEFS_MAX: usize = 4;

const LEDGER_BYTES: usize = size_of::<Mutex<Ledger>>();

impl PrefixIndex {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        let slots = settings.endpoints_max.min(usize::from(u16::MAX) + 1);
        let bytes_min = Blocks::bytes_min()
            + slots
                * (size_of::<OnceLock<Box<Mutex<Ledger>>>>()
                    + size_of::<AtomicU32>()
                    + size_of::<AtomicU64>()
                    + size_of::<FillCell>());
        let account = Account::new(settings.bytes_max.max(bytes_min));
        let granted = account.take(bytes_min);
        debug_assert!(granted, "the bound is at least that");
        Self {
            account,
            blocks: Blocks::default(),
            ledgers: (0..slots).map(|_| OnceLock::new()).collect(),
            generations: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            oldest: (0..slots).map(|_| AtomicU64::new(u64::MAX)).collect(),
            fills: (0..slots).map(|_| FillCell::default()).collect(),
            claims: AtomicU64::new(0),
            evicted_full: AtomicU64::new(0),
            evicted_memory: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            settings,
        }
    }

    /// How much of a chain each endpoint holds or is expected to hold.
    pub fn matches(&self, chain: &Chain) -> Matches<'_> {
        Matches::find(self, &self.blocks, chain.hashes())
    }

    /// How many leading blocks of a chain one endpoint holds, pending ones included. What it holds is closed, so the
    /// answer can be halved in on.
    pub fn blocks(&self, id: EndpointId, chain: &Chain) -> u32 {
        if !self.is_current(id) {
            return 0;
        }
        chain.hashes().partition_point(|hash| self.blocks.contains(*hash, id.slot as u16)) as u32
    }

    /// How full an endpoint's cache is, as far as it is known here. Takes no lock.
    pub fn fill(&self, id: EndpointId) -> Fill {
        let cell = self.fills.get(id.slot as usize).filter(|_| self.is_current(id));
        let (held, capacity) = cell.map_or((0, 0), |fill| (fill.held.load(Relaxed), fill.capacity.load(Relaxed)));
        let capacity = if capacity == 0 { self.settings.endpoint_blocks } else { capacity as usize };
        Fill { held: held as usize, capacity }
    }

    /// A prompt was sent: its prefix will be there.
    pub fn pend(&self, id: EndpointId, chain: &Chain, now: Moment) -> Claim {
        for attempt in 1.. {
            let Some(mut ledger) = self.open(id) else { break };
            // Drawn under the lock, so that what exists is never younger than a claim on it.
            let claim = self.claims.fetch_add(1, Relaxed) + 1;
            let whole = self.note(id, &mut ledger, Use { hashes: chain.hashes(), now, claim: Some(claim) });
            if whole || attempt == RELIEFS_MAX {
                return Claim(claim);
            }
            ledger.withdraw(chain.hashes(), claim, self.place(id.slot));
            self.publish(id.slot, &ledger);
            drop(ledger);
            self.relieve();
        }
        Claim(0)
    }

    /// The engine answered: the prefix is there.
    pub fn commit(&self, id: EndpointId, chain: &Chain, now: Moment) {
        for _ in 0..RELIEFS_MAX {
            let Some(mut ledger) = self.open(id) else { return };
            if self.note(id, &mut ledger, Use { hashes: chain.hashes(), now, claim: None }) {
                return;
            }
            drop(ledger);
            self.relieve();
        }
    }

    /// The engine failed: what nobody else expects there is dropped.
    pub fn withdraw(&self, id: EndpointId, chain: &Chain, Claim(claim): Claim) {
        if let Some(mut ledger) = self.open(id) {
            ledger.withdraw(chain.hashes(), claim, self.place(id.slot));
            self.publish(id.slot, &ledger);
        }
    }

    /// Tells how many blocks an endpoint's cache holds.
    pub fn set_capacity(&self, id: EndpointId, blocks: usize) {
        let Some(mut ledger) = self.open(id) else { return };
        if ledger.capacity == Some(blocks) {
            return;
        }
        ledger.capacity = Some(blocks);
        let excess = ledger.held().saturating_sub(blocks);
        let evicted = ledger.evict(excess, self.place(id.slot));
        self.evicted_full.fetch_add(evicted as u64, Relaxed);
        self.publish(id.slot, &ledger);
    }

    /// An endpoint left. Its slot may be given out again at once.
    pub fn remove(&self, id: EndpointId) {
        self.empty(id, id.generation.wrapping_add(1));
    }

    /// An engine started anew, with an empty cache.
    pub fn clear(&self, id: EndpointId) {
        self.empty(id, id.generation);
    }

    /// Drops what was pending or unused for too long. For a cold thread, every second or so.
    pub fn upkeep(&self, now: Moment) {
        let before = |life: Duration| Moment::from_micros(now.as_micros().saturating_sub(life.as_micros() as u64));
        let (pending_since, idle_since) = (before(self.settings.pending_life), before(self.settings.idle_life));
        let since = pending_since.max(idle_since).as_micros();
        for slot in (0..self.ledgers.len() as u32).filter(|slot| self.oldest_at(*slot) < since) {
            let Some(mut ledger) = self.lock(slot) else { continue };
            let place = self.place(slot);
            let dropped = ledger.drop_pending(pending_since, place) + ledger.drop_idle(idle_since, place);
            self.expired.fetch_add(dropped as u64, Relaxed);
            self.publish(slot, &ledger);
        }
    }

    /// Bytes held; never more than the bound.
    pub fn bytes(&self) -> usize {
        self.account.held()
    }

    /// Numbers, for metrics. It looks at everything once.
    pub fn stats(&self) -> Stats {
        let held = |slot| self.lock(slot).map_or(0, |ledger| ledger.held());
        Stats {
            bytes: self.account.held(),
            blocks: self.blocks.len(),
            held: (0..self.ledgers.len() as u32).map(held).sum(),
            evicted_full: self.evicted_full.load(Relaxed),
            evicted_memory: self.evicted_memory.load(Relaxed),
            expired: self.expired.load(Relaxed),
        }
    }

    /// Whether the index speaks of this endpoint, not of a former one in its slot or one that is being emptied.
    pub(super) fn is_current(&self, id: EndpointId) -> bool {
        self.generations.get(id.slot as usize).is_some_and(|cell| cell.load(Relaxed) == id.generation)
    }

    /// Enters a use. False if there was no memory for all of it.
    fn note(&self, id: EndpointId, ledger: &mut Ledger, used: Use<'_>) -> bool {
        let capacity = ledger.capacity.unwrap_or(self.settings.endpoint_blocks);
        let outcome = ledger.note(used, capacity, self.place(id.slot));
        self.evicted_full.fetch_add(outcome.evicted as u64, Relaxed);
        self.publish(id.slot, ledger);
        outcome.whole
    }

    /// Makes memory: drops what nobody used for longest, of whichever endpoint.
    fn relieve(&self) {
        let Some(slot) = (0..self.ledgers.len() as u32).min_by_key(|slot| self.oldest_at(*slot)) else { return };
        let Some(cell) = self.ledgers.get(slot as usize).and_then(OnceLock::get) else { return };
        let mut ledger = match cell.try_lock() {
            Ok(ledger) => ledger,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is changing it, perhaps emptying it.
            Err(TryLockError::WouldBlock) => return,
        };
        let place = self.place(slot);
        let mut dropped = 0;
        while dropped < RELIEF_BLOCKS {
            match ledger.evict_run(place) {
                0 => break,
                blocks => dropped += blocks,
            }
        }
        self.evicted_memory.fetch_add(dropped as u64, Relaxed);
        self.publish(slot, &ledger);
    }

    /// Empties a slot, which then belongs to `generation`. It takes about 50 ns a block; meanwhile the slot counts as
    /// empty and nothing is entered there, so nobody waits.
    fn empty(&self, id: EndpointId, generation: u32) {
        let Some(cell) = self.generations.get(id.slot as usize) else { return };
        let is_ours = |current: u32| (current == CLEARING || current <= id.generation).then_some(CLEARING);
        if cell.fetch_update(Relaxed, Relaxed, is_ours).is_err() {
            return;
        }
        if let Some(mut ledger) = self.lock(id.slot) {
            ledger.clear(self.place(id.slot));
            self.publish(id.slot, &ledger);
        }
        cell.store(generation, Relaxed);
    }

    /// The ledger of an endpoint, made if need be; `None` if the endpoint is a former one, is being emptied or has no
    /// place.
    fn open(&self, id: EndpointId) -> Option<MutexGuard<'_, Ledger>> {
        let cell = self.generations.get(id.slot as usize)?;
        match cell.load(Relaxed) {
            current if current == id.generation => {}
            current if current == CLEARING || current > id.generation => return None,
            // The former endpoint's removal was not told.
            _ => self.empty(id, id.generation),
        }
        let place = self.ledgers.get(id.slot as usize)?;
        if place.get().is_none() && self.account.take(LEDGER_BYTES) {
            let mut made = false;
            place.get_or_init(|| {
                made = true;
                Box::default()
            });
            self.account.give_back(if made { 0 } else { LEDGER_BYTES });
        }
        let ledger = self.lock(id.slot)?;
        self.is_current(id).then_some(ledger)
    }

    /// Lets others read without the lock what a ledger has come to.
    fn publish(&self, slot: u32, ledger: &Ledger) {
        if let Some(cell) = self.oldest.get(slot as usize) {
            cell.store(ledger.oldest_use().map_or(u64::MAX, Moment::as_micros), Relaxed);
        }
        if let Some(fill) = self.fills.get(slot as usize) {
            let capacity = ledger.capacity.map_or(0, |blocks| u32::try_from(blocks).unwrap_or(u32::MAX).max(1));
            fill.held.store(u32::try_from(ledger.held()).unwrap_or(u32::MAX), Relaxed);
            fill.capacity.store(capacity, Relaxed);
        }
    }

    fn oldest_at(&self, slot: u32) -> u64 {
        self.oldest.get(slot as usize).map_or(u64::MAX, |cell| cell.load(Relaxed))
    }

    fn lock(&self, slot: u32) -> Option<MutexGuard<'_, Ledger>> {
        let ledger = self.ledgers.get(slot as usize)?.get()?;
        Some(ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn place(&self, slot: u32) -> Place<'_> {
        Place { blocks: &self.blocks, slot: slot as u16, account: &self.account }
    }
}

#[cfg(test)]
impl PrefixIndex {
    /// Whether an endpoint holds this very block, whatever is before it.
    pub(super) fn holds(&self, id: EndpointId, hash: u64) -> bool {
        let mut holds = false;
        self.blocks.for_each_word(hash, |word, bits| {
            holds |= super::endpoint_set::slots_of(word, bits).any(|slot| slot == id.slot as usize);
        });
        holds
    }

    /// Blocks that an endpoint holds.
    pub(super) fn held(&self, id: EndpointId) -> usize {
        self.lock(id.slot).map_or(0, |ledger| ledger.held())
    }
}
