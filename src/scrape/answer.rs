//! An HTTP/1 answer as it comes into a buffer: its head, where its body is, and whether all of it is there.
//!
//! Knows nothing of sockets. Chunks are put together in place.

use std::ops::Range;

use http::StatusCode;
use memchr::{memchr, memmem};

/// Longest head, and longest line before a chunk.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why an answer is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("it is not HTTP/1: {0}")]
    NotHttp(&'static str),
    #[error("its status is {0}")]
    Status(StatusCode),
    #[error("its body is too large")]
    TooLarge,
    #[error("it broke off")]
    BrokeOff,
}

/// An answer that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    /// Where its body is in the buffer.
    pub(super) body: Range<usize>,
    /// Whether its connection may be asked again.
    pub(super) stays: bool,
}

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    body_bytes_max: usize,
    head: Option<Head>,
}

#[derive(Debug)]
struct Head {
    length: Length,
    /// Where the body begins.
    start: usize,
    stays: bool,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    /// In chunks, which are put together up to here.
    Chunked(usize),
    UntilClosed,
}

impl Answer {
    /// One whose body may have so many bytes.
    pub(super) fn new(body_bytes_max: usize) -> Self {
        Self { body_bytes_max, head: None }
    }

    /// More has come: looks at the first `filled` bytes of `buffer`. Where chunks are put together, less is filled after it.
    pub(super) fn take(&mut self, buffer: &mut [u8], filled: &mut usize) -> Result<Option<Whole>, BadAnswer> {
        if self.head.is_none() {
            self.head = read_head(buffer.get(..*filled).unwrap_or_default(), self.body_bytes_max)?;
        }
        let Some(head) = &mut self.head else { return Ok(None) };
        let whole = |end: usize, stays: bool| Some(Whole { body: head.start..end, stays });
        let came = filled.saturating_sub(head.start);
        match head.length {
            Length::Known(length) if came >= length => Ok(whole(head.start + length, head.stays && came == length)),
            Length::UntilClosed if came > self.body_bytes_max => Err(BadAnswer::TooLarge),
            Length::Known(_) | Length::UntilClosed => Ok(None),
            Length::Chunked(mut end) => {
                let end_max = head.start + self.body_bytes_max;
                let last = put_together(buffer, filled, &mut end, end_max)?;
                head.length = Length::Chunked(end);
                Ok(last.map(|rest| Whole { body: head.start..end, stays: head.stays && rest == 0 }))
            }
        }
    }

    /// Nothing more will come: what did is the whole where its length was not told.
    pub(super) fn closed(&self, filled: usize) -> Result<Whole, BadAnswer> {
        match &self.head {
            Some(Head { length: Length::UntilClosed, start, .. }) => Ok(Whole { body: *start..filled, stays: false }),
            _ => Err(BadAnswer::BrokeOff),
        }
    }
}

/// Reads the head; `None` while it has not come.
fn read_head(bytes: &[u8], body_bytes_max: usize) -> Result<Option<Head>, BadAnswer> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(BadAnswer::NotHttp("no end of its head")) } else { Ok(None) };
    };
    let mut lines = bytes.get(..end).unwrap_or_default().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let (status, mut stays) = lines.next().and_then(read_status).ok_or(BadAnswer::NotHttp("no status"))?;
    if status != StatusCode::OK {
        return Err(BadAnswer::Status(status));
    }
    let start = end + 4;
    let mut length = Length::UntilClosed;
    for line in lines {
        let colon = memchr(b':', line).ok_or(BadAnswer::NotHttp("a header without a colon"))?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(BadAnswer::NotHttp("a transfer coding that nobody asked for"));
            }
            length = Length::Chunked(start);
        } else if name.eq_ignore_ascii_case(b"content-length") && !matches!(length, Length::Chunked(_)) {
            let told = decimal(value).ok_or(BadAnswer::NotHttp("a length that is no number"))?;
            if length != Length::UntilClosed && length != Length::Known(told) {
                return Err(BadAnswer::NotHttp("two lengths"));
            }
            length = Length::Known(told);
        } else if name.eq_ignore_ascii_case(b"connection") {
            stays &= !value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    match length {
        Length::Known(length) if length > body_bytes_max => Err(BadAnswer::TooLarge),
        Length::UntilClosed => Ok(Some(Head { length, start, stays: false })),
        _ => Ok(Some(Head { length, start, stays })),
    }
}

/// The status, and whether connections stay unless told otherwise.
fn read_status(line: &[u8]) -> Option<(StatusCode, bool)> {
    let (minor, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let status = StatusCode::from_bytes(rest.strip_prefix(b" ")?.get(..3)?).ok()?;
    Some((status, *minor != b'0'))
}

/// Puts those chunks that have come behind `end`. Behind the last one it tells how many bytes follow it.
fn put_together(
    buffer: &mut [u8],
    filled: &mut usize,
    end: &mut usize,
    end_max: usize,
) -> Result<Option<usize>, BadAnswer> {
    let mut raw = *end;
    let mut last = None;
    while let Some((data, size)) = read_chunk_line(buffer.get(raw..*filled).unwrap_or_default())? {
        if size == 0 {
            last = after_last(buffer.get(raw..*filled).unwrap_or_default());
            break;
        }
        if size > end_max.saturating_sub(*end) {
            return Err(BadAnswer::TooLarge);
        }
        let (from, to) = (raw + data, raw + data + size);
        match buffer.get(to..*filled) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) | None => break,
            Some(_) => return Err(BadAnswer::NotHttp("a chunk that goes on behind its end")),
        }
        buffer.copy_within(from..to, *end);
        *end += size;
        raw = to + 2;
    }
    // What is not put together yet follows directly.
    if raw > *end && last.is_none() {
        buffer.copy_within(raw..*filled, *end);
        *filled -= raw - *end;
    }
    Ok(last)
}

