//! The index against naive ones, and the faults of other indexes by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kv_index::{ChainBlockMap, ChainIndex, ContentHash, StoredBlock};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::{EndpointId, Moment};

use super::*;

fn id(slot: u32) -> EndpointId {
    EndpointId { slot, generation: 0 }
}

fn at(micros: u64) -> Moment {
    Moment::from_micros(1_000_000 + micros)
}

/// A chain whose blocks are given by a letter each.
fn chain(blocks: &[u8]) -> Chain {
    let hashes: Vec<u64> = (1..=blocks.len()).map(|end| xxh3_64(&blocks[..end])).collect();
    Chain::of_hashes(&hashes)
}

fn index_of(endpoint_blocks: usize, bytes_max: usize) -> PrefixIndex {
    PrefixIndex::new(Settings { endpoints_max: 256, endpoint_blocks, bytes_max, ..Settings::default() })
}

fn unbounded() -> PrefixIndex {
    index_of(usize::MAX, usize::MAX)
}

/// What the index must say, block by block: who holds it, how many claims are on it, and the first of them.
#[derive(Default)]
struct Naive(BTreeMap<u32, BTreeMap<u64, (u32, u64)>>);

impl Naive {
    fn note(&mut self, slot: u32, chain: &Chain, claim: Option<u64>) {
        let held = self.0.entry(slot).or_default();
        for hash in chain.hashes() {
            let new = (0, claim.unwrap_or(0));
            let is_new = !held.contains_key(hash);
            let (claims, _) = held.entry(*hash).or_insert(new);
            *claims = if claim.is_some() && (is_new || *claims > 0) { *claims + 1 } else { 0 };
        }
    }

    fn withdraw(&mut self, slot: u32, chain: &Chain, claim: u64) {
        let held = self.0.entry(slot).or_default();
        for hash in chain.hashes() {
            match held.get_mut(hash) {
                Some((claims, born)) if *claims > 0 && *born <= claim => *claims -= 1,
                _ => continue,
            }
            if held[hash].0 == 0 {
                held.remove(hash);
            }
        }
    }

    fn blocks(&self, slot: u32, chain: &Chain) -> u32 {
        let holds = |hash: &&u64| self.0.get(&slot).is_some_and(|held| held.contains_key(hash));
        chain.hashes().iter().take_while(holds).count() as u32
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pend(u32, Vec<u8>),
    Commit(u32, Vec<u8>),
    /// Settles one of the open claims, well or badly.
    Settle(usize, bool),
    Clear(u32),
}

fn blocks() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..3, 1..12)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..10, blocks()).prop_map(|(slot, blocks)| Step::Pend(slot, blocks)),
        2 => (0_u32..10, blocks()).prop_map(|(slot, blocks)| Step::Commit(slot, blocks)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Step::Settle(which, well)),
        1 => (0_u32..10).prop_map(Step::Clear),
    ];
    prop::collection::vec(step, 0..80)
}

/// Plays the steps on an index; `naive` follows if the index forgets nothing by itself.
fn play(index: &PrefixIndex, mut naive: Option<&mut Naive>, steps: Vec<Step>, mut after: impl FnMut(Option<&Naive>)) {
    let (mut open, mut claims) = (Vec::new(), 0);
    for (time, step) in steps.into_iter().enumerate() {
        let now = at(time as u64);
        match step {
            Step::Pend(slot, blocks) => {
                let chain = chain(&blocks);
                claims += 1;
                if let Some(naive) = naive.as_mut() {
                    naive.note(slot, &chain, Some(claims));
                }
                open.push((slot, index.pend(id(slot), &chain, now), claims, chain));
            }
            Step::Commit(slot, blocks) => {
                index.commit(id(slot), &chain(&blocks), now);
                if let Some(naive) = naive.as_mut() {
                    naive.note(slot, &chain(&blocks), None);
                }
            }
            Step::Settle(which, well) if !open.is_empty() => {
                let (slot, claim, own, chain) = open.swap_remove(which % open.len());
                if well {
                    index.commit(id(slot), &chain, now);
                    if let Some(naive) = naive.as_mut() {
                        naive.note(slot, &chain, None);
                    }
                } else {
                    index.withdraw(id(slot), &chain, claim);
                    if let Some(naive) = naive.as_mut() {
                        naive.withdraw(slot, &chain, own);
                    }
                }
            }
            Step::Settle(..) => {}
            Step::Clear(slot) => {
                index.clear(id(slot));
                if let Some(naive) = naive.as_mut() {
                    naive.0.remove(&slot);
                }
            }
        }
        after(naive.as_deref());
    }
}

