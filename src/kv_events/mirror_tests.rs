//! From payloads to what is found, by a real engine's messages and by hand-made ones.

use std::time::Duration;

use super::*;
use crate::domain::EndpointId;
use crate::index::{HeldIndex, TokenPrompt};
use crate::kv_events::testing::{Pack, fixture};

const ID: EndpointId = EndpointId { slot: 0, generation: 0 };

fn mirror() -> (Arc<HeldIndex>, Arc<EventStatus>, Mirror) {
    let (index, status) = (HeldIndex::new(16 << 20, Duration::from_secs(5)), Arc::new(EventStatus::default()));
    let mirror = Mirror::new(index.open(ID).unwrap(), Arc::clone(&status));
    (index, status, mirror)
}

fn found(index: &HeldIndex, tokens: &[u32], adapter: Option<&str>, salt: Option<&str>) -> u32 {
    index.look_up(&TokenPrompt { tokens, adapter, salt }).or_guess(ID, 0)
}

#[test]
fn a_real_engines_cache_is_mirrored() {
    let (index, status, mut mirror) = mirror();
    let mut batches = fixture();
    let first: Vec<u32> = (100..300).collect();
    for (at, frame) in batches.iter().take(4).enumerate() {
        assert_eq!(frame.sequence, at as u64);
        mirror.apply(&frame.payload);
    }
    // Two blocks without adapter, two with one, one with a salt, six of another prompt.
    assert_eq!(found(&index, &first, None, None), 64);
    assert_eq!(found(&index, &first, Some("sql-lora"), None), 64);
    assert_eq!(found(&index, &first, Some("other"), None), 0);
    assert_eq!(found(&index, &first, None, Some("tenantA")), 32);
    assert_eq!(found(&index, &first, None, Some("tenantB")), 0);
    assert_eq!(found(&index, &[200; 500], None, None), 192);
    for frame in batches.split_off(4).iter().take(3) {
        mirror.apply(&frame.payload);
    }
    let count = |value: &std::sync::atomic::AtomicU64| value.load(Relaxed);
    assert_eq!((count(&status.stored), count(&status.removed)), (29, 7));
    assert_eq!((count(&status.orphans), count(&status.unreadable), count(&status.unknown)), (0, 0, 0));
    assert_eq!(index.on_tier(Tier::Device), 29 - 7);
    batches.extend(fixture().split_off(7));
    mirror.apply(&fixture()[7].payload);
    assert_eq!(index.on_tier(Tier::Device), 1, "cleared, and one stored after it");
}

#[test]
fn every_block_of_an_event_hangs_on_the_one_before_it() {
    let (index, _, mut mirror) = mirror();
    let mut pack = Pack::batch(3);
    pack.stored(None, &[1, 2], &[10, 11, 12, 13]).stored(Some(2), &[3, 4], &[14, 15, 16, 17]).removed(4);
    mirror.apply(&pack.rank(0));
    let tokens: Vec<u32> = (10..20).collect();
    assert_eq!(found(&index, &tokens, None, None), 6);
    assert_eq!(found(&index, &tokens[4..], None, None), 0, "the second event's blocks are no beginning");
}

#[test]
fn what_cannot_be_read_voids_the_cache_for_it_may_have_been_a_removal() {
    let (index, status, mut mirror) = mirror();
    mirror.set_complete(true);
    let mut pack = Pack::batch(1);
    pack.stored(None, &[1], &[10, 11]);
    mirror.apply(&pack.rank(0));
    assert_eq!(found(&index, &[10, 11, 12], None, None), 2);
    assert_eq!(index.complete_rows(), 1);
    mirror.apply(b"nonsense");
    assert_eq!((found(&index, &[10, 11, 12], None, None), index.complete_rows()), (0, 0));
    assert_eq!(status.unreadable.load(Relaxed), 1);
}

#[test]
fn orphans_are_counted_and_left_out() {
    let (index, status, mut mirror) = mirror();
    let mut pack = Pack::batch(1);
    pack.stored(Some(77), &[1], &[10, 11]);
    mirror.apply(&pack.rank(0));
    assert_eq!((status.orphans.load(Relaxed), index.blocks()), (1, 0));
}
