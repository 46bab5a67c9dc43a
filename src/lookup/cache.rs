//! Answers kept within a bound of bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of an entry beside its value.
const ENTRY_BYTES: usize = 128;

/// Token ids by digest of what they were made of. What was not asked for lately goes first.
#[derive(Debug)]
pub(super) struct TokenCache {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<u128, Entry>,
    /// Keys in the order in which they came, or were last spared.
    order: VecDeque<u128>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    tokens: Arc<[u32]>,
    /// Asked for since it was last spared.
    used: bool,
}

fn bytes_of(tokens: &[u32]) -> usize {
    size_of_val(tokens) + ENTRY_BYTES
}

impl TokenCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    pub(super) fn get(&self, key: u128) -> Option<Arc<[u32]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.entries.get_mut(&key)?;
        entry.used = true;
        Some(Arc::clone(&entry.tokens))
    }

    pub(super) fn put(&self, key: u128, tokens: &Arc<[u32]>) {
        let bytes = bytes_of(tokens);
        if bytes > self.bytes_max {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        if kept.entries.contains_key(&key) {
            return;
        }
        while kept.bytes + bytes > self.bytes_max {
            let Some(oldest) = kept.order.pop_front() else { break };
            match kept.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    kept.order.push_back(oldest);
                }
                _ => {
                    kept.bytes -= kept.entries.remove(&oldest).map_or(0, |entry| bytes_of(&entry.tokens));
                }
            }
        }
        kept.entries.insert(key, Entry { tokens: Arc::clone(tokens), used: false });
        kept.order.push_back(key);
        kept.bytes += bytes;
    }

    /// Bytes held, about; never more than the bound.
    pub(super) fn bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_bound_holds() {
        let cache = TokenCache::new(10 * (400 + ENTRY_BYTES));
        let tokens: Arc<[u32]> = vec![7; 100].into();
        for key in 0..50 {
            cache.put(key, &tokens);
            assert!(cache.get(0).is_some(), "{key}");
            assert!(cache.bytes() <= cache.bytes_max);
        }
        assert!(cache.get(1).is_none() && cache.get(49).is_some());
        cache.put(99, &vec![0; 100_000].into());
        assert!(cache.get(99).is_none(), "larger than all there is");
    }
}
