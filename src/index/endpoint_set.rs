//! A set of endpoints by slot, of 16 bytes while it is small.

use super::account::Account;

const FEW: usize = 6;

/// Bytes of a vector's own fields.
const VEC_BYTES: usize = size_of::<Vec<u64>>();

/// The endpoints that hold a block. Slots are below 65,536.
#[derive(Debug)]
pub(super) enum EndpointSet {
    /// Up to six, in no order.
    Few { len: u8, slots: [u16; FEW] },
    /// A bit for each slot up to the greatest that was ever in.
    #[expect(clippy::box_collection, reason = "a set is 16 bytes, not 32")]
    Many { len: u16, words: Box<Vec<u64>> },
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self::Few { len: 0, slots: [0; FEW] }
    }
}

impl EndpointSet {
    /// A set of one, which takes no memory beside its own.
    pub(super) fn of(slot: u16) -> Self {
        let mut slots = [0; FEW];
        if let Some(first) = slots.first_mut() {
            *first = slot;
        }
        Self::Few { len: 1, slots }
    }

    /// Whether nobody but this slot is in.
    pub(super) fn is_only(&self, slot: u16) -> bool {
        self.len() == 1 && self.contains(slot)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few { len, .. } => usize::from(*len),
            Self::Many { len, .. } => usize::from(*len),
        }
    }

    fn few(&self) -> &[u16] {
        match self {
            Self::Few { len, slots } => slots.get(..usize::from(*len)).unwrap_or_default(),
            Self::Many { .. } => &[],
        }
    }

    /// Calls `each` with 64 slots at a time: the number of the word, and its bits.
    pub(super) fn for_each_word(&self, mut each: impl FnMut(usize, u64)) {
        match self {
            Self::Few { .. } => self.few().iter().for_each(|slot| each(word_of(*slot), bit_of(*slot))),
            Self::Many { words, .. } => words.iter().enumerate().for_each(|(at, bits)| each(at, *bits)),
        }
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        match self {
            Self::Few { .. } => self.few().contains(&slot),
            Self::Many { words, .. } => words.get(word_of(slot)).is_some_and(|word| word & bit_of(slot) != 0),
        }
    }

    /// Adds a slot. False if there is no memory for it.
    pub(super) fn insert(&mut self, slot: u16, account: &Account) -> bool {
        if self.contains(slot) {
            return true;
        }
        match self {
            Self::Few { len, slots } => match slots.get_mut(usize::from(*len)) {
                Some(free) => {
                    *free = slot;
                    *len += 1;
                    true
                }
                None => self.spread(slot, account) && self.insert(slot, account),
            },
            Self::Many { len, words } => match words.get_mut(word_of(slot)) {
                Some(word) => {
                    *word |= bit_of(slot);
                    *len += 1;
                    true
                }
                None => lengthen(words, word_of(slot) + 1, account) && self.insert(slot, account),
            },
        }
    }

    /// From few to many, with room for `slot`.
    fn spread(&mut self, slot: u16, account: &Account) -> bool {
        let greatest = self.few().iter().copied().fold(slot, u16::max);
        let count = word_of(greatest) + 1;
        if !account.take(VEC_BYTES + 8 * count) {
            return false;
        }
        let mut words = Box::new(vec![0; count]);
        for slot in self.few() {
            if let Some(word) = words.get_mut(word_of(*slot)) {
                *word |= bit_of(*slot);
            }
        }
        *self = Self::Many { len: FEW as u16, words };
        true
    }

    /// Removes a slot. True if it was in.
    pub(super) fn remove(&mut self, slot: u16, account: &Account) -> bool {
        if !self.contains(slot) {
            return false;
        }
        match self {
            Self::Few { len, slots } => {
                let at = slots.iter().position(|other| *other == slot).unwrap_or_default();
                *len -= 1;
                slots.swap(at, usize::from(*len));
            }
            Self::Many { len, words } => {
                if let Some(word) = words.get_mut(word_of(slot)) {
                    *word &= !bit_of(slot);
                }
                *len -= 1;
                if usize::from(*len) <= FEW / 2 {
                    self.gather(account);
                }
            }
        }
        true
    }

    /// From many back to few.
    fn gather(&mut self, account: &Account) {
        let (mut len, mut slots) = (0, [0; FEW]);
        self.for_each_word(|at, bits| {
            for slot in slots_of(at, bits) {
                if let Some(free) = slots.get_mut(usize::from(len)) {
                    *free = slot as u16;
                    len += 1;
                }
            }
        });
        account.give_back(self.heap_bytes());
        *self = Self::Few { len, slots };
    }

    /// Bytes outside of the set itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Few { .. } => 0,
            Self::Many { words, .. } => VEC_BYTES + 8 * words.capacity(),
        }
    }
}

fn lengthen(words: &mut Vec<u64>, count: usize, account: &Account) -> bool {
    if !account.take(8 * count) {
        return false;
    }
    let before = words.capacity();
    let mut longer = Vec::with_capacity(count);
    longer.extend_from_slice(words);
    longer.resize(count, 0);
    *words = longer;
    account.give_back(8 * before);
    true
}

fn word_of(slot: u16) -> usize {
    usize::from(slot) / 64
}

fn bit_of(slot: u16) -> u64 {
    1 << (slot % 64)
}

/// The slots of a word's bits.
pub(super) fn slots_of(at: usize, bits: u64) -> impl Iterator<Item = usize> {
    let mut rest = bits;
    std::iter::from_fn(move || {
        let slot = at * 64 + rest.trailing_zeros() as usize;
        (rest != 0).then(|| {
            rest &= rest - 1;
            slot
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(set: &EndpointSet) -> BTreeSet<usize> {
        let mut members = BTreeSet::new();
        set.for_each_word(|at, bits| members.extend(slots_of(at, bits)));
        members
    }

    #[test]
    fn a_set_takes_sixteen_bytes() {
        assert_eq!(size_of::<EndpointSet>(), 16);
    }

    #[test]
    fn a_set_without_memory_for_more_stays_as_it_is() {
        let (account, mut set) = (Account::new(0), EndpointSet::default());
        let taken = (0..8).filter(|slot| set.insert(*slot, &account)).count();
        assert_eq!((taken, set.len()), (FEW, FEW));
    }

    proptest! {
        #[test]
        fn a_set_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u16..200), 0..200)) {
            let (account, mut set, mut naive) = (Account::new(usize::MAX), EndpointSet::default(), BTreeSet::new());
            for (adds, slot) in steps {
                if adds {
                    prop_assert!(set.insert(slot, &account));
                    naive.insert(usize::from(slot));
                } else {
                    prop_assert_eq!(set.remove(slot, &account), naive.remove(&usize::from(slot)));
                }
                prop_assert_eq!(set.len(), naive.len());
                prop_assert_eq!(members(&set), naive.clone());
                prop_assert_eq!(account.held(), set.heap_bytes());
            }
        }
    }
}
