//! What is told of engine caches against a naive picture of the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::{EndpointId, Moment};

const BLOCK: u32 = 4;

fn id(slot: u32) -> EndpointId {
    EndpointId { slot, generation: 0 }
}

fn index() -> Arc<HeldIndex> {
    HeldIndex::new(64 << 20, Duration::from_secs(5))
}

/// A prompt of the tree: block n of branch b has tokens that tell its branch from `fork` on.
fn tokens(branch: u32, blocks: u32) -> Vec<u32> {
    (0..blocks * BLOCK).map(|at| if at / BLOCK < 3 { at } else { branch << 16 | at }).collect()
}

/// The same with a token behind it.
fn asked(branch: u32, blocks: u32) -> Vec<u32> {
    let mut tokens = tokens(branch, blocks);
    tokens.push(0);
    tokens
}

fn prompt(tokens: &[u32]) -> TokenPrompt<'_> {
    TokenPrompt { tokens, adapter: None, salt: None }
}

/// The blocks of a branch; keys are the engine's, unlike our hashes.
fn blocks(branch: u32, count: u32) -> Vec<StoredBlock> {
    let chain = prompt(&tokens(branch, count)).chain(BLOCK, 1000);
    chain.hashes().iter().map(|hash| StoredBlock { key: hash.wrapping_mul(3), hash: *hash }).collect()
}

fn open(index: &Arc<HeldIndex>, slot: u32) -> Row {
    let mut row = index.open(id(slot)).unwrap();
    row.set_block_tokens(BLOCK);
    row.set_complete(true);
    row
}

fn held(index: &HeldIndex, branch: u32, count: u32, slot: u32) -> Option<u32> {
    index.look_up(&prompt(&asked(branch, count))).tokens(id(slot))
}

#[test]
fn several_blocks_of_one_event_follow_each_other() {
    let index = index();
    let mut row = open(&index, 3);
    row.store(None, &blocks(0, 5), Tier::Device).unwrap();
    assert_eq!(held(&index, 0, 9, 3), Some(20));
    let all = blocks(0, 8);
    row.store(Some(all[4].key), &all[5..], Tier::Device).unwrap();
    assert_eq!(held(&index, 0, 9, 3), Some(32));
    assert_eq!(held(&index, 1, 9, 3), Some(12), "what branches share");
    assert_eq!(held(&index, 0, 9, 2), None, "nothing is known of others");
}

#[test]
fn a_block_without_its_parent_is_refused_and_one_that_lost_it_is_not_found() {
    let index = index();
    let mut row = open(&index, 0);
    let all = blocks(0, 6);
    assert_eq!(row.store(Some(all[2].key), &all[3..], Tier::Device), Err(StoreError::Orphan));
    row.store(None, &all, Tier::Device).unwrap();
    row.remove(all[2].key, None);
    assert_eq!(held(&index, 0, 6, 0), Some(8));
    row.store(Some(all[1].key), &all[2..3], Tier::Device).unwrap();
    assert_eq!(held(&index, 0, 6, 0), Some(24), "what hung on it came back");
}

#[test]
fn removal_at_one_cache_leaves_the_others() {
    let index = index();
    let mut rows: Vec<Row> = (0..100).map(|slot| open(&index, slot)).collect();
    for row in &mut rows {
        row.store(None, &blocks(0, 5), Tier::Device).unwrap();
    }
    for block in blocks(0, 5).iter().rev() {
        rows[70].remove(block.key, Some(Tier::Device));
    }
    assert_eq!((held(&index, 0, 5, 70), held(&index, 0, 5, 71)), (Some(0), Some(20)));
    assert!(rows[70].is_empty());
}

