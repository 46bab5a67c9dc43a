//! A streamed reply says the same however it is cut. The first byte is the size of the chunks.
#![no_main]

use fairlead::openai::sse::Scanner;
use fairlead::openai::usage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, stream)) = data.split_first() else {
        return;
    };
    let mut whole = Scanner::new();
    whole.feed(stream);
    let mut split = Scanner::new();
    for chunk in stream.chunks(usize::from(*size).max(1)) {
        split.feed(chunk);
    }
    assert_eq!(split.finish(), whole.finish());
    let _ = usage::from_body(stream);
});
