//! The model's name in an answer: one name is put in the place of another while the answer passes, whatever its pieces.
//!
//! An answer names its model in the member `model` of its JSON text. In a stream each `data:` line is such a text, and
//! some events keep the member inside `message` (Anthropic's) or `response` (the Responses API). Nothing else is looked
//! at, and nothing else changes: all other bytes pass as they are, also where the text is no JSON after all. Held back
//! is only a model's value whose end has not come, and no more of it than the name can be long.

use std::mem;

use memchr::{memchr, memchr2, memchr3};

/// What begins a line of a stream that has a JSON text.
const DATA: &[u8] = b"data:";
/// Longest key that matters.
const KEY_BYTES_MAX: usize = 8;
/// So many bytes of JSON can stand for one byte of text (`\u0061`).
const ESCAPED_BYTES_MAX: usize = 6;

/// Puts a model's name in the place of another one's in one answer.
#[derive(Debug)]
pub struct Renamed {
    /// The name that goes.
    from: Box<str>,
    /// The name that comes, as JSON writes it, without quotes.
    to: Box<[u8]>,
    /// The answer is a stream of lines, each with a text of its own.
    is_stream: bool,
    place: Place,
    /// The next byte is escaped.
    is_escaped: bool,
    /// Objects and lists that are open.
    depth: u32,
    /// How deep the object lies whose members are looked at: 1, or 2 inside `message` and `response`.
    watched: u32,
    /// The next string there is a key.
    is_key_due: bool,
    /// The last key there.
    key: Key,
    /// What came of a model's value that has not ended, in earlier pieces.
    held: Vec<u8>,
}

/// Where in the answer the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a line of which so many bytes are those of [`DATA`].
    Line(usize),
    /// Between the strings of a text.
    Text,
    /// In a key of the object that is watched.
    Key,
    /// In the value of `model`.
    Model,
    /// In another string.
    String,
    /// Behind all that matters: to the end of the line, or of the answer.
    Over,
}

#[derive(Debug, Default)]
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    /// One more than there is room for where the key is longer, or has escapes.
    length: usize,
}

impl Key {
    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.length) {
            Some(place) if byte != b'\\' => {
                *place = byte;
                self.length += 1;
            }
            _ => self.length = KEY_BYTES_MAX + 1,
        }
    }

    fn is(&self, name: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(name)
    }
}

/// A piece while it is looked at, and what goes on of it.
struct Piece<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What goes on, but for the bytes from `copied`.
    out: Vec<u8>,
    copied: usize,
    /// Where the model's value begins, or goes on, in this piece.
    value: usize,
    is_changed: bool,
}

impl<'a> Piece<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn value(&self) -> &'a [u8] {
        self.bytes.get(self.value..self.at).unwrap_or_default()
    }

    /// Sends on what comes before the value, and `instead`; goes on behind `at`.
    fn replace_value(&mut self, instead: &[u8]) {
        self.out.extend_from_slice(self.bytes.get(self.copied..self.value).unwrap_or_default());
        self.out.extend_from_slice(instead);
        self.copied = self.at;
        self.is_changed = true;
    }
}

impl Renamed {
    /// For one JSON text.
    pub fn in_json(from: &str, to: &str) -> Self {
        Self::new(from, to, false)
    }

    /// For a stream of server-sent events.
    pub fn in_events(from: &str, to: &str) -> Self {
        Self::new(from, to, true)
    }

    fn new(from: &str, to: &str, is_stream: bool) -> Self {
        let mut quoted = serde_json::Value::from(to).to_string().into_bytes();
        quoted.pop();
        quoted.drain(..1);
        Self {
            from: from.into(),
            to: quoted.into(),
            is_stream,
            place: if is_stream { Place::Line(0) } else { Place::Text },
            is_escaped: false,
            depth: 0,
            watched: 1,
            is_key_due: false,
            key: Key::default(),
            held: Vec::new(),
        }
    }

    /// Takes the next piece of the answer. What goes on in its place, perhaps nothing; `None` if it goes on as it is.
    /// Behind the last piece nothing is held back.
    pub fn pass(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let mut piece = Piece { bytes: piece, at: 0, out: Vec::new(), copied: 0, value: 0, is_changed: false };
        while piece.at < piece.bytes.len() {
            self.step(&mut piece);
        }
        if self.place == Place::Model {
            self.hold(&mut piece);
        }
        if is_last && !self.held.is_empty() {
            piece.out.append(&mut self.held);
            piece.is_changed = true;
            self.place = Place::Over;
        }
        piece.is_changed.then(|| {
            piece.out.extend_from_slice(piece.bytes.get(piece.copied..).unwrap_or_default());
            piece.out
        })
    }

    /// What is still held back, where the answer ends without a last piece.
    pub fn finish(&mut self) -> Vec<u8> {
        self.place = Place::Over;
        mem::take(&mut self.held)
    }

