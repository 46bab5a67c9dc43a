//! The KV block pool: blocks named by a chained hash are shared and stay after use, least recently used ones go first.

use std::collections::{BTreeMap, HashMap};

#[derive(Debug)]
struct Cached {
    users: usize,
    /// Key in `idle` while nobody uses the block.
    stamp: u64,
}

/// A fixed number of KV blocks with a prefix cache in those that nobody uses.
#[derive(Debug)]
pub(super) struct BlockPool {
    total: usize,
    cached: HashMap<u64, Cached>,
    idle: BTreeMap<u64, u64>,
    private: usize,
    clock: u64,
}

/// What one sequence holds; must be given back with [`BlockPool::release`].
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// Leading blocks held by name.
    pub(super) named: usize,
    /// Blocks without a name: not full, not yet computed, or holding generated tokens.
    pub(super) private: usize,
}

impl BlockPool {
    pub(super) fn new(total: usize) -> Self {
        Self { total, cached: HashMap::new(), idle: BTreeMap::new(), private: 0, clock: 0 }
    }

    /// Share of the blocks in use, 0 to 1; cached blocks without a user count as free, as in vLLM.
    pub(super) fn usage(&self) -> f64 {
        self.in_use() as f64 / self.total.max(1) as f64
    }

    fn in_use(&self) -> usize {
        self.cached.len() - self.idle.len() + self.private
    }

    /// Takes the cached leading blocks of `hashes` (at most `named_max`) and nameless blocks up to `blocks` in all.
    /// `None` when there is no room.
    pub(super) fn take(&mut self, hashes: &[u64], named_max: usize, blocks: usize) -> Option<Holding> {
        let matched: Vec<u64> =
            hashes.iter().take(named_max).take_while(|hash| self.cached.contains_key(hash)).copied().collect();
        let waking = matched.iter().filter(|hash| self.cached.get(hash).is_some_and(|block| block.users == 0)).count();
        let holding = Holding { named: matched.len(), private: blocks.saturating_sub(matched.len()) };
        if self.in_use() + waking + holding.private > self.total {
            return None;
        }
        for hash in matched {
            self.use_named(hash);
        }
        self.private += holding.private;
        self.evict();
        Some(holding)
    }

    /// One more nameless block for a sequence that grows. False when there is no room.
    pub(super) fn grow(&mut self, holding: &mut Holding) -> bool {
        if self.in_use() >= self.total {
            return false;
        }
        self.private += 1;
        holding.private += 1;
        self.evict();
        true
    }

    /// Gives the full prompt blocks their names once they are computed, so that others can share them.
    pub(super) fn publish(&mut self, hashes: &[u64], holding: &mut Holding) {
        for hash in hashes.iter().skip(holding.named) {
            self.use_named(*hash);
            self.private -= 1;
            holding.private -= 1;
            holding.named += 1;
        }
    }

    /// Gives everything back; the tail of a prompt goes before its head.
    pub(super) fn release(&mut self, hashes: &[u64], holding: &Holding) {
        self.private -= holding.private;
        for hash in hashes.iter().take(holding.named).rev() {
            let Some(block) = self.cached.get_mut(hash) else {
                continue;
            };
            block.users -= 1;
            if block.users == 0 {
                self.clock += 1;
                block.stamp = self.clock;
                self.idle.insert(self.clock, *hash);
            }
        }
    }

    fn use_named(&mut self, hash: u64) {
        let block = self.cached.entry(hash).or_insert(Cached { users: 0, stamp: 0 });
        if block.users == 0 {
            self.idle.remove(&block.stamp);
        }
        block.users += 1;
    }

    fn evict(&mut self) {
        while self.cached.len() + self.private > self.total {
            let Some((_, hash)) = self.idle.pop_first() else {
                return;
            };
            self.cached.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_prompt_shares_the_published_blocks_of_the_first() {
        let mut pool = BlockPool::new(10);
        let hashes = [1, 2, 3];
        let mut first = pool.take(&hashes, 3, 4).unwrap();
        assert_eq!((first.named, first.private), (0, 4));
        pool.publish(&hashes, &mut first);
        let second = pool.take(&hashes, 2, 4).unwrap();
        assert_eq!((second.named, second.private), (2, 2));
        assert_eq!(pool.in_use(), 6);
        pool.release(&hashes, &first);
        pool.release(&hashes, &second);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.take(&hashes, 3, 3).unwrap().named, 3);
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let mut pool = BlockPool::new(4);
        for hashes in [[1, 2], [3, 4]] {
            let mut held = pool.take(&hashes, 2, 2).unwrap();
            pool.publish(&hashes, &mut held);
            pool.release(&hashes, &held);
        }
        let held = pool.take(&[], 0, 1).unwrap();
        assert!(!pool.cached.contains_key(&2), "the tail of the older prompt is the first to go");
        assert!(pool.cached.contains_key(&1));
        pool.release(&[], &held);
    }

    #[test]
    fn a_full_pool_refuses() {
        let mut pool = BlockPool::new(2);
        let mut held = pool.take(&[], 0, 2).unwrap();
        assert!(pool.take(&[], 0, 1).is_none());
        assert!(!pool.grow(&mut held));
        assert!((pool.usage() - 1.0).abs() < f64::EPSILON);
    }
}
