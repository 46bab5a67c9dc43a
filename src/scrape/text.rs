//! One-pass scanner of Prometheus exposition text, the pages that engines serve at `/metrics`.
//!
//! Reads text format 0.0.4 and the sample lines of `OpenMetrics` 1.0. Nothing is allocated per line:
//! names and labels are slices of the page. A line that cannot be read is counted and skipped, so
//! that one odd line never hides an engine's load.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

/// One sample of a page.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The metric's name, colons included (`vllm:num_requests_running`).
    pub name: &'a [u8],
    /// Its labels.
    pub labels: Labels<'a>,
    /// Its value; may be NaN or infinite.
    pub value: f64,
}

/// The label set of a sample, not yet unescaped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a> {
    /// What stands between the braces; checked by [`scan`].
    raw: &'a [u8],
}

/// What a scan met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Samples given to the sink.
    pub samples: usize,
    /// Lines that are neither samples, comments nor blank.
    pub unreadable_lines: usize,
}

/// Gives every sample of `page` to `sink`, in order. The last line needs no line end.
pub fn scan<'a>(page: &'a [u8], mut sink: impl FnMut(Sample<'a>)) -> ScanReport {
    scan_known(page, |_| Some(()), |(), sample| sink(sample))
}

/// As [`scan`], but only lines that begin with a name that `find` knows are looked at any further: most of a page is
/// histograms that nobody asked for. The sink gets what `find` found.
pub fn scan_known<'a, T>(
    page: &'a [u8],
    find: impl Fn(&[u8]) -> Option<T>,
    mut sink: impl FnMut(T, Sample<'a>),
) -> ScanReport {
    let mut report = ScanReport::default();
    let mut rest = page;
    // How the last line began that nobody wants, up to the byte behind its name: most lines begin like the one before.
    let mut unwanted: &[u8] = b"\n";
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        if line.starts_with(unwanted) {
            continue;
        }
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let name = name(line);
        let Some(found) = find(name) else {
            unwanted = line.get(..=name.len()).unwrap_or(b"\n");
            continue;
        };
        if let Some(sample) = sample(line) {
            report.samples += 1;
            sink(found, sample);
        } else {
            report.unreadable_lines += 1;
        }
    }
    report
}

/// What stands before the labels or the value.
fn name(line: &[u8]) -> &[u8] {
    let end = memchr3(b'{', b' ', b'\t', line).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Reads `name{labels} value [timestamp] [# exemplar]`.
fn sample(line: &[u8]) -> Option<Sample<'_>> {
    let (name, rest) = split_while(line, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
    if name.first().is_none_or(u8::is_ascii_digit) {
        return None;
    }
    let (labels, rest) = match skip_blanks(rest).strip_prefix(b"{") {
        Some(inside) => labels(inside)?,
        None => (Labels::default(), rest.strip_prefix(b" ").or(rest.strip_prefix(b"\t"))?),
    };
    let (value, rest) = word(rest);
    let value = number(value)?;
    let (timestamp, rest) = word(rest);
    let is_plain_end = timestamp.is_empty() || (number(timestamp).is_some() && is_end(rest));
    (is_plain_end || timestamp.starts_with(b"#")).then_some(Sample { name, labels, value })
}

/// Nothing more, or an exemplar.
fn is_end(rest: &[u8]) -> bool {
    let rest = skip_blanks(rest);
    rest.is_empty() || rest.starts_with(b"#")
}

/// Splits what follows an opening brace into the label set and what follows the closing brace.
fn labels(inside: &[u8]) -> Option<(Labels<'_>, &[u8])> {
    let mut rest = inside;
    loop {
        rest = skip_blanks(rest);
        if let Some(after) = rest.strip_prefix(b"}") {
            let length = inside.len() - rest.len();
            let raw = inside.get(..length)?;
            return Some((Labels { raw }, after));
        }
        let (_, _, after) = label(rest)?;
        rest = skip_blanks(after);
        match rest.strip_prefix(b",") {
            Some(after) => rest = after,
            None if rest.starts_with(b"}") => {}
            None => return None,
        }
    }
}

/// Splits off `name="value"`. Names are not checked against the format's alphabet: an engine with
/// dotted label names is still worth reading.
fn label(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = split_while(text, |byte| !matches!(byte, b'=' | b'"' | b',' | b'{' | b'}' | b' ' | b'\t'));
    if name.is_empty() {
        return None;
    }
    let rest = skip_blanks(skip_blanks(rest).strip_prefix(b"=")?);
    let quoted = rest.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', quoted.get(at..)?)?;
        if quoted.get(at) == Some(&b'"') {
            return Some((name, quoted.get(..at)?, quoted.get(at + 1..)?));
        }
        at += 2;
    }
}

/// The next word, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    split_while(skip_blanks(text), |byte| !matches!(byte, b' ' | b'\t'))
}

fn number(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    split_while(text, |byte| matches!(byte, b' ' | b'\t')).1
}

fn split_while(text: &[u8], is_part: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !is_part(*byte));
    text.split_at(end.unwrap_or(text.len()))
}

impl<'a> Labels<'a> {
    /// The unescaped value of a label; the first one if it is repeated.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut pairs = self.raw_pairs();
        let (_, value) = pairs.find(|(label, _)| *label == name.as_bytes())?;
        Some(unescape(value))
    }

    /// Every label with its unescaped value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.raw_pairs().map(|(name, value)| (String::from_utf8_lossy(name), unescape(value)))
    }

    fn raw_pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.raw;
        std::iter::from_fn(move || {
            let (name, value, after) = label(skip_blanks(rest))?;
            let after = skip_blanks(after);
            rest = after.strip_prefix(b",").unwrap_or(after);
            Some((name, value))
        })
    }
}

/// Resolves `\\`, `\"` and `\n`; any other backslash stands for itself. Bytes that are not UTF-8
/// become U+FFFD.
fn unescape(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    if memchr(b'\\', value).is_none() {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match (c, chars.peek()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some(next @ ('\\' | '"'))) => Some(*next),
            _ => None,
        };
        if escaped.is_some() {
            chars.next();
        }
        plain.push(escaped.unwrap_or(c));
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests;
