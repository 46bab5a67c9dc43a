//! What engines hold by their own account, for all to look up.
//!
//! Each cache of an engine, one for each data-parallel rank, is a row. Beside what is told there is what is expected: a
//! prompt that was just sent somewhere will be there, but the engine tells so only later. That has a short life.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use crate::domain::{EndpointId, Moment};

use super::account::Account;
use super::blocks::Blocks;
use super::expected::{Awaited, Expected};
use super::matches::depths;
use super::row::{Row, Tier};
use super::sync::RwLock;
use super::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use super::tokens::TokenPrompt;
use super::{Chain, Settings};

/// Number of a row; reused once its row was dropped.
pub(super) type RowNumber = u16;

/// Blocks of a prompt that are looked at.
const BLOCKS_MAX: usize = 16_384;
/// Different block sizes in one fleet that are looked up.
const SIZES_MAX: usize = 4;

/// One cache, as those who look see it.
#[derive(Debug, Clone, Copy)]
struct RowInfo {
    endpoint: EndpointId,
    block_tokens: u32,
    complete: bool,
}

/// What all engines hold that tell.
#[derive(Debug)]
pub struct HeldIndex {
    pub(super) account: Account,
    /// Blocks that were not entered for want of memory.
    pub(super) refused: AtomicU64,
    blocks: Blocks,
    rows: RwLock<Vec<Option<RowInfo>>>,
    tiers: [AtomicI64; Tier::ALL.len()],
    pub(super) expected: Expected,
}

impl HeldIndex {
    /// An empty one that never holds more than `bytes_max`, or what it takes to stand empty. What is only expected is
    /// dropped after `expected_life`.
    pub fn new(bytes_max: usize, expected_life: Duration) -> Arc<Self> {
        Self::with_endpoints(Settings::default().endpoints_max, bytes_max, expected_life)
    }

    /// The same for fewer endpoints than there may be.
    pub(super) fn with_endpoints(endpoints_max: usize, bytes_max: usize, expected_life: Duration) -> Arc<Self> {
        // Expectations are short-lived, so a small part does for them.
        let expected = Expected::new(bytes_max / 8, endpoints_max, expected_life);
        let account = Account::new((bytes_max - bytes_max / 8).max(Blocks::bytes_min()));
        let granted = account.take(Blocks::bytes_min());
        debug_assert!(granted, "the bound is at least that");
        Arc::new(Self {
            account,
            refused: AtomicU64::new(0),
            blocks: Blocks::default(),
            rows: RwLock::default(),
            tiers: Default::default(),
            expected,
        })
    }