/// Every chain of so many blocks over the letters that [`blocks`] uses.
fn all_chains(blocks: usize) -> Vec<Chain> {
    let letter = |n: usize, place: usize| (n / 3_usize.pow(place as u32) % 3) as u8;
    (0..3_usize.pow(blocks as u32))
        .map(|n| chain(&(0..blocks).map(|place| letter(n, place)).collect::<Vec<_>>()))
        .collect()
}

proptest! {
    #[test]
    fn an_index_without_bounds_says_what_the_naive_one_says(steps in steps(), asked in prop::collection::vec(blocks(), 5)) {
        let (index, mut naive) = (unbounded(), Naive::default());
        play(&index, Some(&mut naive), steps, |naive| {
            for blocks in &asked {
                let chain = chain(blocks);
                let found = index.matches(&chain);
                for slot in 0..10 {
                    assert_eq!(found.blocks(id(slot)), naive.unwrap().blocks(slot, &chain), "{slot} {blocks:?}");
                }
            }
        });
        let held: usize = naive.0.values().map(BTreeMap::len).sum();
        let distinct: BTreeSet<u64> = naive.0.values().flat_map(BTreeMap::keys).copied().collect();
        prop_assert_eq!((index.stats().held, index.stats().blocks), (held, distinct.len()));
        (0..10).for_each(|slot| index.remove(id(slot)));
        prop_assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
    }

    #[test]
    fn a_full_endpoint_keeps_its_capacity_and_stays_closed(steps in steps(), capacity in 1_usize..20) {
        let index = index_of(capacity, usize::MAX);
        let chains = all_chains(5);
        play(&index, None, steps, |_| ());
        let holds = |slot: u32, chain: &Chain| {
            let found = index.matches(chain).blocks(id(slot)) as usize;
            // Behind the first block that is missing there is no other.
            let scattered = chain.hashes().iter().skip(found).any(|hash| index.holds(id(slot), *hash));
            assert!(!scattered, "{slot} holds more than the first {found} of {chain:?}");
        };
        (0..10).for_each(|slot| chains.iter().for_each(|chain| holds(slot, chain)));
        prop_assert!((0..10).all(|slot| index.held(id(slot)) <= capacity));
        (0..10).for_each(|slot| index.clear(id(slot)));
        prop_assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
    }

    #[test]
    fn a_bound_on_bytes_is_kept_and_what_is_held_stays_closed(steps in steps(), spare in 0_usize..40_000) {
        let floor = index_of(0, 0).stats().bytes;
        let index = index_of(usize::MAX, floor + spare);
        let chains = all_chains(5);
        play(&index, None, steps, |_| assert!(index.stats().bytes <= floor + spare));
        for (slot, chain) in (0..10).flat_map(|slot| chains.iter().map(move |chain| (slot, chain))) {
            let found = index.matches(chain).blocks(id(slot)) as usize;
            prop_assert!(!chain.hashes().iter().skip(found).any(|hash| index.holds(id(slot), *hash)));
        }
        (0..10).for_each(|slot| index.clear(id(slot)));
        prop_assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
    }
}

