//! The blocks of one engine cache, as the engine tells them: a tree, kept in step event by event.
//!
//! Only what an engine would find is entered where others look: a block, if its parent is entered. Engines mostly drop
//! leaves first, but they need not; a block whose parent went is taken out with all behind it, and comes back with the
//! parent.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::domain::EndpointId;

use super::account::Account;
use super::held::{HeldIndex, RowNumber};
use super::table::Table;

type NodeId = u32;

const NONE: NodeId = NodeId::MAX;

/// Where an engine keeps a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The accelerator's memory.
    Device,
    /// The host's memory.
    Host,
    /// A disk, or another store that the engine reads from.
    Storage,
}

impl Tier {
    /// All, nearest first.
    pub const ALL: [Self; 3] = [Self::Device, Self::Host, Self::Storage];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A block as an engine stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlock {
    /// The engine's hash.
    pub key: u64,
    /// Ours.
    pub hash: u64,
}

/// Why blocks were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The block before them is not known: its event was missed.
    #[error("the parent block is not known")]
    Orphan,
    /// No memory.
    #[error("there is no memory for more blocks")]
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    key: u64,
    hash: u64,
    parent: NodeId,
    first_child: NodeId,
    next: NodeId,
    previous: NodeId,
    /// The tiers that it is on; on none while only others hang on it.
    tiers: u8,
    entered: bool,
}

/// What one engine cache holds. Owned by whoever reads the engine's events; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Row {
    index: Arc<HeldIndex>,
    number: RowNumber,
    endpoint: EndpointId,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    by_key: Table<NodeId>,
}

/// Nodes of the first allocation.
const NODES_MIN: usize = 64;

impl Row {
    pub(super) fn new(index: Arc<HeldIndex>, number: RowNumber, endpoint: EndpointId) -> Self {
        Self { index, number, endpoint, nodes: Vec::new(), free: Vec::new(), by_key: Table::default() }
    }

    /// Tells the engine's block size; with another one than before everything is dropped.
    pub fn set_block_tokens(&mut self, tokens: u32) {
        if self.index.block_tokens(self.number) != tokens {
            self.clear();
            self.index.set_block_tokens(self.number, tokens);
        }
    }

    /// The engine's block size; 0 while it is not known.
    pub fn block_tokens(&self) -> u32 {
        self.index.block_tokens(self.number)
    }

    /// Tells whether what is entered is all that the engine holds; if not, it may hold more.
    pub fn set_complete(&self, complete: bool) {
        self.index.set_complete(self.number, complete);
    }

    /// Our hash of the engine's block.
    pub fn hash_of(&self, key: u64) -> Option<u64> {
        let id = *self.by_key.get(key)?;
        self.node(id).filter(|node| node.tiers != 0).map(|node| node.hash)
    }

    /// Blocks that are known, on whatever tier.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Whether no block is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The engine stored blocks, each behind the one before it, the first behind `parent`.
    ///
    /// # Errors
    /// If the parent is not known, or there is no memory for all of them.
    pub fn store(&mut self, parent: Option<u64>, blocks: &[StoredBlock], tier: Tier) -> Result<(), StoreError> {
        let mut at = NONE;
        if let Some(key) = parent {
            at = self.by_key.get(key).copied().ok_or(StoreError::Orphan)?;
        }
        for block in blocks {
            let id = match self.by_key.get(block.key) {
                Some(id) => *id,
                None => self.add(at, *block).ok_or(StoreError::Full)?,
            };
            self.put_on(id, tier)?;
            at = id;
        }
        Ok(())
    }

    /// The engine removed a block from a tier, or from all. Unknown blocks are passed over.
    pub fn remove(&mut self, key: u64, tier: Option<Tier>) {
        let Some(&id) = self.by_key.get(key) else { return };
        for tier in Tier::ALL.into_iter().filter(|known| tier.is_none_or(|tier| tier == *known)) {
            self.take_off(id, tier);
        }
        if self.node(id).is_some_and(|node| node.tiers == 0) {
            self.leave(id);
            self.prune(id);
        }
    }