    /// A row for one cache of an endpoint; `None` if there are too many.
    pub fn open(self: &Arc<Self>, endpoint: EndpointId) -> Option<Row> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let info = Some(RowInfo { endpoint, block_tokens: 0, complete: false });
        let number = rows.iter().position(Option::is_none).unwrap_or(rows.len());
        let short = RowNumber::try_from(number).ok()?;
        match rows.get_mut(number) {
            Some(place) => *place = info,
            None => rows.push(info),
        }
        drop(rows);
        Some(Row::new(Arc::clone(self), short, endpoint))
    }

    /// How many tokens of a prompt each endpoint has cached, or is expected to have in a moment.
    pub fn look_up(&self, prompt: &TokenPrompt<'_>) -> Held {
        let mut held = Held { by_slot: Vec::new(), chains: self.chains(prompt) };
        let chains = held.chains.clone();
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let open = || rows.iter().enumerate().filter_map(|(at, row)| Some((at, (*row)?)));
        for (_, row) in open().filter(|(_, row)| row.block_tokens == 0) {
            // It has told of no block yet, so it has none.
            held.add(row.endpoint, 0, row.complete);
        }
        // An engine computes the last token anew in any case.
        let useful = u32::try_from(prompt.tokens.len().saturating_sub(1)).unwrap_or(u32::MAX);
        for (size, chain) in chains {
            let told = depths(&self.blocks, chain.hashes()).0;
            let expected = self.expected.matches(&chain);
            for (at, row) in open().filter(|(_, row)| row.block_tokens == size) {
                let blocks = told.get(at).copied().unwrap_or(0).max(expected.blocks(row.endpoint));
                held.add(row.endpoint, blocks.min(useful / size).saturating_mul(size), row.complete);
            }
        }
        held
    }

    /// The prompt in the blocks of each size that engines have. Nothing is locked while it is hashed.
    fn chains(&self, prompt: &TokenPrompt<'_>) -> SmallVec<[(u32, Chain); 1]> {
        let mut sizes: SmallVec<[u32; SIZES_MAX]> = SmallVec::new();
        for row in self.rows.read().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
            if row.block_tokens > 0 && !sizes.contains(&row.block_tokens) && sizes.len() < SIZES_MAX {
                sizes.push(row.block_tokens);
            }
        }
        sizes.into_iter().map(|size| (size, prompt.chain(size, BLOCKS_MAX))).collect()
    }

    /// A prompt that was looked up was sent to an endpoint: what its engine does not hold yet is expected there. `None`
    /// if there is nothing to expect, too much is expected already, or the endpoint tells nothing.
    pub fn expect(self: &Arc<Self>, endpoint: EndpointId, prompt: &Held, now: Moment) -> Option<Awaited> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let open = rows.iter().enumerate().filter_map(|(at, row)| Some((at, (*row)?)));
        let told = |(_, row): &(usize, RowInfo)| row.endpoint == endpoint && row.block_tokens > 0;
        let own: SmallVec<[(usize, RowInfo); 2]> = open.filter(told).collect();
        drop(rows);
        let size = own.first()?.1.block_tokens;
        let (_, chain) = prompt.chains.iter().find(|(known, _)| *known == size)?;
        let last = *chain.hashes().last()?;
        let is_told = || own.iter().any(|(at, _)| self.blocks.contains(last, *at as u16));
        // What is held already nobody will tell of again.
        if is_told() {
            return None;
        }
        let key = self.expected.expect(endpoint, chain, now)?;
        let awaited = Awaited { index: Arc::clone(self), key, stays: false };
        // It may have been told before there was an expectation to end. Blocks are entered before expectations are
        // ended, so if it is not there now, its coming will end this one.
        (!is_told()).then_some(awaited)
    }

    /// Drops expectations that were not confirmed. For a cold thread, every second or so.
    pub fn upkeep(&self, now: Moment) {
        self.expected.upkeep(now);
    }

    /// An endpoint left.
    pub fn forget(&self, endpoint: EndpointId) {
        self.expected.remove(endpoint);
    }

    /// Bytes held; never more than the bound.
    pub fn bytes(&self) -> usize {
        self.account.held() + self.expected.bytes()
    }

    /// Different blocks that engines can find.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks on a tier, over all caches.
    pub fn on_tier(&self, tier: Tier) -> i64 {
        self.tiers.get(tier as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Blocks that were told but not entered for want of memory, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Expectations that were not had for want of memory, since the start.
    pub fn expectations_refused(&self) -> u64 {
        self.expected.refused()
    }

    /// Caches of which all is known that they hold.
    pub fn complete_rows(&self) -> usize {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().filter(|row| row.complete).count()
    }

    pub(super) fn enter(&self, row: RowNumber, endpoint: EndpointId, hash: u64) -> bool {
        let room = self.blocks.add(&[hash], row, &self.account) == 1;
        self.expected.told(endpoint, hash);
        room
    }

    pub(super) fn leave(&self, row: RowNumber, hash: u64) {
        self.blocks.remove(&[hash], row, &self.account);
    }

    pub(super) fn count_tier(&self, tier: Tier, by: i64) {
        if let Some(count) = self.tiers.get(tier as usize) {
            count.fetch_add(by, Relaxed);
        }
    }

    pub(super) fn block_tokens(&self, row: RowNumber) -> u32 {
        self.info(row).map_or(0, |info| info.block_tokens)
    }

    pub(super) fn set_block_tokens(&self, row: RowNumber, tokens: u32) {
        self.change(row, |info| info.block_tokens = tokens);
    }

    pub(super) fn set_complete(&self, row: RowNumber, complete: bool) {
        self.change(row, |info| info.complete = complete);
    }

    pub(super) fn close(&self, row: RowNumber) {
        if let Some(place) = self.rows.write().unwrap_or_else(PoisonError::into_inner).get_mut(usize::from(row)) {
            *place = None;
        }
    }

    fn info(&self, row: RowNumber) -> Option<RowInfo> {
        *self.rows.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(row))?
    }

    fn change(&self, row: RowNumber, change: impl FnOnce(&mut RowInfo)) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(info)) = rows.get_mut(usize::from(row)) {
            change(info);
        }
    }
}

/// How many tokens of one prompt endpoints have cached, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Held {
    by_slot: Vec<Option<Entry>>,
    /// By block size: the prompt, hashed.
    chains: SmallVec<[(u32, Chain); 1]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    generation: u32,
    tokens: u32,
    /// All that it holds is known; if not, it may hold more.
    complete: bool,
}

impl Held {
    /// Tokens at the beginning of the prompt that the endpoint has cached; `None` if it may be more than is known.
    pub fn tokens(&self, endpoint: EndpointId) -> Option<u32> {
        self.entry(endpoint).filter(|entry| entry.complete).map(|entry| entry.tokens)
    }

    /// The same, where `guess` is what one would think without being told: it counts where more may be there than told.
    pub fn or_guess(&self, endpoint: EndpointId, guess: u32) -> u32 {
        match self.entry(endpoint) {
            Some(Entry { tokens, complete: true, .. }) => tokens,
            Some(Entry { tokens, .. }) => tokens.max(guess),
            None => guess,
        }
    }

    /// Another source says that the endpoint has so many.
    pub fn raise(&mut self, endpoint: EndpointId, tokens: u32) {
        let complete = self.entry(endpoint).is_some_and(|entry| entry.complete);
        self.add(endpoint, tokens, complete);
    }

    /// Whether nothing is known of any endpoint.
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Endpoints of which all is known.
    pub fn complete(&self) -> usize {
        self.by_slot.iter().flatten().filter(|entry| entry.complete).count()
    }

    /// The most that any endpoint has.
    pub fn most(&self) -> u32 {
        self.by_slot.iter().flatten().map(|entry| entry.tokens).max().unwrap_or(0)
    }

    fn entry(&self, endpoint: EndpointId) -> Option<Entry> {
        let entry = (*self.by_slot.get(endpoint.slot as usize)?)?;
        (entry.generation == endpoint.generation).then_some(entry)
    }

    /// One cache of an endpoint holds so much; a request may come to any of them, and is taken to come to the best.
    fn add(&mut self, endpoint: EndpointId, tokens: u32, complete: bool) {
        let (slot, before) = (endpoint.slot as usize, self.entry(endpoint));
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        if let Some(place) = self.by_slot.get_mut(slot) {
            let tokens = before.map_or(0, |entry| entry.tokens).max(tokens);
            let complete = complete && before.is_none_or(|entry| entry.complete);
            *place = Some(Entry { generation: endpoint.generation, tokens, complete });
        }
    }
}