#[test]
fn a_block_is_gone_when_it_is_on_no_tier_any_longer() {
    let index = index();
    let mut row = open(&index, 0);
    row.store(None, &blocks(0, 1), Tier::Device).unwrap();
    row.store(None, &blocks(0, 1), Tier::Host).unwrap();
    assert_eq!((index.on_tier(Tier::Device), index.on_tier(Tier::Host)), (1, 1));
    row.remove(blocks(0, 1)[0].key, Some(Tier::Device));
    assert_eq!(held(&index, 0, 1, 0), Some(4));
    row.remove(blocks(0, 1)[0].key, Some(Tier::Host));
    assert_eq!(held(&index, 0, 1, 0), Some(0));
    assert_eq!((index.on_tier(Tier::Device), index.on_tier(Tier::Host)), (0, 0));
}

#[test]
fn ranks_of_an_endpoint_count_as_the_best_of_them() {
    let index = index();
    let (mut first, mut second) = (open(&index, 0), open(&index, 0));
    first.store(None, &blocks(0, 2), Tier::Device).unwrap();
    second.store(None, &blocks(0, 4), Tier::Device).unwrap();
    assert_eq!(held(&index, 0, 5, 0), Some(16));
    second.clear();
    assert_eq!(held(&index, 0, 5, 0), Some(8));
    drop(first);
    assert_eq!(held(&index, 0, 5, 0), Some(0));
}

#[test]
fn where_more_may_be_held_than_told_the_guess_counts_if_it_is_more() {
    let index = index();
    let mut row = open(&index, 0);
    row.store(None, &blocks(0, 2), Tier::Device).unwrap();
    let look = || index.look_up(&prompt(&tokens(0, 5)));
    assert_eq!((look().or_guess(id(0), 20), look().or_guess(id(1), 20)), (8, 20));
    row.set_complete(false);
    assert_eq!((look().or_guess(id(0), 20), look().or_guess(id(0), 4)), (20, 8));
    let mut held = look();
    held.raise(id(0), 12);
    held.raise(id(5), 16);
    assert_eq!((held.or_guess(id(0), 4), held.or_guess(id(5), 0), held.most()), (12, 16, 16));
}

fn expect(index: &Arc<HeldIndex>, tokens: &[u32], now: Moment) -> Option<Awaited> {
    index.expect(id(0), &index.look_up(&prompt(tokens)), now)
}

fn at(seconds: u64) -> Moment {
    Moment::from_micros(seconds * 1_000_000)
}

#[test]
fn an_expectation_counts_until_its_short_life_is_over() {
    let index = index();
    let mut row = open(&index, 0);
    row.store(None, &blocks(0, 2), Tier::Device).unwrap();
    let all = tokens(0, 6);
    let awaited = expect(&index, &all, at(1)).unwrap();
    assert_eq!(held(&index, 0, 6, 0), Some(24));
    drop(awaited);
    assert_eq!(held(&index, 0, 6, 0), Some(8), "the engine failed");
    expect(&index, &all, at(1)).unwrap().answered(id(0));
    index.upkeep(at(3));
    assert_eq!(held(&index, 0, 6, 0), Some(24));
    index.upkeep(at(9));
    assert_eq!(held(&index, 0, 6, 0), Some(8), "the engine never told of it");
    expect(&index, &all, at(9)).unwrap().answered(id(1));
    assert_eq!(held(&index, 0, 6, 0), Some(8), "another one answered");
    expect(&index, &all, at(9)).unwrap().answered(id(0));
    row.clear();
    assert_eq!(held(&index, 0, 6, 0), Some(0), "an emptied cache comes to nothing either");
}

#[test]
fn once_an_engine_told_of_a_prompt_only_what_it_tells_counts() {
    let index = index();
    let mut row = open(&index, 0);
    let all = tokens(0, 6);
    expect(&index, &all, at(1)).unwrap().answered(id(0));
    expect(&index, &all, at(1)).unwrap().answered(id(0));
    let told = blocks(0, 6);
    row.store(None, &told, Tier::Device).unwrap();
    assert!(expect(&index, &all, at(1)).is_none(), "it is all there");
    for block in told[4..].iter().rev() {
        row.remove(block.key, None);
    }
    assert_eq!(held(&index, 0, 6, 0), Some(16), "the engine evicted the rest");
}