proptest! {
    #[test]
    fn an_index_says_what_the_crate_kv_index_says(steps in prop::collection::vec((0_u32..10, blocks(), 0_u8..8), 0..60),
                                                  asked in prop::collection::vec(blocks(), 20)) {
        let (ours, theirs) = (unbounded(), ChainIndex::new());
        let mut maps: Vec<ChainBlockMap> = (0..10).map(|_| ChainBlockMap::default()).collect();
        (0..10).for_each(|slot| assert_eq!(theirs.intern_worker(&slot.to_string()).unwrap(), slot));
        for (time, (slot, blocks, what)) in steps.into_iter().enumerate() {
            let map = &mut maps[slot as usize];
            if what == 0 {
                ours.clear(id(slot));
                theirs.apply_cleared(slot, map);
            } else {
                let chain = chain(&blocks);
                ours.commit(id(slot), &chain, at(time as u64));
                let block = |hash: &u64| StoredBlock { seq_hash: (*hash).into(), content_hash: ContentHash(*hash) };
                let stored: Vec<_> = chain.hashes().iter().map(block).collect();
                theirs.apply_stored(slot, &stored, None, map).unwrap();
            }
        }
        for chain in asked.iter().map(|blocks| chain(blocks)) {
            let content: Vec<_> = chain.hashes().iter().copied().map(ContentHash).collect();
            let (found, scores) = (ours.matches(&chain), theirs.find_matches(&content, false).scores);
            for slot in 0..10 {
                prop_assert_eq!(found.blocks(id(slot)), scores.get(&slot).copied().unwrap_or(0));
            }
        }
    }
}

#[test]
fn roots_are_evicted_last() {
    let index = index_of(5, usize::MAX);
    index.commit(id(0), &chain(b"abcd"), at(0));
    index.commit(id(0), &chain(b"xy"), at(1));
    // One of six had to go: the end of the older one, not its root.
    assert_eq!(index.matches(&chain(b"abcd")).blocks(id(0)), 3);
    assert_eq!(index.matches(&chain(b"xy")).blocks(id(0)), 2);
    // A use by lookup of another branch renews the shared root with it.
    index.commit(id(0), &chain(b"abz"), at(2));
    index.commit(id(0), &chain(b"pq"), at(3));
    assert_eq!(index.matches(&chain(b"abz")).blocks(id(0)), 3);
    assert_eq!(index.matches(&chain(b"xy")).blocks(id(0)), 0);
}

#[test]
fn one_endpoints_removal_leaves_the_others_what_they_hold() {
    let index = unbounded();
    (0..20).for_each(|slot| index.commit(id(slot), &chain(b"abc"), at(0)));
    index.remove(id(3));
    let found = index.matches(&chain(b"abc"));
    let holders: Vec<u32> = (0..20).filter(|slot| found.blocks(id(*slot)) == 3).collect();
    assert_eq!(holders, (0..20).filter(|slot| *slot != 3).collect::<Vec<_>>());
}

#[test]
fn one_models_prompts_do_not_touch_anothers() {
    let text = [7; 4 * BLOCK_BYTES];
    let of = |model| {
        let mut chainer = Chainer::new(&Root { model, ..Root::default() }, 100, 0);
        assert!(chainer.push(&text).is_continue());
        chainer.finish()
    };
    let index = unbounded();
    index.commit(id(0), &of("llama"), at(0));
    assert_eq!(index.matches(&of("qwen")).most(), 0);
    index.commit(id(1), &of("qwen"), at(1));
    index.clear(id(1));
    assert_eq!(index.matches(&of("llama")).blocks(id(0)), 4);
}

#[test]
fn the_second_of_two_equal_cold_prompts_sees_the_first() {
    let index = unbounded();
    let claim = index.pend(id(4), &chain(b"abc"), at(0));
    assert_eq!(index.matches(&chain(b"abcd")).blocks(id(4)), 3);
    index.withdraw(id(4), &chain(b"abc"), claim);
    assert_eq!(index.matches(&chain(b"abcd")).most(), 0);
}

