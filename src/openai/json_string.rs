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
pub(super) fn unescape(
    text: &[u8],
    at: usize,
    sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<(), usize> {
    let mut at = at;
    while let Some(rest) = text.get(at..) {
        let Some(length) = memchr2(b'"', b'\\', rest) else {
            sink(rest)?;
            break;
        };
        let (plain, rest) = rest.split_at(length);
        if !plain.is_empty() {
            sink(plain)?;
        }
        at += length;
        if rest.first() == Some(&b'"') {
            return ControlFlow::Continue(at + 1);
        }
        at += escape(rest, sink)?;
    }
    ControlFlow::Continue(text.len())
}

/// Gives `sink` the character of one escape. Returns the escape's length.
fn escape(rest: &[u8], sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<(), usize> {
    let plain: &[u8] = match rest.get(1) {
        Some(b'n') => b"\n",
        Some(b't') => b"\t",
        Some(b'r') => b"\r",
        Some(b'b') => b"\x08",
        Some(b'f') => b"\x0c",
        Some(b'u') => {
            let (character, length) = unicode(rest);
            sink(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            return ControlFlow::Continue(length);
        }
        // A quote, a slash or a backslash stands for itself.
        _ => rest.get(1..2).unwrap_or_default(),
    };
    sink(plain)?;
    ControlFlow::Continue(2)
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