#[test]
fn memory_is_bounded_and_given_back() {
    const BOUND: usize = 6 << 20;
    let index = HeldIndex::new(BOUND, Duration::from_secs(1));
    let mut row = open(&index, 0);
    let taken = (0..40_000).take_while(|branch| row.store(None, &blocks(*branch, 20), Tier::Device).is_ok()).count();
    assert!((100..40_000).contains(&taken), "{taken}");
    let full = index.bytes();
    assert!(full <= BOUND && index.refused() > 0, "{full}");
    assert_eq!(held(&index, 1, 20, 0), Some(80));
    drop(row);
    assert_eq!(index.blocks(), 0);
    assert!(index.bytes() < full / 2, "{} of {full}", index.bytes());
}

#[derive(Debug, Clone)]
enum Happening {
    Store { branch: u32, from: u32, to: u32, tier: usize },
    Remove { branch: u32, at: u32, tier: Option<usize> },
    Clear,
}

fn happening() -> impl Strategy<Value = Happening> {
    let store = (0..3_u32, 0..8_u32, 1..9_u32, 0..3_usize).prop_map(|(branch, from, length, tier)| Happening::Store {
        branch,
        from,
        to: (from + length).min(10),
        tier,
    });
    let remove = (0..3_u32, 0..10_u32, prop::option::of(0..3_usize)).prop_map(|(branch, at, tier)| Happening::Remove {
        branch,
        at,
        tier,
    });
    prop_oneof![6 => store, 6 => remove, 1 => Just(Happening::Clear)]
}

/// A cache as a set of blocks by tier; which one hangs on which is in their hashes.
#[derive(Default)]
struct Naive(BTreeMap<u64, BTreeSet<usize>>);

impl Naive {
    fn found(&self, branch: u32) -> u32 {
        blocks(branch, 10).iter().take_while(|block| self.0.contains_key(&block.key)).count() as u32 * BLOCK
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_a_naive_picture_finds(happenings in prop::collection::vec((0..2_u32, happening()), 0..60)) {
        let index = index();
        let mut rows = [open(&index, 0), open(&index, 1)];
        let mut naive = [Naive::default(), Naive::default()];
        for (who, happening) in happenings {
            let (row, naive) = (&mut rows[who as usize], &mut naive[who as usize]);
            match happening {
                Happening::Store { branch, from, to, tier } => {
                    let all = blocks(branch, to);
                    let parent = from.checked_sub(1).map(|at| all[at as usize].key);
                    // Engines name only parents that they have.
                    if parent.is_none_or(|key| naive.0.contains_key(&key)) {
                        row.store(parent, &all[from as usize..], Tier::ALL[tier]).unwrap();
                        for block in &all[from as usize..] {
                            naive.0.entry(block.key).or_default().insert(tier);
                        }
                    }
                }
                Happening::Remove { branch, at, tier } => {
                    let key = blocks(branch, 10)[at as usize].key;
                    row.remove(key, tier.map(|tier| Tier::ALL[tier]));
                    if let Some(tiers) = naive.0.get_mut(&key) {
                        tiers.retain(|known| tier.is_some_and(|tier| tier != *known));
                        if tiers.is_empty() {
                            naive.0.remove(&key);
                        }
                    }
                }
                Happening::Clear => {
                    row.clear();
                    naive.0.clear();
                }
            }
        }
        for (slot, naive) in naive.iter().enumerate() {
            for branch in 0..3 {
                prop_assert_eq!(held(&index, branch, 10, slot as u32), Some(naive.found(branch)));
            }
        }
        let on_tiers: i64 = Tier::ALL.iter().map(|tier| index.on_tier(*tier)).sum();
        let meant: usize = naive.iter().flat_map(|naive| naive.0.values()).map(BTreeSet::len).sum();
        prop_assert_eq!(on_tiers, meant.cast_signed() as i64);
        drop(rows);
        prop_assert_eq!(index.blocks(), 0);
    }
}