    /// Goes on by a byte, or by all bytes that mean nothing here.
    fn step(&mut self, piece: &mut Piece<'_>) {
        let rest = piece.rest();
        if mem::take(&mut self.is_escaped) && !(self.is_stream && rest.starts_with(b"\n")) {
            piece.at += 1;
            return;
        }
        let skipped = match self.place {
            Place::Over if self.is_stream => memchr2(b'\n', b'\r', rest),
            Place::Over => None,
            Place::String | Place::Model if self.is_stream => memchr3(b'"', b'\\', b'\n', rest),
            Place::String | Place::Model => memchr2(b'"', b'\\', rest),
            Place::Text if self.depth > self.watched => {
                rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b'\n' | b'\r'))
            }
            Place::Line(_) | Place::Text | Place::Key => Some(0),
        };
        piece.at += skipped.unwrap_or(rest.len());
        let Some(&byte) = piece.bytes.get(piece.at) else { return };
        if self.is_stream && matches!(byte, b'\n' | b'\r') {
            self.end_line(piece);
        } else {
            self.byte(byte, piece);
        }
        piece.at += 1;
    }

    fn end_line(&mut self, piece: &mut Piece<'_>) {
        if self.place == Place::Model {
            self.end_value(piece, false);
        }
        (self.depth, self.watched, self.place) = (0, 1, Place::Line(0));
    }

    fn byte(&mut self, byte: u8, piece: &mut Piece<'_>) {
        match (self.place, byte) {
            (Place::Line(length), byte) if DATA.get(length) == Some(&byte) => {
                self.place = if length + 1 == DATA.len() { Place::Text } else { Place::Line(length + 1) };
            }
            (Place::Line(_), _) => self.place = Place::Over,
            (Place::Text, byte) => self.between(byte, piece),
            (Place::Key | Place::String, b'"') => self.place = Place::Text,
            (Place::Model, b'"') => self.end_value(piece, true),
            (place, byte) => {
                self.is_escaped = byte == b'\\';
                if place == Place::Key {
                    self.key.push(byte);
                }
            }
        }
    }

    /// A byte outside of strings.
    fn between(&mut self, byte: u8, piece: &mut Piece<'_>) {
        let is_watched = self.depth == self.watched;
        match byte {
            b'"' if self.depth == 0 => self.place = Place::Over,
            b'"' if is_watched && self.is_key_due => {
                self.key = Key::default();
                self.place = Place::Key;
            }
            b'"' if is_watched && self.key.is(b"model") => {
                self.place = Place::Model;
                piece.value = piece.at + 1;
            }
            b'"' => self.place = Place::String,
            b'{' => {
                let has_model = self.is_stream && (self.key.is(b"message") || self.key.is(b"response"));
                let is_nested = is_watched && self.depth == 1 && !self.is_key_due && has_model;
                self.depth = self.depth.saturating_add(1);
                if self.depth == 1 || is_nested {
                    (self.watched, self.is_key_due) = (self.depth, true);
                }
            }
            b'[' if self.depth > 0 => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if self.depth > 1 => {
                self.depth -= 1;
                self.watched = self.watched.min(self.depth);
            }
            b'}' | b']' => self.place = Place::Over,
            b',' if is_watched => self.is_key_due = true,
            b':' if is_watched => self.is_key_due = false,
            byte if self.depth == 0 && !byte.is_ascii_whitespace() => self.place = Place::Over,
            _ => {}
        }
    }

    /// The model's value ends before `at`, by its quote or because the line does. An answer has one model.
    fn end_value(&mut self, piece: &mut Piece<'_>, is_whole: bool) {
        self.place = Place::Over;
        let mut value = mem::take(&mut self.held);
        let was_held = !value.is_empty();
        value.extend_from_slice(piece.value());
        if is_whole && self.is_from(&value) {
            piece.replace_value(&self.to);
        } else if was_held {
            piece.replace_value(&value);
        }
    }

    /// Keeps the value's part of the piece back until the rest comes, as long as it can be the name.
    fn hold(&mut self, piece: &mut Piece<'_>) {
        if piece.value().is_empty() {
            return;
        }
        self.held.extend_from_slice(piece.value());
        let is_too_long = self.held.len() > ESCAPED_BYTES_MAX * self.from.len();
        let held = if is_too_long { mem::take(&mut self.held) } else { Vec::new() };
        piece.replace_value(&held);
        if is_too_long {
            self.place = Place::Over;
        }
    }

    fn is_from(&self, written: &[u8]) -> bool {
        if memchr(b'\\', written).is_none() {
            return written == self.from.as_bytes();
        }
        let quoted = [b"\"", written, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).is_ok_and(|name| *name == *self.from)
    }
}

#[cfg(test)]
#[path = "renamed_tests.rs"]
mod tests;