    /// The engine holds nothing any longer.
    pub fn clear(&mut self) {
        let ids = 0..self.nodes.len() as NodeId;
        for id in ids {
            let Some(node) = self.node(id).filter(|node| self.by_key.get(node.key) == Some(&id)) else { continue };
            if node.entered {
                self.index.leave(self.number, node.hash);
            }
            for tier in Tier::ALL {
                self.take_off(id, tier);
            }
        }
        let account = &self.index.account;
        account.give_back(self.by_key.bytes() + bytes_of(self.nodes.capacity()));
        (self.nodes, self.free, self.by_key) = (Vec::new(), Vec::new(), Table::default());
        self.index.expected.clear(self.endpoint);
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(id as usize).copied()
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            change(node);
        }
    }

    fn add(&mut self, parent: NodeId, block: StoredBlock) -> Option<NodeId> {
        let index = Arc::clone(&self.index);
        if !self.make_room(&index.account) || !self.by_key.make_room(&index.account) {
            index.refused.fetch_add(1, Relaxed);
            return None;
        }
        let next = self.node(parent).map_or(NONE, |node| node.first_child);
        let StoredBlock { key, hash } = block;
        let node = Node { key, hash, parent, first_child: NONE, next, previous: NONE, tiers: 0, entered: false };
        let id = if let Some(id) = self.free.pop() {
            self.change(id, |place| *place = node);
            id
        } else {
            self.nodes.push(node);
            self.nodes.len() as NodeId - 1
        };
        self.change(next, |sibling| sibling.previous = id);
        self.change(parent, |parent| parent.first_child = id);
        let room = self.by_key.insert(key, id, &index.account);
        debug_assert!(room, "room was made");
        Some(id)
    }

    /// Sees to it that one more node fits, and that each can be freed.
    fn make_room(&mut self, account: &Account) -> bool {
        if !self.free.is_empty() || self.nodes.len() < self.nodes.capacity() {
            return true;
        }
        let (before, count) = (bytes_of(self.nodes.capacity()), (self.nodes.len() * 2).max(NODES_MIN));
        if !account.take(bytes_of(count)) {
            return false;
        }
        let mut nodes = Vec::with_capacity(count);
        nodes.append(&mut self.nodes);
        (self.nodes, self.free) = (nodes, Vec::with_capacity(count));
        account.give_back(before);
        true
    }

    fn put_on(&mut self, id: NodeId, tier: Tier) -> Result<(), StoreError> {
        let Some(node) = self.node(id) else { return Ok(()) };
        if node.tiers & tier.bit() == 0 {
            self.change(id, |node| node.tiers |= tier.bit());
            self.index.count_tier(tier, 1);
        }
        if self.enter(id) { Ok(()) } else { Err(StoreError::Full) }
    }

    fn take_off(&mut self, id: NodeId, tier: Tier) {
        if self.node(id).is_some_and(|node| node.tiers & tier.bit() != 0) {
            self.change(id, |node| node.tiers &= !tier.bit());
            self.index.count_tier(tier, -1);
        }
    }

    /// Enters a block that can be found, and what hangs on it. False if there was no memory.
    fn enter(&mut self, id: NodeId) -> bool {
        let mut found = vec![id];
        while let Some(id) = found.pop() {
            let Some(node) = self.node(id).filter(|node| !node.entered && node.tiers != 0) else { continue };
            if self.node(node.parent).is_some_and(|parent| !parent.entered) {
                continue;
            }
            if !self.index.enter(self.number, self.endpoint, node.hash) {
                self.index.refused.fetch_add(1, Relaxed);
                return false;
            }
            self.change(id, |node| node.entered = true);
            self.push_children(node, &mut found);
        }
        true
    }

    /// Takes out a block and what hangs on it.
    fn leave(&mut self, id: NodeId) {
        let mut found = vec![id];
        while let Some(id) = found.pop() {
            let Some(node) = self.node(id).filter(|node| node.entered) else { continue };
            self.change(id, |node| node.entered = false);
            self.index.leave(self.number, node.hash);
            self.push_children(node, &mut found);
        }
    }

    fn push_children(&self, node: Node, found: &mut Vec<NodeId>) {
        let mut child = node.first_child;
        while let Some(node) = self.node(child) {
            found.push(child);
            child = node.next;
        }
    }

    /// Frees a node that is on no tier and on which nothing hangs, and its parents likewise.
    fn prune(&mut self, id: NodeId) {
        let mut at = id;
        while let Some(node) = self.node(at).filter(|node| node.tiers == 0 && node.first_child == NONE) {
            self.change(node.next, |next| next.previous = node.previous);
            if node.previous == NONE {
                self.change(node.parent, |parent| parent.first_child = node.next);
            } else {
                self.change(node.previous, |previous| previous.next = node.next);
            }
            self.by_key.remove(node.key);
            self.free.push(at);
            at = node.parent;
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.clear();
        self.index.close(self.number);
    }
}

/// Memory of so many nodes, and of the list of free ones.
fn bytes_of(nodes: usize) -> usize {
    nodes * (size_of::<Node>() + size_of::<NodeId>())
}