/// Where a chunk's bytes begin, and how many there are; `None` while its line has not come.
fn read_chunk_line(bytes: &[u8]) -> Result<Option<(usize, usize)>, BadAnswer> {
    let Some(end) = memchr(b'\n', bytes) else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(BadAnswer::NotHttp("no size of a chunk")) } else { Ok(None) };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
    Ok(Some((end + 1, size.ok_or(BadAnswer::NotHttp("a chunk's size that is no number"))?)))
}

/// Bytes behind the last chunk and its trailers; `None` while they have not come.
fn after_last(bytes: &[u8]) -> Option<usize> {
    let end = memmem::find(bytes, b"\r\n\r\n")? + 4;
    Some(bytes.len() - end)
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    // A number beyond all bounds is too large, not nonsense.
    if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(usize::MAX)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1000;

    /// What comes of an answer that arrives in pieces, cut before these places.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool), BadAnswer> {
        let (mut buffer, mut filled, mut answer) = (vec![0; bytes.len()], 0, Answer::new(MAX));
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut from = 0;
        for end in ends {
            buffer[filled..filled + end - from].copy_from_slice(&bytes[from..end]);
            filled += end - from;
            from = end;
            if let Some(whole) = answer.take(&mut buffer, &mut filled)? {
                return Ok((buffer[whole.body].to_vec(), whole.stays && from == bytes.len()));
            }
        }
        answer.closed(filled).map(|whole| (buffer[whole.body].to_vec(), whole.stays))
    }

    fn text(head: &str, body: &str) -> Result<(String, bool), BadAnswer> {
        let (body, stays) = read(format!("{head}\r\n\r\n{body}").as_bytes(), &[])?;
        Ok((String::from_utf8(body).unwrap(), stays))
    }

    #[test]
    fn a_body_is_as_long_as_the_head_says() {
        let ok = |body: &str, stays| Ok((body.to_owned(), stays));
        assert_eq!(text("HTTP/1.1 200 OK\r\nContent-Length: 3", "abc"), ok("abc", true));
        assert_eq!(text("HTTP/1.1 200 OK\r\ncontent-length: 3", "abcd"), ok("abc", false));
        assert_eq!(text("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: x, Close", "abc"), ok("abc", false));
        assert_eq!(text("HTTP/1.0 200 OK\r\ncontent-length: 3", "abc"), ok("abc", false));
        assert_eq!(text("HTTP/1.1 200", "abc"), ok("abc", false));
        let chunked = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nTransfer-Encoding: chunked";
        assert_eq!(text(chunked, "3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n"), ok("abc0123456789", true));
        assert_eq!(text(chunked, "1\r\na\r\n0\r\nsum: 1\r\n\r\nX"), ok("a", false));
    }

    #[test]
    fn what_is_broken_is_refused() {
        use BadAnswer::{BrokeOff, NotHttp, TooLarge};
        for (head, body, fault) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3", "ab", BrokeOff),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1001", "", TooLarge),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999", "", TooLarge),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", "fffffffffffffff0\r\n", TooLarge),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", "3\r\nabc\r\n", BrokeOff),
            ("HTTP/1.1 404 no", "", BadAnswer::Status(StatusCode::NOT_FOUND)),
        ] {
            assert_eq!(text(head, body), Err(fault), "{head} {body}");
        }
        for (head, body) in [
            ("SSH-2.0", ""),
            ("HTTP/2 200", ""),
            ("HTTP/1.1 200 OK\r\ncontent-length: -3", "abc"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4", "abc"),
            ("HTTP/1.1 200 OK\r\nnonsense", ""),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked", ""),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", "xyz\r\nabc"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", "2\r\nabc\r\n"),
        ] {
            assert!(matches!(text(head, body), Err(NotHttp(_))), "{head} {body}");
        }
        assert_eq!(read(&vec![b'x'; HEAD_BYTES_MAX + 1], &[]), Err(NotHttp("no end of its head")));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(sizes in prop::collection::vec(1_usize..90, 0..9), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let body: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| b'a' + (at % 26) as u8).collect();
            let (mut chunked, mut from) = (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), 0);
            for size in sizes {
                chunked.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                chunked.extend_from_slice(&body[from..from + size]);
                chunked.extend_from_slice(b"\r\n");
                from += size;
            }
            chunked.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(&chunked, &cuts), Ok((body.clone(), true)));
            let mut plain = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            plain.extend_from_slice(&body);
            prop_assert_eq!(read(&plain, &cuts), Ok((body, true)));
        }

        #[test]
        fn nonsense_is_an_error_or_a_body_within_its_bound(
            head in "(HTTP/1.1 200\r\n)?(content-length: [0-9]{0,3}\r\n|transfer-encoding: chunked\r\n){0,2}\r\n",
            body in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n0123;".to_vec())], 0..300),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            if let Ok((body, _)) = read(&[head.as_bytes(), &body].concat(), &cuts) {
                prop_assert!(body.len() <= MAX);
            }
        }
    }
}
