//! A prompt as bytes of one form: what the engine would read alike is written alike, what it would read otherwise is
//! not, and a conversation that goes on begins with the bytes that it had before.
//!
//! It is written in pieces, straight from the raw JSON where that has no escapes. Text is UTF-8, so the bytes `0xf8` to
//! `0xff` never occur in it; they mark what comes next, and no text can pass for a mark. Nothing is preceded by its
//! length, for a text that goes on would then begin otherwise.
//!
//! Written alike: `"content": "hi"` and a single text part, `\u00e9` and `é`, spaces between tokens or none, `null` and
//! absent, `role` before or after `content`, a system prompt as first message or beside the messages. Media count by
//! digest of their URL or data. The order of other keys is kept: chat templates see it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use xxhash_rust::xxh3::Xxh3;

use super::Head;
use super::json_string::{end_of_string, unescape};

/// What comes next.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Mark {
    /// The tools, as JSON.
    Tools = 0xf8,
    /// A message: its role.
    Message = 0xf9,
    /// Text of a message, or a prompt.
    Text = 0xfa,
    /// Another part of a message, as JSON.
    Part = 0xfb,
    /// Another field of a message: its name.
    Field = 0xfc,
    /// A value, as JSON.
    Value = 0xfd,
    /// 16 bytes that stand for a long string.
    Digest = 0xfe,
    /// Beginning or end of a string within JSON.
    Quote = 0xff,
}

/// Keys whose strings are media, inline or by reference.
const MEDIA_KEYS: [&str; 9] =
    ["url", "data", "image_url", "video_url", "audio_url", "file_url", "file_data", "image", "input_image"];

/// Types of content parts that are plain text.
const TEXT_TYPES: [&str; 3] = ["text", "input_text", "output_text"];

type Flow = ControlFlow<()>;

/// Writes the tools, the preamble and the prompt of a request to `sink`, which may break off. Returns whether it
/// took all.
///
/// The JSON is taken to be valid, as a [`Head`]'s is; of anything else some bytes are written.
pub fn write(head: &Head<'_>, sink: impl FnMut(&[u8]) -> Flow) -> bool {
    Writer { text: &[], at: 0, sink }.head(head).is_continue()
}

struct Writer<'a, S> {
    text: &'a [u8],
    at: usize,
    sink: S,
}

impl<'a, S: FnMut(&[u8]) -> Flow> Writer<'a, S> {
    fn head(&mut self, head: &Head<'a>) -> Flow {
        if let Some(tools) = head.tools.filter(|tools| tools.get() != "[]") {
            self.begin(tools.get());
            self.mark(Mark::Tools)?;
            self.json()?;
        }
        if let Some(preamble) = head.preamble {
            self.begin(preamble.get());
            self.mark(Mark::Message)?;
            (self.sink)(b"system")?;
            self.content()?;
        }
        if let Some(prompt) = head.prompt {
            self.begin(prompt.get());
            self.prompt()?;
        }
        Flow::Continue(())
    }

    fn begin(&mut self, text: &'a str) {
        (self.text, self.at) = (text.as_bytes(), 0);
    }

    /// A text, or a list of messages, texts or token ids.
    fn prompt(&mut self) -> Flow {
        match self.peek() {
            Some(b'"') => self.content(),
            Some(b'[') => self.each_element(|writer| match writer.peek() {
                Some(b'{') => writer.message(),
                Some(b'"') => writer.content(),
                _ => writer.value(),
            }),
            _ => self.value(),
        }
    }

    fn message(&mut self) -> Flow {
        self.mark(Mark::Message)?;
        // The role comes first, wherever it stands.
        if let Some(role) = self.member_ahead("role") {
            let back = std::mem::replace(&mut self.at, role);
            self.string_or_json()?;
            self.at = back;
        }
        self.each_member(|writer, key| match key {
            "role" | "cache_control" => writer.skip(),
            _ if writer.skips_null() => Flow::Continue(()),
            "content" => writer.content(),
            _ => {
                writer.mark(Mark::Field)?;
                (writer.sink)(key.as_bytes())?;
                writer.value()
            }
        })
    }

    /// A text, or parts.
    fn content(&mut self) -> Flow {
        match self.peek() {
            Some(b'"') => self.text(),
            Some(b'[') => self.each_element(|writer| match writer.peek() {
                Some(b'{') => writer.part(),
                Some(b'"') => writer.text(),
                _ => writer.value(),
            }),
            _ => self.value(),
        }
    }

