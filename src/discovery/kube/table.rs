//! Objects of one kind, kept up to date through watches and relists.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::objects::Name;

/// Which listing of which watch an object was last seen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Index of the watch.
    pub(super) watch: usize,
    /// Counts its listings.
    pub(super) listing: u32,
}

/// Objects of one kind that are kept: four times as many as there may be endpoints.
pub(super) const OBJECTS_MAX: usize = 65_536;

/// What is known of the objects of one kind, each stripped to a `T`; only so many.
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: BTreeMap<Arc<Name>, (Seen, T)>,
    max: usize,
    refused: u64,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), max: OBJECTS_MAX, refused: 0 }
    }
}

impl<T: PartialEq> Table<T> {
    /// Takes an object; its name if that changed anything. A new one is refused where there is no room.
    pub(super) fn put(&mut self, seen: Seen, name: Name, value: T) -> Option<Arc<Name>> {
        if let Some((last, old)) = self.rows.get_mut(&name) {
            *last = seen;
            if *old == value {
                return None;
            }
            *old = value;
            return self.rows.get_key_value(&name).map(|(name, _)| Arc::clone(name));
        }
        if self.rows.len() >= self.max {
            self.refused += 1;
            return None;
        }
        let name = Arc::new(name);
        self.rows.insert(Arc::clone(&name), (seen, value));
        Some(name)
    }

    /// How often an object was refused since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, name: &Name) -> Option<(Arc<Name>, T)> {
        self.rows.remove_entry(name).map(|(name, (_, value))| (name, value))
    }

    /// Takes out what a complete listing did not have: it was deleted while nobody watched.
    pub(super) fn sweep(&mut self, complete: Seen) -> Vec<(Arc<Name>, T)> {
        let is_ghost = |seen: &Seen| seen.watch == complete.watch && seen.listing != complete.listing;
        self.rows.extract_if(.., |_, (seen, _)| is_ghost(seen)).map(|(name, (_, value))| (name, value)).collect()
    }

    pub(super) fn get(&self, name: &Name) -> Option<&T> {
        self.rows.get(name).map(|(_, value)| value)
    }

    /// All of one namespace, in the order of names.
    pub(super) fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Arc<Name>, &'a T)> {
        let rows =
            self.rows.range(Name::new(namespace, "")..).take_while(move |(name, _)| &*name.namespace == namespace);
        rows.map(|(name, (_, value))| (name, value))
    }

    /// All, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<Name>, &T)> {
        self.rows.iter().map(|(name, (_, value))| (name, value))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_sweeps_what_it_did_not_have_and_leaves_other_watches_alone() {
        let mut table = Table::default();
        let seen = |watch, listing| Seen { watch, listing };
        for (at, name) in [(seen(0, 1), "a"), (seen(0, 1), "b"), (seen(1, 1), "c")] {
            assert!(table.put(at, Name::new("n", name), 1).is_some());
        }
        assert!(table.put(seen(0, 2), Name::new("n", "a"), 1).is_none(), "nothing changed");
        let swept: Vec<_> = table.sweep(seen(0, 2)).into_iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(swept, ["n/b"]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_full_table_refuses_what_is_new_and_takes_what_is_known() {
        let mut table = Table { max: 2, ..Table::default() };
        let seen = Seen { watch: 0, listing: 1 };
        let changed = ["a", "b", "c", "a"].map(|name| table.put(seen, Name::new("n", name), name.len()).is_some());
        assert_eq!((changed, table.take_refused(), table.len()), ([true, true, false, false], 1, 2));
        assert!(table.put(seen, Name::new("n", "a"), 7).is_some());
        table.remove(&Name::new("n", "b"));
        assert!(table.put(seen, Name::new("n", "c"), 1).is_some() && table.take_refused() == 0);
    }

    #[test]
    fn a_namespace_is_not_its_neighbour() {
        let mut table = Table::default();
        for namespace in ["a", "ab", "b"] {
            table.put(Seen { watch: 0, listing: 0 }, Name::new(namespace, "x"), ());
        }
        assert_eq!(table.of_namespace("a").count(), 1);
    }
}
