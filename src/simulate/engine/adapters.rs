//! Adapter slots: which adapters the batch uses, and which are loaded.

/// The adapters of one engine.
#[derive(Debug)]
pub(super) struct Adapters {
    slots: usize,
    /// Loaded ones, the one used last at the end, with how many sequences use each.
    loaded: Vec<(u16, u32)>,
    /// How often one had to be loaded.
    pub(super) loads: u64,
}

impl Adapters {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, loaded: Vec::new(), loads: 0 }
    }

    /// Whether a sequence that asks for `adapter` could join the batch.
    pub(super) fn has_room(&self, adapter: Option<u16>) -> bool {
        let Some(adapter) = adapter else { return true };
        self.loaded.len() < self.slots || self.loaded.iter().any(|(name, users)| *name == adapter || *users == 0)
    }

    /// A sequence joins. Returns whether its adapter had to be loaded.
    pub(super) fn join(&mut self, adapter: Option<u16>) -> bool {
        let Some(adapter) = adapter else { return false };
        if let Some(at) = self.loaded.iter().position(|(name, _)| *name == adapter) {
            let (name, users) = self.loaded.remove(at);
            self.loaded.push((name, users + 1));
            return false;
        }
        if self.loaded.len() >= self.slots
            && let Some(unused) = self.loaded.iter().position(|(_, users)| *users == 0)
        {
            self.loaded.remove(unused);
        }
        self.loaded.push((adapter, 1));
        self.loads += 1;
        true
    }

    /// A sequence leaves.
    pub(super) fn leave(&mut self, adapter: Option<u16>) {
        let entry = self.loaded.iter_mut().find(|(name, _)| Some(*name) == adapter);
        if let Some((_, users)) = entry {
            *users = users.saturating_sub(1);
        }
    }

    /// Those that sequences in the batch use.
    pub(super) fn used(&self) -> impl Iterator<Item = u16> {
        self.loaded.iter().filter(|(_, users)| *users > 0).map(|(name, _)| *name)
    }

    /// Whether it is loaded now.
    pub(super) fn is_loaded(&self, adapter: Option<u16>) -> bool {
        adapter.is_none_or(|adapter| self.loaded.iter().any(|(name, _)| *name == adapter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_adapter_makes_room_and_a_used_one_does_not() {
        let mut adapters = Adapters::new(2);
        assert!(adapters.join(Some(1)) && adapters.join(Some(2)) && !adapters.join(Some(1)));
        assert!(!adapters.has_room(Some(3)) && adapters.has_room(Some(2)) && adapters.has_room(None));
        adapters.leave(Some(2));
        assert!(adapters.has_room(Some(3)) && adapters.join(Some(3)));
        assert!(!adapters.is_loaded(Some(2)));
    }
}
