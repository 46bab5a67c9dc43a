//! AIBrix's `prefix-cache` as it is, oddities included: what its users have today, to compare with.
//!
//! From its documentation and behaviour, with the settings that its manifests ship: blocks of 128 bytes, a load guard of
//! 16 requests, two standard deviations. It is no part of Fairlead.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairlead::domain::{EndpointId, Moment};
use fairlead::routing::{Candidates, Decision, Needs, RequestView, Router, Trace};
use fairlead::state::Endpoint;

/// Difference of request counts above which only the pods with the fewest are eligible
/// (`AIBRIX_PREFIX_CACHE_POD_RUNNING_REQUEST_IMBALANCE_ABS_COUNT`).
const IMBALANCE: u32 = 16;
/// Standard deviations above the mean up to which a pod with a match is taken
/// (`AIBRIX_PREFIX_CACHE_STANDARD_DEVIATION_FACTOR`).
const DEVIATIONS: f64 = 2.0;
/// Blocks of the table, over all models and pods (`AIBRIX_PREFIX_CACHE_BLOCK_NUMBER`): 200,000 of 128 bytes, which are
/// half as many of the 256 bytes that chains are made of here.
const BLOCKS: usize = 100_000;
/// Blocks that were not written for so long are removed (`AIBRIX_PREFIX_CACHE_EVICTION_DURATION_MINS`).
const LIFE: Duration = Duration::from_mins(20);

/// One process-wide table: block to the pods it was ever sent to.
#[derive(Debug, Default)]
struct Table {
    blocks: HashMap<u64, Block>,
    /// Blocks by the order in which they were last written.
    by_age: BTreeMap<u64, u64>,
    writes: u64,
}

#[derive(Debug, Default)]
struct Block {
    /// A pod does not expire while the block lives, nor when it is gone.
    pods: Vec<EndpointId>,
    write: u64,
    written: Moment,
}

impl Table {
    /// Blocks in a row from the first that each of `eligible` is recorded at; those with none are left out.
    fn matches(&self, hashes: &[u64], eligible: &[usize], candidates: Candidates<'_>) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut surviving = eligible.to_vec();
        for (at, hash) in hashes.iter().enumerate() {
            let pods = self.blocks.get(hash).map_or(&[][..], |block| &block.pods);
            let (kept, lost): (Vec<_>, Vec<_>) =
                surviving.into_iter().partition(|pod| pods.contains(&candidates.at(*pod).id));
            found.extend(lost.into_iter().filter(|_| at > 0).map(|pod| (pod, at)));
            surviving = kept;
            if surviving.is_empty() {
                return found;
            }
        }
        found.extend(surviving.into_iter().filter(|_| !hashes.is_empty()).map(|pod| (pod, hashes.len())));
        found
    }

    /// Writes every block for a pod, root first.
    fn insert(&mut self, hashes: &[u64], pod: EndpointId, now: Moment) {
        for hash in hashes {
            self.writes += 1;
            let block = self.blocks.entry(*hash).or_default();
            self.by_age.remove(&block.write);
            (block.write, block.written) = (self.writes, now);
            if !block.pods.contains(&pod) {
                block.pods.push(pod);
            }
            self.by_age.insert(self.writes, *hash);
            if self.blocks.len() > BLOCKS {
                self.drop_oldest();
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, hash)) = self.by_age.pop_first() {
            self.blocks.remove(&hash);
        }
    }

    fn sweep(&mut self, now: Moment) {
        while let Some(hash) = self.by_age.first_key_value().map(|(_, hash)| *hash)
            && self.blocks.get(&hash).is_some_and(|block| block.written.until(now) > LIFE)
        {
            self.drop_oldest();
        }
    }
}

/// AIBrix's `prefix-cache`.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache(Mutex<Table>);

impl PrefixCache {
    /// A new one.
    pub(crate) fn build() -> Arc<dyn Router> {
        Arc::new(Self::default())
    }
}

/// Requests that the gateway itself has at a pod.
fn count(endpoint: &Endpoint) -> u32 {
    endpoint.live.ours.in_flight()
}

/// The first of the pods with a match that the guard lets through: longest match first, then fewest requests.
fn matched(mut found: Vec<(usize, usize)>, counts: &[u32], blocks: usize, rng: &mut fastrand::Rng) -> Option<usize> {
    let mean = counts.iter().copied().map(f64::from).sum::<f64>() / counts.len() as f64;
    let squares: f64 = counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum();
    let deviation = if counts.len() > 1 { (squares / (counts.len() - 1) as f64).sqrt() } else { 0.0 };
    let of = |pod: usize| counts.get(pod).copied().unwrap_or(0);
    rng.shuffle(&mut found);
    found.sort_by_key(|(pod, length)| (std::cmp::Reverse(100 * length / blocks), of(*pod)));
    let is_let_through = |pod: &usize| f64::from(of(*pod)) <= mean + DEVIATIONS * deviation;
    found.into_iter().map(|(pod, _)| pod).find(is_let_through)
}

impl Router for PrefixCache {
    fn needs(&self) -> Needs {
        Needs { prefix: true, ..Needs::default() }
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, _: &mut Trace) -> Decision {
        let mut rng = request.rng();
        let hashes = request.asked.prefix.hashes();
        let counts: Vec<u32> = candidates.iter().map(|endpoint| count(endpoint)).collect();
        let (least, most) = counts.iter().fold((u32::MAX, 0), |(least, most), n| (least.min(*n), most.max(*n)));
        let with_least = || (0..counts.len()).filter(|pod| counts.get(*pod) == Some(&least));
        let eligible: Vec<_> =
            if most - least > IMBALANCE { with_least().collect() } else { (0..counts.len()).collect() };
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.sweep(request.now);
        let found = table.matches(hashes, &eligible, candidates);
        let fewest: Vec<_> = with_least().collect();
        let chosen = matched(found, &counts, hashes.len().max(1), &mut rng).or_else(|| rng.choice(fewest));
        let endpoint = candidates.at(chosen.unwrap_or(0));
        table.insert(hashes, endpoint.id, request.now);
        Decision::Send(Arc::clone(endpoint))
    }
}
