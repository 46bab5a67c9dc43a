//! The prefixes of one endpoint.
//!
//! They form a tree, kept as runs: blocks that were always used together. A use renews the runs of its path from the
//! end to the root, so a run is always newer than those that hang on it, and taking blocks from the end of the oldest
//! run takes leaves only, without any link from parent to child.

use smallvec::SmallVec;

use crate::domain::Moment;

use super::account::Account;
use super::blocks::Blocks;
use super::runs::{NONE, Run, RunId, Runs};
use super::table::Table;

/// What an endpoint holds. Whoever changes it has it locked, so its blocks are closed at every moment.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    runs: Runs,
    /// Run by its first block.
    starts: Table<RunId>,
    /// Blocks in all runs.
    held: usize,
    /// Runs that are pending.
    pending: usize,
    /// Most blocks, where the endpoint told.
    pub(super) capacity: Option<usize>,
}

/// Where blocks of one endpoint are entered: the shared table, its slot there, and whose memory it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) blocks: &'a Blocks,
    pub(super) slot: u16,
    pub(super) account: &'a Account,
}

/// A use of a prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use<'a> {
    pub(super) hashes: &'a [u64],
    pub(super) now: Moment,
    /// Whose expectation it is that the blocks are there; `None` once they are.
    pub(super) claim: Option<u64>,
}

/// What came of a use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Blocks that had to go because the endpoint was full.
    pub(super) evicted: usize,
    /// Whether there was memory for all of it.
    pub(super) whole: bool,
}

type Path = SmallVec<[RunId; 16]>;

impl Ledger {
    /// Renews what is held of a prefix, and adds what is not.
    pub(super) fn note(&mut self, used: Use<'_>, capacity: usize, place: Place<'_>) -> Used {
        let hashes = used.hashes.get(..capacity).unwrap_or(used.hashes);
        let (path, held) = self.part(hashes, place.account);
        for id in path.iter().rev() {
            self.runs.renew(*id, used.now);
            self.claim(*id, used.claim);
        }
        let missing = hashes.get(held..).unwrap_or_default();
        let evicted = self.evict((self.held + missing.len()).saturating_sub(capacity), place);
        Used { evicted, whole: missing.is_empty() || self.add(&path, missing, used, place) }
    }

    /// Adds blocks behind a path that was just renewed. False if there was no memory for all of them.
    fn add(&mut self, path: &Path, missing: &[u64], used: Use<'_>, place: Place<'_>) -> bool {
        let Some(first) = missing.first() else { return true };
        let account = place.account;
        if !self.runs.make_room(account) || !self.starts.make_room(account) || !account.take(size_of_val(missing)) {
            return false;
        }
        let added = place.blocks.add(missing, place.slot, account);
        let mut hashes = Vec::with_capacity(missing.len());
        hashes.extend(missing.iter().take(added));
        let run = Run::new(hashes, used.now, used.claim);
        if added == 0 {
            account.give_back(run.heap_bytes());
            return false;
        }
        // Older than the run that it hangs on.
        let older = path.last().map_or(self.runs.newest(), |parent| self.runs.older(*parent));
        let id = self.runs.insert_after(older, run);
        let room = self.starts.insert(*first, id, account);
        debug_assert!(room, "room was made");
        self.held += added;
        self.pending += usize::from(used.claim.is_some());
        added == missing.len()
    }

    /// The runs of what is held of a prefix, and how many blocks that is. A run that the prefix leaves midway is cut
    /// there, so that the path is whole runs.
    fn part(&mut self, hashes: &[u64], account: &Account) -> (Path, usize) {
        let (mut path, mut held) = (Path::new(), 0);
        while let Some(&id) = hashes.get(held).and_then(|hash| self.starts.get(*hash)) {
            let Some(run) = self.runs.get(id) else { break };
            let (length, rest) = (run.hashes.len(), hashes.get(held..).unwrap_or_default());
            let common = common_blocks(&run.hashes, rest);
            held += common;
            if common < length {
                path.push(self.split(id, common, account).unwrap_or(id));
                break;
            }
            path.push(id);
        }
        (path, held)
    }

    /// Cuts a run in two. The rear half keeps the id and the place in the order; the front half is returned.
    fn split(&mut self, id: RunId, at: usize, account: &Account) -> Option<RunId> {
        let run = self.runs.get(id)?;
        let (front, rear) = run.hashes.split_at_checked(at)?;
        let (front_start, rear_start) = (*front.first()?, *rear.first()?);
        // The halves, and the whole until it is dropped.
        let bytes = size_of_val(front) + size_of_val(rear);
        if !self.starts.make_room(account) || !self.runs.make_room(account) || !account.take(bytes) {
            return None;
        }
        let run = self.runs.get_mut(id)?;
        let rear = run.hashes.get(at..)?.to_vec();
        let whole = std::mem::replace(&mut run.hashes, rear);
        let mut front = Run::new(whole.get(..at)?.to_vec(), run.used, None);
        (front.claims, front.born) = (run.claims, run.born);
        let whole_bytes = whole.capacity() * size_of::<u64>();
        drop(whole);
        account.give_back(whole_bytes);
        self.pending += usize::from(front.is_pending());
        let front_id = self.runs.insert_after(id, front);
        let room = self.starts.insert(rear_start, id, account);
        debug_assert!(room, "room was made");
        if let Some(start) = self.starts.get_mut(front_start) {
            *start = front_id;
        }
        Some(front_id)
    }

