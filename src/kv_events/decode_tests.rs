//! What a real vLLM sent, the older form, and what nobody should send.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::kv_events::testing::{Pack, bytes_of_hex, fixture};

#[test]
fn what_a_real_vllm_sent_is_read_as_it_was_meant() {
    for frame in fixture() {
        let batch = decode(&frame.payload).unwrap();
        let decoded: Vec<Value> = frame.decoded[1].as_array().unwrap().clone();
        assert_eq!((batch.events.len(), batch.unknown), (decoded.len(), 0));
        for (event, meant) in batch.events.iter().zip(decoded) {
            match event {
                Event::Stored(stored) => {
                    assert_eq!(meant["type"], "BlockStored");
                    assert_eq!(meant["token_ids"], serde_json::json!(stored.tokens));
                    assert_eq!(meant["lora_name"].as_str(), stored.adapter.as_deref());
                    assert_eq!((stored.tier, stored.group, stored.is_full), (Some(Tier::Device), Some(0), true));
                    if meant["block_hashes"][0].is_number() {
                        assert_eq!(meant["block_hashes"], serde_json::json!(stored.keys));
                        assert_eq!(meant["parent_block_hash"].as_u64(), stored.parent);
                    }
                }
                Event::Removed { keys, .. } => {
                    assert_eq!(meant["type"], "BlockRemoved");
                    assert_eq!(keys.len(), meant["block_hashes"].as_array().unwrap().len());
                }
                Event::Cleared => assert_eq!(meant["type"], "AllBlocksCleared"),
                Event::Unreadable => panic!("{meant}"),
            }
        }
    }
}

#[test]
fn a_salt_and_an_adapter_are_told_apart() {
    let batches: Vec<Batch> = fixture().iter().map(|frame| decode(&frame.payload).unwrap()).collect();
    let stored = |at: usize| match &batches[at].events[0] {
        Event::Stored(stored) => stored.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((stored(0).adapter, stored(0).extras), (None, vec![0, 0]));
    assert_eq!((stored(1).adapter.as_deref(), stored(1).extras), (Some("sql-lora"), vec![0, 0]));
    assert_eq!((stored(2).adapter, stored(2).extras), (None, vec![salt_digest("tenantA")]));
}

#[test]
fn a_whole_digest_stands_for_its_last_eight_bytes() {
    // Sent by an engine that was told to send whole digests.
    let payload = "93cb41dac054da8380939184a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391c4206afbc2c18272\
                   5ff45931d00eee5d997bcf0c694a42d038f3d7ed9e0e868721f0a66d656469756da3475055a967726f75705f6964780000";
    let batch = decode(&bytes_of_hex(payload)).unwrap();
    let removed = Event::Removed {
        keys: vec![0xd7ed_9e0e_8687_21f0],
        tier: Some(Tier::Device),
        group: Some(0),
        is_remote: false,
    };
    assert_eq!(batch.events, [removed]);
}

#[test]
fn the_array_form_is_read_and_may_end_early() {
    let mut pack = Pack::batch(3);
    pack.array(7).text("BlockStored").array(2).int(11).int(12).int(7).array(4).int(1).int(2).int(3).int(4).int(2);
    pack.nil().text("GPU");
    pack.array(2).text("BlockRemoved").array(1).negative(-3);
    pack.array(1).text("AllBlocksCleared");
    let batch = decode(&pack.rank(0)).unwrap();
    let Event::Stored(stored) = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!((stored.keys.as_slice(), stored.parent, stored.block_tokens), (&[11, 12][..], Some(7), 2));
    assert_eq!(
        (stored.tokens.as_slice(), stored.tier, stored.is_anonymous),
        (&[1, 2, 3, 4][..], Some(Tier::Device), false)
    );
    let keys = vec![(-3_i64).cast_unsigned()];
    assert_eq!(batch.events[1], Event::Removed { keys, tier: None, group: None, is_remote: false });
    assert_eq!(batch.events[2], Event::Cleared);
}

#[test]
fn unknown_kinds_and_fields_are_passed_over_and_an_unreadable_event_spoils_no_other() {
    let mut pack = Pack::batch(4);
    pack.map(2).text("shape").map(1).text("x").nil().text("type").text("BlockMoved");
    pack.map(3).text("type").text("BlockStored").text("block_hashes").text("?").text("token_ids").array(0);
    pack.array(3).text("AllBlocksCleared").text("later").int(5);
    pack.map(3).text("wisdom").array(1).map(0).text("block_hashes").array(1).int(9).text("type").text("BlockRemoved");
    let batch = decode(&pack.bytes()).unwrap();
    let removed = Event::Removed { keys: vec![9], tier: None, group: None, is_remote: false };
    assert_eq!(batch, Batch { events: vec![Event::Unreadable, Event::Cleared, removed], unknown: 1 });
}

#[test]
fn tokens_that_do_not_fill_the_blocks_make_an_event_unreadable() {
    let mut pack = Pack::batch(1);
    pack.array(5).text("BlockStored").array(2).int(1).int(2).nil().array(3).int(1).int(2).int(3).int(2);
    assert_eq!(decode(&pack.bytes()).unwrap().events, [Event::Unreadable]);
}

#[test]
fn a_payload_that_is_no_batch_is_refused() {
    for bytes in [&b""[..], b"\x90", b"\x93\xc0", b"\x92\xc0\xdd\xff\xff\xff\xff", b"\x81\xa1x\x01"] {
        assert_eq!(decode(bytes), None, "{bytes:?}");
    }
    assert_eq!(decode(&vec![0xc0; PAYLOAD_BYTES_MAX + 1]), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode(&bytes);
    }

    #[test]
    fn a_real_batch_with_bytes_changed_is_survived(which in 0..10_usize, changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let frames = fixture();
        let mut payload = frames[which % frames.len()].payload.clone();
        for (at, byte) in changes {
            let at = usize::from(at) % payload.len();
            payload[at] = byte;
        }
        if let Some(batch) = decode(&payload) {
            prop_assert!(batch.events.len() + batch.unknown <= payload.len());
        }
    }
}
