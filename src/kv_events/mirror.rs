//! One engine cache, mirrored: events in, blocks entered and taken out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::index::{Row, StoreError, StoredBlock, Tier, token_block, token_root};

use super::decode::{Event, Stored, decode};
use super::feed::{Reason, Sink};
use super::status::EventStatus;

/// Stands for an adapter that an older engine knows by number only: no request names it.
const ANONYMOUS: &str = "\0";

/// Keeps a [`Row`] in step with events.
#[derive(Debug)]
pub(super) struct Mirror {
    row: Row,
    /// The group of the engine's cache that is followed: the first that keeps whole prefixes.
    group: Option<u64>,
    status: Arc<EventStatus>,
}

impl Mirror {
    pub(super) fn new(row: Row, status: Arc<EventStatus>) -> Self {
        Self { row, group: None, status }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Stored(stored) => {
                self.status.stored.fetch_add(stored.keys.len() as u64, Relaxed);
                self.store(&stored);
            }
            Event::Removed { keys, tier, group, is_remote } => {
                self.status.removed.fetch_add(keys.len() as u64, Relaxed);
                if !is_remote && (group.is_none() || self.group.is_none() || group == self.group) {
                    for key in keys {
                        self.row.remove(key, tier);
                    }
                }
            }
            Event::Cleared => {
                self.row.clear();
                // An empty cache is known whole.
                self.row.set_complete(true);
            }
            Event::Unreadable => self.unreadable(),
        }
    }

    /// What could not be read may have been a removal.
    fn unreadable(&mut self) {
        self.status.unreadable.fetch_add(1, Relaxed);
        self.row.clear();
        self.row.set_complete(false);
    }

    fn store(&mut self, stored: &Stored) {
        if stored.is_remote || !stored.is_full {
            return;
        }
        if stored.group.is_some() && *self.group.get_or_insert(stored.group.unwrap_or(0)) != stored.group.unwrap_or(0) {
            return;
        }
        self.row.set_block_tokens(stored.block_tokens);
        let adapter = if stored.is_anonymous { Some(ANONYMOUS) } else { stored.adapter.as_deref() };
        let parent = match stored.parent {
            None => Some(token_root(adapter, stored.block_tokens)),
            Some(key) => self.row.hash_of(key),
        };
        let outcome = match parent {
            Some(parent) => {
                let blocks = own_blocks(stored, parent);
                self.row.store(stored.parent, &blocks, stored.tier.unwrap_or(Tier::Device))
            }
            None => Err(StoreError::Orphan),
        };
        match outcome {
            Ok(()) => return,
            // It hangs on something that was stored before we listened.
            Err(StoreError::Orphan) => drop(self.status.orphans.fetch_add(stored.keys.len() as u64, Relaxed)),
            // The index counts it.
            Err(StoreError::Full) => {}
        }
        self.row.set_complete(false);
    }
}

/// The blocks by our hashes, each behind the one before it.
fn own_blocks(stored: &Stored, parent: u64) -> Vec<StoredBlock> {
    let mut parent = parent;
    let tokens = stored.tokens.chunks_exact((stored.block_tokens as usize).max(1));
    let extras = stored.extras.iter().copied().chain(std::iter::repeat(0));
    let keys = stored.keys.iter();
    keys.zip(tokens)
        .zip(extras)
        .map(|((key, tokens), extra)| {
            parent = token_block(parent, tokens, extra);
            StoredBlock { key: *key, hash: parent }
        })
        .collect()
}

impl Sink for Mirror {
    fn apply(&mut self, payload: &[u8]) {
        self.status.batches.fetch_add(1, Relaxed);
        let Some(batch) = decode(payload) else { return self.unreadable() };
        self.status.unknown.fetch_add(batch.unknown as u64, Relaxed);
        batch.events.into_iter().for_each(|event| self.take(event));
    }

    fn clear(&mut self, reason: Reason) {
        self.status.cleared(reason);
        self.row.clear();
        self.group = None;
    }

    fn set_complete(&mut self, complete: bool) {
        self.row.set_complete(complete);
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
