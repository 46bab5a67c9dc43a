//! Strings in raw JSON: where they end, and what they say, in pieces.

use std::ops::ControlFlow;

use memchr::memchr2;

/// The place behind the string whose first character is at `at`.
pub(super) fn end_of_string(text: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if text.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// Gives `sink` the characters of the string whose first one is at `at`. Returns the place behind its end.
///
/// Escapes come in swarms or hardly at all. So the text behind one is looked at by words, which are gathered with the
/// escapes' characters; after some words without an escape the rest is searched at once, and given as it is.
pub(super) fn unescape(
    text: &[u8],
    at: usize,
    sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<(), usize> {
    let (mut at, mut gathered) = (at, Gathered::default());
    loop {
        gathered.make_room(sink)?;
        let mut is_near = false;
        for _ in 0..WORDS {
            let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk) else { break };
            let plain = plain_bytes(*word);
            gathered.push(*word, plain);
            at += plain;
            is_near = plain < word.len();
            if is_near {
                break;
            }
        }
        if !is_near {
            gathered.flush(sink)?;
            let rest = text.get(at..).unwrap_or_default();
            let Some(length) = memchr2(b'"', b'\\', rest) else {
                sink(rest)?;
                return ControlFlow::Continue(text.len());
            };
            sink(rest.get(..length).unwrap_or_default())?;
            at += length;
        }
        if text.get(at) == Some(&b'"') {
            gathered.flush(sink)?;
            return ControlFlow::Continue(at + 1);
        }
        at += escape(text.get(at..).unwrap_or_default(), &mut gathered);
    }
}

/// Words looked at behind an escape.
const WORDS: usize = 4;

/// How many bytes of a word come before the first quote or backslash.
fn plain_bytes(word: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    // The high bit of each byte that is `byte`; above the lowest of them others may be set too.
    let marks = |byte: u8| {
        let differing = word ^ (ONES * u64::from(byte));
        differing.wrapping_sub(ONES) & !differing & (ONES << 7)
    };
    (marks(b'"') | marks(b'\\')).trailing_zeros() as usize / 8
}

/// Bytes that are given to the sink together.
struct Gathered {
    bytes: [u8; 512],
    length: usize,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { bytes: [0; 512], length: 0 }
    }
}

impl Gathered {
    /// Sees to it that the words and an escape fit.
    fn make_room(&mut self, sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.length + 8 * (WORDS + 1) > self.bytes.len() { self.flush(sink) } else { ControlFlow::Continue(()) }
    }

    /// Adds the first `length` of eight bytes.
    fn push(&mut self, word: [u8; 8], length: usize) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + word.len()) {
            place.copy_from_slice(&word);
            self.length += length;
        }
    }

    fn flush(&mut self, sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        self.length = 0;
        if bytes.is_empty() { ControlFlow::Continue(()) } else { sink(bytes) }
    }
}

/// Adds the character of the escape that `rest` begins with. Returns the escape's length.
fn escape(rest: &[u8], gathered: &mut Gathered) -> usize {
    let byte = match rest.get(1) {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'u') => {
            let (character, length) = unicode(rest);
            let mut word = [0; 8];
            let bytes = character.encode_utf8(&mut word).len();
            gathered.push(word, bytes);
            return length;
        }
        // A quote, a slash or a backslash stands for itself.
        Some(itself) => *itself,
        // Not valid: the text ends.
        None => return 1,
    };
    gathered.push([byte, 0, 0, 0, 0, 0, 0, 0], 1);
    2
}

/// The character of `\uXXXX`, or of two of them, and its length. Half a pair is a replacement character.
fn unicode(rest: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0);
    if let (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) = (first, unit(6)) {
        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (first.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_say_what_a_json_parser_reads(text in "[a-z\"\\\\\n\t\u{1}/\u{e9}\u{1f600}]{0,100}", long in "[a-z]{0,200}") {
            let text = format!("{long}{text}{long}");
            let json = serde_json::to_string(&text).unwrap();
            let mut said = Vec::new();
            let end = unescape(json.as_bytes(), 1, &mut |piece: &[u8]| {
                said.extend_from_slice(piece);
                ControlFlow::Continue(())
            });
            prop_assert_eq!(end.continue_value(), Some(json.len()));
            prop_assert_eq!(end_of_string(json.as_bytes(), 1), json.len());
            prop_assert_eq!(String::from_utf8(said).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'"'), Just(b'u'), any::<u8>()], 0..100)) {
            let end = unescape(&bytes, 0, &mut |_: &[u8]| ControlFlow::Continue(()));
            prop_assert!(end.continue_value().is_some_and(|end| end <= bytes.len()));
            prop_assert!(end_of_string(&bytes, 0) <= bytes.len());
        }
    }
}
