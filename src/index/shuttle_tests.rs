//! Threads on one index, in thousands of random orders: `make test-shuttle`.

use std::sync::Arc;
use std::time::Duration;

use shuttle::{check_random, thread};

use crate::domain::{EndpointId, Moment};

use super::*;

const ROUNDS: usize = 3000;

fn id(generation: u32) -> EndpointId {
    EndpointId { slot: 3, generation }
}

fn at(micros: u64) -> Moment {
    Moment::from_micros(1_000_000 + micros)
}

/// Chains that share their first two blocks.
fn chains() -> [Chain; 2] {
    [Chain::of_hashes(&[11, 22, 33, 44]), Chain::of_hashes(&[11, 22, 55])]
}

fn index(spare: usize, endpoint_blocks: usize) -> Arc<PrefixIndex> {
    let settings = |bytes_max| Settings { endpoints_max: 4, endpoint_blocks, bytes_max, ..Settings::default() };
    let floor = PrefixIndex::new(settings(0)).bytes();
    Arc::new(PrefixIndex::new(settings(floor + spare)))
}

/// With a block, all before it.
fn assert_closed(index: &PrefixIndex, endpoint: EndpointId) {
    for chain in chains() {
        let found = index.matches(&chain).blocks(endpoint) as usize;
        assert!(!chain.hashes().iter().skip(found).any(|hash| index.holds(endpoint, *hash)), "{found} of {chain:?}");
        assert_eq!(index.blocks(endpoint, &chain) as usize, found);
    }
}

/// Nothing is left of an endpoint that is cleared, and nothing in the shared table.
fn assert_empties(index: &PrefixIndex, endpoint: EndpointId) {
    index.clear(endpoint);
    assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
}

#[test]
fn shuttle_commits_withdrawals_and_a_clear_leave_what_is_held_closed() {
    check_random(
        || {
            let index = index(1 << 20, 100);
            let [long, short] = chains();
            let commits = thread::spawn({
                let (index, long) = (Arc::clone(&index), long.clone());
                move || {
                    let claim = index.pend(id(0), &long, at(1));
                    index.commit(id(0), &long, at(2));
                    drop(claim);
                }
            });
            let fails = thread::spawn({
                let index = Arc::clone(&index);
                move || {
                    let claim = index.pend(id(0), &short, at(1));
                    assert!(index.matches(&short).most() <= 3);
                    index.withdraw(id(0), &short, claim);
                }
            });
            let clears = thread::spawn({
                let index = Arc::clone(&index);
                move || {
                    index.clear(id(0));
                    index.upkeep(at(3));
                }
            });
            [commits, fails, clears].into_iter().for_each(|thread| thread.join().unwrap());
            assert_closed(&index, id(0));
            assert_empties(&index, id(0));
        },
        ROUNDS,
    );
}

#[test]
fn shuttle_the_next_endpoint_of_a_slot_keeps_its_own_and_gets_nothing_of_the_former() {
    check_random(
        || {
            let index = index(1 << 20, 100);
            let [long, short] = chains();
            index.commit(id(0), &long, at(0));
            let leaves = thread::spawn({
                let index = Arc::clone(&index);
                move || index.remove(id(0))
            });
            let late = thread::spawn({
                let (index, long) = (Arc::clone(&index), long.clone());
                move || index.commit(id(0), &long, at(2))
            });
            let comes = thread::spawn({
                let (index, short) = (Arc::clone(&index), short.clone());
                move || index.commit(id(1), &short, at(3))
            });
            [leaves, late, comes].into_iter().for_each(|thread| thread.join().unwrap());
            let found = index.matches(&long);
            assert_eq!(found.blocks(id(0)), 0);
            // It came while the slot was being emptied, or it is there.
            assert!([0, 2].contains(&found.blocks(id(1))) && [0, 3].contains(&index.blocks(id(1), &short)));
            assert_closed(&index, id(1));
            assert_empties(&index, id(1));
        },
        ROUNDS,
    );
}

#[test]
fn shuttle_a_full_index_stays_within_its_bytes_and_closed() {
    check_random(
        || {
            let index = index(2500, 3);
            let bound = index.bytes() + 2500;
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let index = Arc::clone(&index);
                    thread::spawn(move || {
                        let endpoint = EndpointId { slot: thread % 2, generation: 0 };
                        for (time, chain) in chains().iter().enumerate() {
                            let claim = index.pend(endpoint, chain, at(time as u64));
                            index.commit(endpoint, chain, at(time as u64));
                            drop(claim);
                            assert!(index.bytes() <= bound);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            for slot in 0..2 {
                let endpoint = EndpointId { slot, generation: 0 };
                assert!(index.held(endpoint) <= 3);
                assert_closed(&index, endpoint);
                index.clear(endpoint);
            }
            assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
        },
        ROUNDS,
    );
}

#[test]
fn shuttle_a_told_prompt_is_expected_no_longer_whoever_comes_first() {
    const TOKENS: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    check_random(
        || {
            let prompt = TokenPrompt { tokens: &TOKENS, adapter: None, salt: None };
            let index = HeldIndex::with_endpoints(4, 8 << 20, Duration::from_secs(10));
            let mut row = index.open(id(0)).unwrap();
            row.set_block_tokens(2);
            row.set_complete(true);
            let sends = |answers: bool| {
                let index = Arc::clone(&index);
                move || {
                    let held = index.look_up(&prompt);
                    match index.expect(id(0), &held, at(1)) {
                        Some(awaited) if answers => awaited.answered(id(0)),
                        awaited => drop(awaited),
                    }
                }
            };
            let (answered, failed) = (thread::spawn(sends(true)), thread::spawn(sends(false)));
            let tells = thread::spawn(move || {
                let chain = prompt.chain(2, 9);
                let blocks: Vec<_> =
                    chain.hashes().iter().map(|hash| StoredBlock { key: *hash, hash: *hash }).collect();
                row.store(None, &blocks, Tier::Device).unwrap();
                row
            });
            [answered, failed].into_iter().for_each(|thread| thread.join().unwrap());
            let row = tells.join().unwrap();
            assert_eq!(index.expected.counts(), (0, 0, 0));
            assert_eq!(index.look_up(&prompt).tokens(id(0)), Some(8));
            drop(row);
            assert_eq!(index.blocks(), 0);
        },
        ROUNDS,
    );
}
