//! Event payloads: no panic, no more events than bytes, and every block as many tokens as it says.
#![no_main]

use fairlead::kv_events::{Event, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Some(batch) = decode(payload) else { return };
    assert!(batch.events.len() + batch.unknown <= payload.len());
    for event in batch.events {
        if let Event::Stored(stored) = event {
            assert_eq!(stored.tokens.len(), stored.keys.len() * stored.block_tokens as usize);
        }
    }
});
