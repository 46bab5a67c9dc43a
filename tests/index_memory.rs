//! The bytes that the prefix index says it holds, against those that the allocator gave it.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use fairlead::domain::{EndpointId, Moment};
use fairlead::index::{Chain, PrefixIndex, Settings};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn id(slot: u32) -> EndpointId {
    EndpointId { slot, generation: 0 }
}

fn chain(rng: &mut fastrand::Rng, shared: &[u64], own: usize) -> Chain {
    let mut hashes = shared.to_vec();
    hashes.extend((0..own).map(|_| rng.u64(..)));
    Chain::of_hashes(&hashes)
}

/// What is allocated, once the threads that run the test have come to rest.
fn settled() -> usize {
    let (mut last, mut quiet) = (ALLOCATOR.allocated(), 0);
    for _ in 0..1_000_000 {
        std::thread::yield_now();
        let now = ALLOCATOR.allocated();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        if quiet == 10_000 {
            break;
        }
    }
    last
}

/// One test, for the allocator counts everything in the process.
#[test]
fn an_index_never_holds_more_than_its_bound_and_knows_what_it_holds() {
    let bytes_max = 8 << 20;
    let mut rng = fastrand::Rng::with_seed(1);
    let shared: Vec<u64> = (0..100).map(|_| rng.u64(..)).collect();
    let before = settled();
    let index = PrefixIndex::new(Settings { bytes_max, idle_life: Duration::from_mins(1), ..Settings::default() });
    let held = || ALLOCATOR.allocated() - before;
    assert_eq!(held(), index.stats().bytes);
    let mut most = 0;
    for step in 0..20_000_u64 {
        let chain = chain(&mut rng, &shared, 1 + step as usize % 60);
        let now = Moment::from_micros(1_000_000 + step);
        let endpoint = id(rng.u32(..300));
        let claim = index.pend(endpoint, &chain, now);
        match rng.u8(..10) {
            0 => index.withdraw(endpoint, &chain, claim),
            _ => index.commit(endpoint, &chain, now),
        }
        if step % 1000 == 0 {
            index.clear(id(rng.u32(..300)));
        }
        drop(chain);
        assert_eq!(held(), index.bytes(), "at step {step}");
        most = most.max(held());
    }
    assert!(most <= bytes_max, "{most}");
    assert!(most > bytes_max * 9 / 10, "the bound was never reached: {most}");
    assert!(index.stats().evicted_memory > 0);
    let stats = index.stats();
    assert!(stats.held > 100_000, "{stats:?}");
    (0..300).for_each(|slot| index.remove(id(slot)));
    assert_eq!((index.stats().held, index.stats().blocks), (0, 0));
    drop(index);
    assert_eq!(held(), 0);
}