#[test]
fn a_failure_takes_back_only_what_nobody_else_expects() {
    let index = unbounded();
    index.commit(id(0), &chain(b"a"), at(0));
    let shorter = index.pend(id(0), &chain(b"ab"), at(1));
    let first = index.pend(id(0), &chain(b"abc"), at(1));
    index.withdraw(id(0), &chain(b"ab"), shorter);
    let second = index.pend(id(0), &chain(b"abd"), at(2));
    index.withdraw(id(0), &chain(b"abc"), first);
    assert_eq!(index.matches(&chain(b"abc")).blocks(id(0)), 2, "the second expects \"ab\"");
    index.withdraw(id(0), &chain(b"abd"), second);
    assert_eq!(index.matches(&chain(b"abd")).blocks(id(0)), 1, "\"a\" is there");
}

#[test]
fn what_stays_pending_or_unused_for_too_long_goes() {
    let index = PrefixIndex::new(Settings {
        pending_life: Duration::from_secs(10),
        idle_life: Duration::from_secs(100),
        ..Settings::default()
    });
    index.pend(id(0), &chain(b"abc"), at(0));
    index.commit(id(0), &chain(b"ab"), at(0));
    let seen = |seconds: u64| {
        index.upkeep(at(seconds * 1_000_000));
        index.matches(&chain(b"abc")).blocks(id(0))
    };
    assert_eq!([seen(9), seen(11), seen(99), seen(101)], [3, 2, 2, 0]);
    assert_eq!(index.stats().expired, 3);
}

#[test]
fn the_next_endpoint_of_a_slot_starts_with_nothing() {
    let index = unbounded();
    let old = id(5);
    let new = EndpointId { slot: 5, generation: 1 };
    index.commit(old, &chain(b"abc"), at(0));
    assert_eq!(index.matches(&chain(b"abc")).blocks(new), 0);
    index.remove(old);
    // An answer that comes after its endpoint left enters nothing.
    index.commit(old, &chain(b"abc"), at(1));
    assert_eq!(index.stats().held, 0);
    index.commit(new, &chain(b"ab"), at(2));
    assert_eq!(index.matches(&chain(b"abc")).blocks(new), 2);
    assert_eq!(index.matches(&chain(b"abc")).blocks(old), 0);
    // The removal of the former one, told late, harms nobody.
    index.remove(old);
    assert_eq!(index.matches(&chain(b"abc")).blocks(new), 2);
}

#[test]
fn a_smaller_capacity_takes_effect_at_once() {
    let index = unbounded();
    index.commit(id(0), &chain(b"abcdef"), at(0));
    index.set_capacity(id(0), 2);
    assert_eq!(index.matches(&chain(b"abcdef")).blocks(id(0)), 2);
    assert_eq!(index.stats().evicted_full, 4);
    index.commit(id(0), &chain(b"abcdef"), at(1));
    assert_eq!(index.stats().held, 2, "more does not fit");
}

#[test]
fn two_threads_leave_an_index_closed_and_within_its_bounds() {
    let floor = index_of(0, 0).stats().bytes;
    let index = index_of(50, floor + 60_000);
    let chains = all_chains(5);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (index, chains) = (&index, &chains);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                for time in 0..20_000 {
                    let (slot, chain) = (id(rng.u32(..10)), &chains[rng.usize(..chains.len())]);
                    match rng.u8(..20) {
                        0 => index.clear(slot),
                        1 => index.upkeep(at(time)),
                        2..8 => index.commit(slot, chain, at(time)),
                        8..14 => {
                            let claim = index.pend(slot, chain, at(time));
                            index.withdraw(slot, chain, claim);
                        }
                        _ => assert!(index.matches(chain).most() <= 6),
                    }
                    assert!(index.bytes() <= floor + 60_000);
                }
            });
        }
    });
    for (slot, chain) in (0..10).flat_map(|slot| chains.iter().map(move |chain| (slot, chain))) {
        let found = index.matches(chain).blocks(id(slot)) as usize;
        assert!(!chain.hashes().iter().skip(found).any(|hash| index.holds(id(slot), *hash)));
    }
    (0..10).for_each(|slot| index.clear(id(slot)));
    assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
}
