//! That expectations are bounded, and that nothing stays of those that ended.

use std::thread;
use std::time::Duration;

use super::expected::Expected;
use super::*;
use crate::domain::{EndpointId, Moment};

const LIFE: Duration = Duration::from_secs(10);
const NOTHING: (usize, usize, usize) = (0, 0, 0);

fn id(slot: u32) -> EndpointId {
    EndpointId { slot, generation: 0 }
}

fn at(seconds: u64) -> Moment {
    Moment::from_micros(seconds * 1_000_000)
}

fn expected(bytes_max: usize) -> Expected {
    Expected::new(bytes_max, 128, LIFE)
}

/// A prompt of its own behind `shared` blocks that all have.
fn chain(number: u64, shared: u64, blocks: u64) -> Chain {
    let own = |at| if at < shared { at } else { number << 20 | at };
    (0..blocks).map(|at| (own(at) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<u64>>().into()
}

#[test]
fn equal_prompts_at_an_endpoint_share_the_memory_of_one_chain() {
    let expected = expected(8 << 20);
    let long = chain(1, 0, 6250);
    let keys: Vec<_> = (0..1000).map(|_| expected.expect(id(0), &chain(1, 0, 6250), at(1)).unwrap()).collect();
    let (open, blocks, bytes) = expected.counts();
    assert_eq!((open, blocks), (1000, 6250));
    assert!(bytes < 2 * size_of_val(long.hashes()) + 1000 * 256, "{bytes}");
    for key in keys {
        assert_eq!(expected.matches(&long).blocks(id(0)), 6250, "somebody expects it still");
        expected.withdraw(key);
    }
    assert_eq!(expected.counts(), NOTHING);
}

#[test]
fn expectations_of_many_prompts_stay_within_their_bytes() {
    const BOUND: usize = 2 << 20;
    let expected = expected(BOUND);
    let had = (0..1000).filter(|number| expected.expect(id(0), &chain(*number, 6000, 6250), at(1)).is_some()).count();
    assert!((10..100).contains(&had), "{had}");
    assert_eq!(expected.refused(), 1000 - had as u64);
    assert!(expected.bytes() <= BOUND, "{}", expected.bytes());
    expected.upkeep(at(12));
    assert_eq!(expected.counts(), NOTHING);
    assert!(expected.expect(id(0), &chain(0, 0, 6250), at(12)).is_some(), "there is room again");
}

#[test]
fn expectations_of_one_prompt_stay_within_their_bytes() {
    const BOUND: usize = 2 << 20;
    let expected = expected(BOUND);
    let had = (0..20_000).filter(|_| expected.expect(id(0), &chain(1, 0, 2), at(1)).is_some()).count();
    assert!((1000..20_000).contains(&had), "{had}");
    assert!(expected.bytes() <= BOUND && expected.refused() > 0, "{}", expected.bytes());
    expected.told(id(0), *chain(1, 0, 2).hashes().last().unwrap());
    assert_eq!(expected.counts(), NOTHING);
}

#[test]
fn an_expectation_whose_life_is_over_holds_nothing_that_others_expect() {
    let expected = expected(8 << 20);
    expected.expect(id(0), &chain(1, 5, 9), at(1)).unwrap();
    let key = expected.expect(id(0), &chain(2, 5, 9), at(10)).unwrap();
    expected.upkeep(at(12));
    assert_eq!(expected.matches(&chain(2, 5, 9)).blocks(id(0)), 9, "it is expected still");
    expected.withdraw(key);
    assert_eq!(expected.counts(), NOTHING);
}

#[test]
fn an_endpoint_that_leaves_takes_its_own_expectations_along() {
    let expected = expected(8 << 20);
    // They are in one part of the list.
    let (goes, stays) = (id(1), id(65));
    let all = chain(1, 0, 9);
    expected.expect(goes, &all, at(1)).unwrap();
    let key = expected.expect(stays, &all, at(1)).unwrap();
    expected.remove(goes);
    assert_eq!((expected.matches(&all).blocks(goes), expected.matches(&all).blocks(stays)), (0, 9));
    assert_eq!(expected.counts().0, 1);
    expected.withdraw(key);
    assert_eq!(expected.counts(), NOTHING);
}

#[test]
fn threads_that_expect_tell_and_withdraw_leave_nothing() {
    const ROUNDS: u64 = 500;
    let expected = expected(8 << 20);
    let told = |number: u64| {
        let last = *chain(number, 5, 40).hashes().last().unwrap();
        (0..2).for_each(|slot| expected.told(id(slot), last));
    };
    thread::scope(|threads| {
        for thread in 0..4_u64 {
            let expected = &expected;
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    let endpoint = id((round % 2) as u32);
                    let key = expected.expect(endpoint, &chain(round % 7, 5, 40), at(1)).unwrap();
                    if (round + thread).is_multiple_of(3) {
                        expected.withdraw(key);
                    }
                }
            });
        }
        threads.spawn(|| (0..ROUNDS).for_each(|round| told(round % 7)));
        threads.spawn(|| (0..ROUNDS).for_each(|_| expected.upkeep(at(2))));
    });
    (0..7).for_each(told);
    assert_eq!(expected.counts(), NOTHING);
}