    /// One more expects a run, or it is known to be there. What is there never becomes pending again.
    fn claim(&mut self, id: RunId, claim: Option<u64>) {
        let Some(run) = self.runs.get_mut(id).filter(|run| run.is_pending()) else { return };
        if claim.is_some() {
            run.claims += 1;
        } else {
            run.claims = 0;
            self.pending -= 1;
        }
    }

    /// Takes a claim back, and drops what is pending on no other. A claim goes with the whole path from the root, so
    /// whatever hangs on a run that loses its last claim has lost its own already.
    pub(super) fn withdraw(&mut self, hashes: &[u64], claim: u64, place: Place<'_>) {
        let (mut path, mut held) = (Path::new(), 0);
        while let Some(&id) = hashes.get(held).and_then(|hash| self.starts.get(*hash)) {
            path.push(id);
            held += self.runs.get(id).map_or(0, |run| run.hashes.len());
        }
        while let Some(id) = path.pop() {
            let claimed = |run: &&mut Run| run.is_pending() && run.born <= claim;
            let Some(run) = self.runs.get_mut(id).filter(claimed) else { continue };
            if run.claims == 1 {
                self.remove(id, place);
            } else {
                run.claims -= 1;
            }
        }
    }

    /// Drops what has been pending since before `since`. Returns the number of blocks.
    pub(super) fn drop_pending(&mut self, since: Moment, place: Place<'_>) -> usize {
        let (mut expired, mut id, mut left) = (Path::new(), self.runs.newest(), self.pending);
        while let Some(run) = self.runs.get(id).filter(|_| left > 0) {
            left -= usize::from(run.is_pending());
            if run.is_pending() && run.used < since {
                expired.push(id);
            }
            id = self.runs.older(id);
        }
        expired.iter().rev().map(|id| self.remove(*id, place)).sum()
    }

    /// Drops what was not used since `since`. Returns the number of blocks.
    pub(super) fn drop_idle(&mut self, since: Moment, place: Place<'_>) -> usize {
        let mut blocks = 0;
        while self.oldest_use().is_some_and(|used| used < since) {
            blocks += self.evict_run(place);
        }
        blocks
    }

    /// Drops everything, memory included.
    pub(super) fn clear(&mut self, place: Place<'_>) {
        while self.evict_run(place) > 0 {}
        place.account.give_back(self.runs.bytes() + self.starts.bytes());
        *self = Self::default();
    }

    /// Drops the oldest run. Returns the number of its blocks.
    pub(super) fn evict_run(&mut self, place: Place<'_>) -> usize {
        self.remove(self.runs.oldest(), place)
    }

    /// Drops so many blocks, each time the last one of the oldest run. Returns how many there were.
    pub(super) fn evict(&mut self, count: usize, place: Place<'_>) -> usize {
        let mut left = count;
        while left > 0 {
            let id = self.runs.oldest();
            let Some(run) = self.runs.get_mut(id) else { break };
            let stays = run.hashes.len().saturating_sub(left);
            if stays == 0 {
                left -= self.remove(id, place).clamp(1, left);
                continue;
            }
            place.blocks.remove(run.hashes.get(stays..).unwrap_or_default(), place.slot, place.account);
            run.hashes.truncate(stays);
            self.held -= left;
            left = 0;
        }
        count - left
    }

    fn remove(&mut self, id: RunId, place: Place<'_>) -> usize {
        if id == NONE {
            return 0;
        }
        let Some(run) = self.runs.remove(id) else { return 0 };
        place.blocks.remove(&run.hashes, place.slot, place.account);
        if let Some(first) = run.hashes.first() {
            self.starts.remove(*first);
        }
        self.held -= run.hashes.len();
        self.pending -= usize::from(run.is_pending());
        place.account.give_back(run.heap_bytes());
        run.hashes.len()
    }

    /// When its oldest run was used; `None` if it holds nothing.
    pub(super) fn oldest_use(&self) -> Option<Moment> {
        self.runs.get(self.runs.oldest()).map(|run| run.used)
    }

    /// Blocks held.
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

/// How many blocks two chains share. A hash stands for all blocks before it too, so the answer can be halved in on.
fn common_blocks(one: &[u64], other: &[u64]) -> usize {
    let pairs = one.len().min(other.len());
    let same = |at: usize| one.get(at) == other.get(at);
    if pairs > 0 && same(pairs - 1) {
        return pairs;
    }
    let (mut shared, mut differs) = (0, pairs);
    while shared < differs {
        let middle = shared.midpoint(differs);
        if same(middle) { shared = middle + 1 } else { differs = middle }
    }
    shared
}
