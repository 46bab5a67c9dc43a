//! Reads just enough of an event stream: how many events, and whether it came to its end.

use memchr::memmem::Finder;

const DONE: &[u8] = b"data: [DONE]";

/// Scans an answer as its pieces arrive.
#[derive(Debug, Clone)]
pub(super) struct SseScan {
    blank_line: Finder<'static>,
    error: Finder<'static>,
    /// The end of what was seen, long enough for the last event of a stream.
    tail: Vec<u8>,
    failed: bool,
}

impl SseScan {
    pub(super) fn new() -> Self {
        Self {
            blank_line: Finder::new("\n\n"),
            error: Finder::new("data: {\"error\""),
            tail: Vec::with_capacity(32),
            failed: false,
        }
    }

    /// Number of events that ended in this piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> u64 {
        let split = self.tail.last() == Some(&b'\n') && piece.first() == Some(&b'\n');
        let events = self.blank_line.find_iter(piece).count() as u64 + u64::from(split);
        self.failed |= self.error.find(piece).is_some();
        let keep = DONE.len() + 2;
        let recent = piece.get(piece.len().saturating_sub(keep)..).unwrap_or_default();
        self.tail.extend_from_slice(recent);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        events
    }

    /// Why the stream is not a good one, once it has ended.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.failed {
            return Some("error event in the stream");
        }
        (!self.tail.trim_ascii_end().ends_with(DONE)).then_some("incomplete stream (no [DONE])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n";

    #[test]
    fn events_are_counted_however_the_stream_is_cut() {
        for size in 1..STREAM.len() {
            let mut scan = SseScan::new();
            let events: u64 = STREAM.chunks(size).map(|piece| scan.feed(piece)).sum();
            assert_eq!(events, 3, "pieces of {size}");
            assert_eq!(scan.fault(), None, "pieces of {size}");
        }
    }

    #[test]
    fn a_stream_without_its_end_is_a_failure() {
        let mut scan = SseScan::new();
        scan.feed(&STREAM[..20]);
        assert!(scan.fault().is_some());
        let mut scan = SseScan::new();
        scan.feed(b"data: {\"error\":{}}\n\ndata: [DONE]\n\n");
        assert_eq!(scan.fault(), Some("error event in the stream"));
    }
}
