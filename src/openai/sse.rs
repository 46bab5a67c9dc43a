//! Incremental scanner of a streamed reply: token counts and progress, whatever its chunks.
//!
//! Chunks may be cut anywhere, also inside a character or between CR and LF. A line that arrives
//! whole is looked at in place; only the cut end of a chunk is kept, and no more than
//! [`LINE_BYTES_MAX`] of it. Only lines that can matter are parsed.

use memchr::{memchr, memmem};
use serde::Deserialize;

use super::usage::{Counts, Reply, Usage};

/// Longest line that is parsed whole. Of a longer one (`response.completed` repeats the whole
/// answer) the last so many bytes are searched for usage.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The longest start of a line that is needed to tell what it is.
const START_BYTES: usize = 64;

/// What a streamed reply has said so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The latest token counts.
    pub usage: Option<Usage>,
    /// Events with data, not counting `[DONE]`.
    pub events: u64,
    /// Of these, those that can carry generated text: not the ones that only announce an answer, which some engines send
    /// before they look at the prompt.
    pub outputs: u64,
    /// Events that report an error.
    pub errors: u64,
    /// The engine said that the reply is complete: `[DONE]`, `message_stop`,
    /// `response.completed`, `response.incomplete` or `response.failed`.
    pub finished: bool,
}

/// Scans one streamed reply.
#[derive(Debug, Default)]
pub struct Scanner {
    progress: Progress,
    /// The line that the last chunk cut; its end only, once it is longer than two maxima.
    cut: Vec<u8>,
    /// The start of the cut line, once `cut` has lost it.
    lost_start: Option<Kind>,
    /// The `event:` line before the next data line said that the reply is over.
    closing: bool,
    /// It said that the reply is only announced.
    opening: bool,
    /// The last event was counted as output.
    counted_output: bool,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Event,
    Other,
}

impl Scanner {
    /// A scanner at the start of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the lines that have ended so far said.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Takes the next bytes of the reply.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            if self.cut.is_empty() {
                self.line(line, kind(line));
            } else {
                self.keep(line);
                self.end_cut_line();
            }
            rest = after.get(1..).unwrap_or_default();
        }
        self.keep(rest);
    }

    /// Ends the reply: a last line without line end counts.
    pub fn finish(&mut self) -> Progress {
        if !self.cut.is_empty() {
            self.end_cut_line();
        }
        self.progress
    }

    fn end_cut_line(&mut self) {
        let line = std::mem::take(&mut self.cut);
        let kind = self.lost_start.take().unwrap_or_else(|| kind(&line));
        self.line(&line, kind);
        self.cut = line;
        self.cut.clear();
    }

    fn keep(&mut self, part: &[u8]) {
        self.cut.extend_from_slice(part);
        if self.cut.len() > 2 * LINE_BYTES_MAX {
            self.lost_start.get_or_insert(kind(&self.cut));
            self.cut.drain(..self.cut.len() - LINE_BYTES_MAX - 1);
        }
    }

    fn line(&mut self, line: &[u8], kind: Kind) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match kind {
            Kind::Data if line.len() > LINE_BYTES_MAX => self.long_data(line),
            Kind::Data => self.data(value(line, b"data:")),
            Kind::Event => {
                let name = value(line, b"event:");
                let name = std::str::from_utf8(name).unwrap_or_default();
                (self.closing, self.opening) = (closes(name), opens(name));
            }
            Kind::Other => {}
        }
    }

    fn data(&mut self, payload: &[u8]) {
        if payload == b"[DONE]" {
            self.progress.finished = true;
            return;
        }
        self.count_event();
        if !may_matter(payload) {
            return;
        }
        let Some(reply) = parse(payload) else { return };
        if reply.is_error() {
            self.progress.errors += 1;
            self.progress.outputs -= u64::from(self.counted_output);
        }
        self.progress.finished |= reply.kind.as_deref().is_some_and(closes);
        reply.add_to(&mut self.progress.usage);
    }

    fn long_data(&mut self, line: &[u8]) {
        self.count_event();
        let end = line.get(line.len() - LINE_BYTES_MAX..).unwrap_or_default();
        if let Some(counts) = last_usage(end) {
            counts.add_to(&mut self.progress.usage);
        }
    }

    fn count_event(&mut self) {
        self.progress.events += 1;
        let closing = std::mem::take(&mut self.closing);
        self.progress.finished |= closing;
        self.counted_output = !(std::mem::take(&mut self.opening) || closing);
        self.progress.outputs += u64::from(self.counted_output);
    }
}

fn kind(line: &[u8]) -> Kind {
    if line.starts_with(b"data:") {
        Kind::Data
    } else if line.starts_with(b"event:") {
        Kind::Event
    } else {
        Kind::Other
    }
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> &'a [u8] {
    line.strip_prefix(name).unwrap_or(line).trim_ascii()
}

fn closes(event: &str) -> bool {
    matches!(event, "message_stop" | "response.completed" | "response.incomplete" | "response.failed")
}

/// Events of Anthropic's and the Responses API that come before the first token, or have none.
fn opens(event: &str) -> bool {
    matches!(
        event,
        "message_start"
            | "content_block_start"
            | "content_block_stop"
            | "message_delta"
            | "ping"
            | "error"
            | "response.created"
            | "response.queued"
            | "response.in_progress"
            | "response.output_item.added"
            | "response.content_part.added"
    )
}

