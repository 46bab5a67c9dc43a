//! What is learned from an answer's body while it passes: when the first token came, and how many there were.

use crate::openai::sse::Scanner;
use crate::openai::{Usage, usage};

use super::upstream::Content;

/// Most bytes kept of a JSON answer: its usage stands at the end.
const TAIL_BYTES_MAX: usize = 64 << 10;

/// Reads an answer's body in pieces, in bounded memory. Whatever it cannot read, it leaves alone.
#[derive(Debug)]
pub(super) enum Watch {
    /// A streamed answer.
    Events(Box<Scanner>),
    /// The end of a JSON text, and whether all of it is there.
    Json { tail: Vec<u8>, whole: bool },
    /// Nothing that we can read.
    Opaque,
}

/// What an answer's body said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Learned {
    /// As the engine counted.
    pub(super) usage: Option<Usage>,
    /// Pieces of generated text, where it was streamed; about one for each token.
    pub(super) outputs: u64,
}

impl Watch {
    pub(super) fn new(content: Content) -> Self {
        match content {
            Content::Events => Self::Events(Box::default()),
            Content::Json => Self::Json { tail: Vec::new(), whole: true },
            Content::Opaque => Self::Opaque,
        }
    }

    /// Takes the next bytes; tells whether generated text was seen so far.
    pub(super) fn feed(&mut self, piece: &[u8]) -> bool {
        match self {
            Self::Events(scanner) => {
                scanner.feed(piece);
                scanner.progress().outputs > 0
            }
            Self::Json { tail, whole } => {
                tail.extend_from_slice(piece.get(piece.len().saturating_sub(TAIL_BYTES_MAX)..).unwrap_or(piece));
                *whole &= piece.len() <= TAIL_BYTES_MAX;
                if tail.len() > 2 * TAIL_BYTES_MAX {
                    tail.drain(..tail.len() - TAIL_BYTES_MAX);
                    *whole = false;
                }
                false
            }
            Self::Opaque => false,
        }
    }

    /// What was said by the end of the answer, or of what we saw of it.
    pub(super) fn finish(self) -> Learned {
        match self {
            Self::Events(mut scanner) => {
                let progress = scanner.finish();
                Learned { usage: progress.usage, outputs: progress.outputs }
            }
            Self::Json { tail, whole: true } => Learned { usage: usage::from_body(&tail), outputs: 0 },
            Self::Json { tail, whole: false } => Learned { usage: usage::from_end(&tail), outputs: 0 },
            Self::Opaque => Learned::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(content: Content, pieces: &[&[u8]]) -> Learned {
        let mut watch = Watch::new(content);
        for piece in pieces {
            watch.feed(piece);
        }
        watch.finish()
    }

    #[test]
    fn a_long_json_answer_gives_its_usage_from_its_end() {
        let text =
            format!(r#"{{"choices":["{}"],"usage":{{"prompt_tokens":3,"completion_tokens":9}}}}"#, "x".repeat(500_000));
        let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 9, cached_tokens: None });
        for size in [7, 1000, 70_000, 600_000] {
            let mut watch = Watch::new(Content::Json);
            for piece in text.as_bytes().chunks(size) {
                watch.feed(piece);
                assert!(matches!(&watch, Watch::Json { tail, .. } if tail.len() <= 2 * TAIL_BYTES_MAX));
            }
            assert_eq!(watch.finish().usage, usage, "{size}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for content in [Content::Events, Content::Json, Content::Opaque] {
            assert_eq!(learn(content, &[b"\xff\xfe<html>", b"\0"]), Learned::default());
            assert_eq!(learn(content, &[]), Learned::default());
        }
    }

    #[test]
    fn the_first_generated_text_is_noticed_where_its_line_ends() {
        let mut watch = Watch::new(Content::Events);
        assert!(!watch.feed(b": ping\n\ndata: {\"choices\""));
        assert!(watch.feed(b":[]}\n\n"));
    }
}
