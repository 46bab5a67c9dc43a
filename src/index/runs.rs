//! Runs of blocks in the order of their use.

use crate::domain::Moment;

use super::account::Account;

/// Place of a run in [`Runs`].
pub(super) type RunId = u32;

/// No run.
pub(super) const NONE: RunId = RunId::MAX;

/// Blocks that follow each other, used together.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// At least one, root first.
    pub(super) hashes: Vec<u64>,
    /// Last use.
    pub(super) used: Moment,
    /// How many requests expect these blocks to be there; 0 once an answer came, so that they are there.
    pub(super) claims: u32,
    /// The claim that they came with; older claims are not on them.
    pub(super) born: u64,
    older: RunId,
    newer: RunId,
}

impl Run {
    /// A run that is in no list yet.
    pub(super) fn new(hashes: Vec<u64>, used: Moment, claim: Option<u64>) -> Self {
        let (claims, born) = (u32::from(claim.is_some()), claim.unwrap_or(0));
        Self { hashes, used, claims, born, older: NONE, newer: NONE }
    }

    /// Whether its blocks are expected, not known, to be there.
    pub(super) fn is_pending(&self) -> bool {
        self.claims > 0
    }

    /// Bytes of its hashes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }
}

/// The runs of one endpoint, as a list from the least to the most recently used.
#[derive(Debug)]
pub(super) struct Runs {
    places: Vec<Run>,
    /// Places without a run, linked by `newer`.
    free: RunId,
    oldest: RunId,
    newest: RunId,
}

impl Default for Runs {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, oldest: NONE, newest: NONE }
    }
}

/// Places of the first allocation.
const PLACES_MIN: usize = 8;

impl Runs {
    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        self.places.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.places.get_mut(id as usize)
    }

    pub(super) fn oldest(&self) -> RunId {
        self.oldest
    }

    pub(super) fn newest(&self) -> RunId {
        self.newest
    }

    /// The next one towards the oldest.
    pub(super) fn older(&self, id: RunId) -> RunId {
        self.get(id).map_or(NONE, |run| run.older)
    }

    /// The next one towards the newest.
    pub(super) fn newer(&self, id: RunId) -> RunId {
        self.get(id).map_or(NONE, |run| run.newer)
    }

    /// Sees to it that one more fits. False if there is no memory for it.
    #[must_use]
    pub(super) fn make_room(&mut self, account: &Account) -> bool {
        if self.free != NONE || self.places.len() < self.places.capacity() {
            return true;
        }
        let count = (self.places.len() * 2).max(PLACES_MIN);
        if !account.take(count * size_of::<Run>()) {
            return false;
        }
        let mut places = Vec::with_capacity(count);
        let before = self.bytes();
        places.append(&mut self.places);
        self.places = places;
        account.give_back(before);
        true
    }

    /// Puts a run behind (newer than) another, or first of all with [`NONE`]. There must be room.
    pub(super) fn insert_after(&mut self, older: RunId, run: Run) -> RunId {
        let id = if self.free == NONE {
            debug_assert!(self.places.len() < self.places.capacity(), "room was not made");
            self.places.push(run);
            (self.places.len() - 1) as RunId
        } else {
            let id = self.free;
            self.free = self.newer(id);
            if let Some(place) = self.get_mut(id) {
                *place = run;
            }
            id
        };
        self.link_after(older, id);
        id
    }

    /// Takes a run out.
    pub(super) fn remove(&mut self, id: RunId) -> Option<Run> {
        self.unlink(id);
        let free = self.free;
        let run = std::mem::take(self.get_mut(id)?);
        if let Some(place) = self.get_mut(id) {
            place.newer = free;
        }
        self.free = id;
        Some(run)
    }

    /// Makes a run the newest.
    pub(super) fn renew(&mut self, id: RunId, now: Moment) {
        if let Some(run) = self.get_mut(id) {
            run.used = run.used.max(now);
        }
        if self.newest != id {
            self.unlink(id);
            self.link_after(self.newest, id);
        }
    }

    fn link_after(&mut self, older: RunId, id: RunId) {
        let newer = if older == NONE { self.oldest } else { self.newer(older) };
        if let Some(run) = self.get_mut(id) {
            (run.older, run.newer) = (older, newer);
        }
        match self.get_mut(older) {
            Some(run) => run.newer = id,
            None => self.oldest = id,
        }
        match self.get_mut(newer) {
            Some(run) => run.older = id,
            None => self.newest = id,
        }
    }

    fn unlink(&mut self, id: RunId) {
        let (older, newer) = (self.older(id), self.newer(id));
        match self.get_mut(older) {
            Some(run) => run.newer = newer,
            None => self.oldest = newer,
        }
        match self.get_mut(newer) {
            Some(run) => run.older = older,
            None => self.newest = older,
        }
    }

    /// Bytes of the places, without those of the hashes.
    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Run>()
    }
}