/// Whether an event can hold usage, an error or an end. Inside generated text the quotes would be
/// escaped, so a model that talks about usage costs nothing.
fn may_matter(payload: &[u8]) -> bool {
    let has = |word: &[u8]| memmem::find(payload, word).is_some();
    let start = payload.get(..START_BYTES).unwrap_or(payload);
    has(br#""usage""#) || has(br#""error""#) || memmem::find(start, b"message_stop").is_some()
}

fn parse(payload: &[u8]) -> Option<Reply<'_>> {
    serde_json::from_str(std::str::from_utf8(payload).ok()?).ok()
}

/// The last usage object of a text whose start is gone.
pub(super) fn last_usage(end: &[u8]) -> Option<Counts> {
    let at = memmem::rfind(end, br#""usage""#)?;
    let after = end.get(at + br#""usage""#.len()..)?.trim_ascii_start();
    let value = after.strip_prefix(b":")?;
    let mut json = serde_json::Deserializer::from_slice(value);
    Counts::deserialize(&mut json).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VLLM: &[u8] = include_bytes!("../../tests/fixtures/vllm-0.32.0-sse.txt");

    fn scan<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Progress {
        let mut scanner = Scanner::new();
        chunks.into_iter().for_each(|chunk| scanner.feed(chunk));
        scanner.finish()
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64, cached_tokens: Option<u64>) -> Usage {
        Usage { prompt_tokens, completion_tokens, cached_tokens }
    }

    #[test]
    fn a_real_vllm_stream_gives_its_last_usage() {
        let end = scan([VLLM]);
        assert_eq!(end.usage, Some(usage(2, 2, Some(0))));
        assert_eq!((end.events, end.errors, end.finished), (8, 0, true));
    }

    #[test]
    fn an_anthropic_stream_gives_input_and_output_tokens() {
        let stream = b"event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":16,\"output_tokens\":1}}}\r\n\r\n\
            event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n\
            event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\r\n\r\n\
            event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n";
        let end = scan([&stream[..]]);
        assert_eq!(end.usage, Some(usage(25, 15, Some(16))));
        assert_eq!((end.events, end.errors, end.finished), (4, 0, true));
    }

    #[test]
    fn a_responses_stream_ends_with_its_usage_without_done() {
        let stream = b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null,\"error\":null}}\n\n\
            event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"error\":null,\"usage\":{\"input_tokens\":4,\"output_tokens\":6}}}";
        let end = scan([&stream[..]]);
        assert_eq!(end.usage, Some(usage(4, 6, None)));
        assert_eq!((end.events, end.errors, end.finished), (2, 0, true));
    }

    #[test]
    fn events_that_only_announce_an_answer_are_no_output() {
        let stream = b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n\
            event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\nevent: response.completed\ndata: {}\n\n\
            data: {\"error\":{\"message\":\"x\"}}\n\n";
        let end = scan([&stream[..]]);
        assert_eq!((end.events, end.outputs, end.errors), (5, 1, 1));
        // The role, two tokens, the reason for the end, and usage by itself.
        assert_eq!(scan([VLLM]).outputs, 8);
    }

    #[test]
    fn errors_inside_a_stream_are_counted_in_every_shape() {
        let stream = b"data: {\"error\":{\"message\":\"x\"}}\n\ndata: {\"object\":\"error\",\"message\":\"x\"}\n\n\
            event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\"\"}}],\"error\":null}\n\n";
        let end = scan([&stream[..]]);
        assert_eq!((end.events, end.errors, end.finished), (4, 3, false));
    }

    #[test]
    fn usage_that_a_model_talks_about_is_not_counted() {
        let stream = br#"data: {"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}"#;
        assert_eq!(scan([&stream[..]]).usage, None);
    }

    #[test]
    fn a_line_over_the_limit_gives_its_usage_and_holds_bounded_memory() {
        let mut stream =
            b"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":\"".to_vec();
        stream.resize(10 * LINE_BYTES_MAX, b'x');
        stream.extend_from_slice(b"\",\"usage\":{\"input_tokens\":7,\"output_tokens\":8}}}\r\n\r\n");
        let whole = scan([&stream[..]]);
        assert_eq!(whole.usage, Some(usage(7, 8, None)));
        assert_eq!((whole.events, whole.finished), (1, true));
        let mut scanner = Scanner::new();
        for chunk in stream.chunks(1000) {
            scanner.feed(chunk);
            assert!(scanner.cut.len() <= 2 * LINE_BYTES_MAX);
        }
        assert_eq!(scanner.finish(), whole);
    }

    proptest! {
        #[test]
        fn any_split_of_a_real_stream_gives_the_same_answer(
            mut cuts in prop::collection::vec(0..VLLM.len(), 0..12),
            crlf: bool,
        ) {
            let text = String::from_utf8_lossy(VLLM).replace('\n', if crlf { "\r\n" } else { "\n" });
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            let mut start = 0;
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut - start);
                chunks.push(chunk);
                rest = after;
                start = cut;
            }
            chunks.push(rest);
            prop_assert_eq!(scan(chunks), scan([text.as_bytes()]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
            prop_assert_eq!(scan(bytes.chunks(size)), scan([&bytes[..]]));
        }
    }
}
