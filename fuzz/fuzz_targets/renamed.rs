//! A reply's model gets another name however the reply is cut, and nothing else changes. The first byte is the size of the
//! chunks, and whether it is a stream.
#![no_main]

use fairlead::openai::Renamed;
use libfuzzer_sys::fuzz_target;

/// Two names of the same length, so that the place of every byte stays.
const FROM: &str = "served";
const TO: &str = "asked.";

fuzz_target!(|data: &[u8]| {
    let Some((size, reply)) = data.split_first() else {
        return;
    };
    let renamed = || if size % 2 == 0 { Renamed::in_json(FROM, TO) } else { Renamed::in_events(FROM, TO) };
    let whole = renamed().pass(reply, true).unwrap_or_else(|| reply.to_vec());
    let (mut split, mut answer) = (Vec::new(), renamed());
    for chunk in reply.chunks(usize::from(size / 2).max(1)) {
        split.extend(answer.pass(chunk, false).unwrap_or_else(|| chunk.to_vec()));
    }
    split.extend(answer.finish());
    assert_eq!(split, whole);
    // A name with escapes is longer.
    if !reply.contains(&b'\\') {
        assert_eq!(whole.len(), reply.len());
        let mut differing = whole.iter().zip(reply).enumerate().filter(|(_, (one, other))| one != other);
        assert!(differing.all(|(at, _)| (at.saturating_sub(5)..=at).any(|at| reply[at..].starts_with(FROM.as_bytes()))));
    }
});
