//! A hash table whose memory is accounted for before it is taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::account::Account;

/// For keys that are hashes already.
#[derive(Debug, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "keys are u64, not {} bytes", bytes.len());
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// From block hashes to `V`.
#[derive(Debug)]
pub(super) struct Table<V> {
    map: HashMap<u64, V, BuildHasherDefault<AsIs>>,
    /// A power of two, or 0 while nothing is allocated.
    buckets: usize,
}

/// Buckets of the first allocation.
const BUCKETS_MIN: usize = 16;

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { map: HashMap::default(), buckets: 0 }
    }
}

impl<V> Table<V> {
    pub(super) fn get(&self, hash: u64) -> Option<&V> {
        self.map.get(&hash)
    }

    pub(super) fn get_mut(&mut self, hash: u64) -> Option<&mut V> {
        self.map.get_mut(&hash)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Inserts a key that must not be in, or is to be replaced. False if there is no memory for it.
    #[must_use]
    pub(super) fn insert(&mut self, hash: u64, value: V, account: &Account) -> bool {
        let room = self.make_room(account);
        if room {
            self.map.insert(hash, value);
        }
        room
    }

    /// Changes the value of a key, or enters a new one for it. False if `change` says so, or if there is no memory.
    #[must_use]
    pub(super) fn change_or_insert(
        &mut self,
        hash: u64,
        account: &Account,
        change: impl FnOnce(&mut V) -> bool,
        new: impl FnOnce() -> V,
    ) -> bool {
        if !self.make_room(account) {
            return self.map.get_mut(&hash).is_some_and(change);
        }
        match self.map.entry(hash) {
            Entry::Occupied(mut entry) => change(entry.get_mut()),
            Entry::Vacant(place) => {
                place.insert(new());
                true
            }
        }
    }

    pub(super) fn remove(&mut self, hash: u64) -> Option<V> {
        self.map.remove(&hash)
    }

    /// Sees to it that one more fits without the map growing by itself.
    pub(super) fn make_room(&mut self, account: &Account) -> bool {
        // The standard map counts buckets that removed keys left unusable as taken.
        if self.map.len() < self.map.capacity() {
            return true;
        }
        let full = self.buckets / 8 * 7;
        let crowded = self.map.len() * 4 >= full * 3;
        (crowded && self.rebuild((self.buckets * 2).max(BUCKETS_MIN), account))
            || (self.map.len() < full && self.rebuild(self.buckets, account))
    }

    /// Moves to a table of so many buckets.
    fn rebuild(&mut self, buckets: usize, account: &Account) -> bool {
        if !account.take(Self::bytes_of(buckets)) {
            return false;
        }
        let mut map = HashMap::with_capacity_and_hasher(buckets / 8 * 7, BuildHasherDefault::default());
        map.extend(self.map.drain());
        self.map = map;
        account.give_back(Self::bytes_of(self.buckets));
        self.buckets = buckets;
        true
    }

    /// What the standard map allocates: the pairs, a byte for each, and 16 to read beyond the end.
    fn bytes_of(buckets: usize) -> usize {
        if buckets == 0 { 0 } else { (buckets * size_of::<(u64, V)>()).next_multiple_of(16) + buckets + 16 }
    }

    pub(super) fn bytes(&self) -> usize {
        Self::bytes_of(self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_size_while_keys_come_and_go() {
        let (account, mut table) = (Account::new(usize::MAX), Table::default());
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 0..100_000_u64 {
            assert!(table.insert(key(n), (), &account));
            if n >= 1000 {
                table.remove(key(n - 1000)).unwrap();
            }
            assert_eq!(account.held(), table.bytes());
        }
        assert!(table.buckets <= 2048, "{}", table.buckets);
    }

    #[test]
    fn a_table_without_memory_takes_no_more_and_loses_nothing() {
        let account = Account::new(2000);
        let mut table = Table::default();
        let taken = (0..1000_u64).take_while(|n| table.insert(n << 40 | n, *n, &account)).count() as u64;
        assert!((14..1000).contains(&taken), "{taken}");
        assert!((0..taken).all(|n| table.get(n << 40 | n) == Some(&n)));
    }
}