    fn part(&mut self) -> Flow {
        let kind = self.member_ahead("type");
        let is_text = kind.is_none_or(|at| TEXT_TYPES.contains(&&*self.short_string(at)));
        let text = self.member_ahead("text").filter(|at| is_text && self.text.get(*at) == Some(&b'"'));
        let Some(text) = text else {
            self.mark(Mark::Part)?;
            return self.json();
        };
        let back = std::mem::replace(&mut self.at, text);
        self.text()?;
        // Text parts are long, and their text mostly comes last.
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Flow::Continue(());
        }
        self.at = back;
        self.skip()
    }

    fn text(&mut self) -> Flow {
        self.mark(Mark::Text)?;
        self.string()
    }

    fn value(&mut self) -> Flow {
        self.mark(Mark::Value)?;
        self.json()
    }

    fn string_or_json(&mut self) -> Flow {
        if self.peek() == Some(b'"') { self.string() } else { self.value() }
    }

    /// Any JSON, without the spaces between its tokens.
    fn json(&mut self) -> Flow {
        let (mut depth, mut key) = (0_usize, Cow::Borrowed(""));
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    let start = self.at;
                    if MEDIA_KEYS.contains(&&*key) {
                        self.digest()?;
                    } else {
                        self.mark(Mark::Quote)?;
                        self.string()?;
                        self.mark(Mark::Quote)?;
                    }
                    key = if self.peek() == Some(b':') { self.short_string(start) } else { Cow::Borrowed("") };
                }
                b'{' | b'[' => {
                    depth += 1;
                    key = Cow::Borrowed("");
                    self.byte()?;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.byte()?;
                }
                b':' | b',' => self.byte()?,
                _ => self.literal()?,
            }
            if depth == 0 {
                break;
            }
        }
        Flow::Continue(())
    }

    fn byte(&mut self) -> Flow {
        let byte = self.text.get(self.at..=self.at).unwrap_or_default();
        self.at += 1;
        (self.sink)(byte)
    }

    /// A number, `true`, `false` or `null`.
    fn literal(&mut self) -> Flow {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}' | b':' | b'"');
        let length = rest.iter().position(ends).unwrap_or(rest.len()).max(1);
        self.at += length;
        (self.sink)(rest.get(..length).unwrap_or(rest))
    }

    /// A string, without its quotes and escapes.
    fn string(&mut self) -> Flow {
        self.at = unescape(self.text, self.at + 1, &mut self.sink)?;
        Flow::Continue(())
    }

    /// What stands for a string.
    fn digest(&mut self) -> Flow {
        let mut hasher = Xxh3::new();
        self.at = unescape(self.text, self.at + 1, &mut |piece: &[u8]| {
            hasher.update(piece);
            Flow::Continue(())
        })?;
        self.mark(Mark::Digest)?;
        (self.sink)(&hasher.digest128().to_le_bytes())
    }

    fn mark(&mut self, mark: Mark) -> Flow {
        (self.sink)(&[mark as u8])
    }

    /// The next byte that is not a space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes over `null`, if it is next.
    fn skips_null(&mut self) -> bool {
        let is_null = self.peek() == Some(b'n');
        self.at += if is_null { "null".len() } else { 0 };
        is_null
    }

    fn each_element(&mut self, mut each: impl FnMut(&mut Self) -> Flow) -> Flow {
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b']' => {
                    self.at += 1;
                    break;
                }
                b',' => self.at += 1,
                _ => {
                    let before = self.at;
                    each(self)?;
                    // Only where the JSON is not valid.
                    self.at = self.at.max(before + 1);
                }
            }
        }
        Flow::Continue(())
    }

    /// Calls `each` with every key, the place at its value; it has to pass over the value.
    fn each_member(&mut self, mut each: impl FnMut(&mut Self, &str) -> Flow) -> Flow {
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'}' => {
                    self.at += 1;
                    break;
                }
                b'"' => {
                    let key = self.short_string(self.at);
                    self.at = end_of_string(self.text, self.at + 1);
                    if self.peek() == Some(b':') {
                        self.at += 1;
                    }
                    self.peek();
                    each(self, &key)?;
                }
                _ => self.at += 1,
            }
        }
        Flow::Continue(())
    }

    /// Where the value of a member of the object at this place begins.
    fn member_ahead(&mut self, name: &str) -> Option<usize> {
        let start = self.at;
        let stops = |writer: &mut Self, key: &str| if key == name { Flow::Break(()) } else { writer.skip() };
        let found = self.each_member(stops).is_break().then_some(self.at);
        self.at = start;
        found
    }

    /// Passes over a value.
    fn skip(&mut self) -> Flow {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.at = end_of_string(self.text, self.at + 1),
                b'{' | b'[' => (depth, self.at) = (depth + 1, self.at + 1),
                b'}' | b']' => (depth, self.at) = (depth.saturating_sub(1), self.at + 1),
                b',' | b':' => self.at += 1,
                _ => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}');
                    self.at += rest.iter().position(ends).unwrap_or(rest.len()).max(1);
                }
            }
            if depth == 0 {
                break;
            }
        }
        Flow::Continue(())
    }

    /// The string that begins at a place, which is a name; one that is longer than any name stays as it is written.
    fn short_string(&self, at: usize) -> Cow<'a, str> {
        const NAME_BYTES_MAX: usize = 512;
        let end = end_of_string(self.text, at + 1);
        let inner = self.text.get(at + 1..end.saturating_sub(1)).unwrap_or_default();
        if inner.len() > NAME_BYTES_MAX || !inner.contains(&b'\\') {
            return String::from_utf8_lossy(inner);
        }
        let mut plain = Vec::new();
        let end = unescape(self.text, at + 1, &mut |piece: &[u8]| {
            plain.extend_from_slice(piece);
            Flow::Continue(())
        });
        debug_assert!(end.is_continue(), "nobody broke off");
        Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
    }
}
