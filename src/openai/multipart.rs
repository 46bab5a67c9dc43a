//! The head of a `multipart/form-data` body (audio, image edits). The file part is jumped over, not
//! copied.

use std::borrow::Cow;

use memchr::memmem;

use super::body_error::BodyError;
use super::fields::steering;
use super::head::Head;

/// Longest value of a form field that we read.
pub const FIELD_BYTES_MAX: usize = 8 * 1024;

/// Longest header block of one part.
const PART_HEADER_BYTES_MAX: usize = 16 * 1024;

/// Reads model, stream flag and user from a whole form.
pub fn read<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Head<'a>, BodyError> {
    let mut head = Head::default();
    read_into(&mut head, content_type, body)?;
    Ok(head)
}

/// Like [`read`]; what was read before an error stays in `head`.
pub(super) fn read_into<'a>(head: &mut Head<'a>, content_type: Option<&str>, body: &'a [u8]) -> Result<(), BodyError> {
    let delimiter = delimiter(content_type)?;
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    let mut form = Form { delimiter: memmem::Finder::new(&delimiter), body, at: 0 };
    let mut seen = Seen::default();
    let mut more = form.open()?;
    while more {
        let name = form.part_name()?;
        let start = form.at;
        let (value, is_last) = form.part_body()?;
        seen.field(head, &name, value, start)?;
        more = !is_last;
    }
    Ok(())
}

/// CR LF, two dashes and the boundary of the content type.
fn delimiter(content_type: Option<&str>) -> Result<Vec<u8>, BodyError> {
    const WRONG: BodyError = BodyError::ContentType { expected: "multipart/form-data with a boundary" };
    let (kind, parameters) = content_type.and_then(|value| value.split_once(';')).ok_or(WRONG)?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(WRONG);
    }
    let boundary = parameter(parameters, "boundary").ok_or(WRONG)?;
    if !(1..=70).contains(&boundary.len()) {
        return Err(WRONG);
    }
    Ok([b"\r\n--", boundary.as_bytes()].concat())
}

/// A parameter of a header value: `; name=value; name="quoted \"value\""`. Names have any case.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.trim_start().strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = after.find(';').unwrap_or(after.len());
            let (token, after) = after.split_at(end);
            (token.trim().to_owned(), after)
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            // Only these two are escapes: browsers send `C:\file` as it is.
            '\\' if quoted.get(at + 1..)?.starts_with(['"', '\\']) => text.push(chars.next()?.1),
            _ => text.push(c),
        }
    }
    None
}

struct Form<'a, 'd> {
    delimiter: memmem::Finder<'d>,
    body: &'a [u8],
    at: usize,
}

impl<'a> Form<'a, '_> {
    fn malformed(&self, reason: &'static str) -> BodyError {
        BodyError::Multipart { reason, byte: self.at }
    }

    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// Goes past the first delimiter. Says whether parts follow.
    fn open(&mut self) -> Result<bool, BodyError> {
        let dashed = self.delimiter.needle().get(2..).unwrap_or_default();
        if self.body.starts_with(dashed) {
            self.at = dashed.len();
            if let Some(is_last) = self.after_delimiter() {
                return Ok(!is_last);
            }
            self.at = 0;
        }
        self.part_body().map(|(_, is_last)| !is_last)
    }

    /// Reads the header block of a part and returns its name.
    fn part_name(&mut self) -> Result<String, BodyError> {
        let rest = self.rest();
        let window = rest.get(..PART_HEADER_BYTES_MAX).unwrap_or(rest);
        let Some(length) = memmem::find(window, b"\r\n\r\n") else {
            return Err(if window.len() < PART_HEADER_BYTES_MAX {
                self.truncated()
            } else {
                self.malformed("the headers of a part are too long")
            });
        };
        let block = window.get(..length).unwrap_or_default();
        let name = std::str::from_utf8(block).ok().and_then(|block| {
            block.split("\r\n").find_map(|header| {
                let (name, value) = header.split_once(':')?;
                let is_disposition = name.trim().eq_ignore_ascii_case("content-disposition");
                let (_, parameters) = is_disposition.then(|| value.split_once(';'))??;
                parameter(parameters, "name")
            })
        });
        let name = name.ok_or_else(|| self.malformed("a part has no name"))?;
        self.at += length + 4;
        Ok(name)
    }

    /// Reads up to and past the next delimiter. Returns the bytes before it, and whether it is the
    /// last one.
    fn part_body(&mut self) -> Result<(&'a [u8], bool), BodyError> {
        let start = self.at;
        loop {
            let found = self.delimiter.find(self.rest());
            let end = self.at + found.ok_or_else(|| self.truncated())?;
            self.at = end + self.delimiter.needle().len();
            // Otherwise it is a longer line that begins like the delimiter.
            if let Some(is_last) = self.after_delimiter() {
                return Ok((self.body.get(start..end).unwrap_or_default(), is_last));
            }
            if self.rest().is_empty() {
                return Err(self.truncated());
            }
        }
    }

    /// Goes past what ends a delimiter: `--` (the last one) or a line end.
    fn after_delimiter(&mut self) -> Option<bool> {
        let rest = self.rest();
        if rest.starts_with(b"--") {
            self.at += 2;
            return Some(true);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        rest.get(padding..)?.strip_prefix(b"\r\n")?;
        self.at += padding + 2;
        Some(false)
    }

    fn truncated(&self) -> BodyError {
        BodyError::CutForm { byte: self.body.len() }
    }
}

/// Which fields were there already.
#[derive(Default)]
struct Seen {
    model: bool,
    stream: bool,
    user: bool,
}

impl Seen {
    fn field<'a>(&mut self, head: &mut Head<'a>, name: &str, value: &'a [u8], start: usize) -> Result<(), BodyError> {
        if let Some(field) = steering(name) {
            return Err(BodyError::SteeringField(field));
        }
        match name {
            "model" => {
                once(&mut self.model, "model")?;
                let name = text("model", value, start)?;
                (head.model, head.model_written) = (Some(Cow::Borrowed(name)), Some(name));
            }
            "user" => {
                once(&mut self.user, "user")?;
                head.user = Some(Cow::Borrowed(text("user", value, start)?));
            }
            "stream" => {
                once(&mut self.stream, "stream")?;
                head.stream = flag(text("stream", value, start)?, start)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn once(seen: &mut bool, field: &'static str) -> Result<(), BodyError> {
    if std::mem::replace(seen, true) {
        return Err(BodyError::Duplicate { field });
    }
    Ok(())
}

fn text<'a>(field: &'static str, value: &'a [u8], start: usize) -> Result<&'a str, BodyError> {
    if value.len() > FIELD_BYTES_MAX {
        return Err(BodyError::FieldTooLong { field, limit_bytes: FIELD_BYTES_MAX });
    }
    std::str::from_utf8(value).map_err(|error| BodyError::InvalidUtf8 { byte: start + error.valid_up_to() })
}

/// Forms have no booleans: these are the words that engines take for one.
fn flag(value: &str, start: usize) -> Result<bool, BodyError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err(BodyError::Multipart { reason: "`stream` must be true or false", byte: start }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openai::{Api, head};

    const TYPE: Option<&str> = Some("multipart/form-data; charset=x; Boundary=\"a b\"");

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut body = String::from("preamble");
        for (disposition, value) in parts {
            let headers = format!("X-Other: 1\r\ncontent-disposition: form-data; {disposition}");
            body.extend(["\r\n--a b \r\n", &headers, "\r\n\r\n", value]);
        }
        (body + "\r\n--a b--\r\nepilogue").into_bytes()
    }

    fn fault(parts: &[(&str, &str)]) -> BodyError {
        read(TYPE, &form(parts)).unwrap_err()
    }

    #[test]
    fn fields_are_read_and_files_are_jumped_over() {
        let body = form(&[
            ("name=\"file\"; filename=\"a\\\"; name=\\\"model.wav\"", "\r\n--a bc\r\n--a\r\n\u{0}"),
            ("filename=\"x;name=y\"; name=\"other\"", ""),
            ("name=model", "whisper"),
            ("NAME=\"stream\"", "True"),
            ("name=\"user\"", "zoë"),
        ]);
        let head = read(TYPE, &body).unwrap();
        assert_eq!(head.model.as_deref(), Some("whisper"));
        assert_eq!(head.user.as_deref(), Some("zoë"));
        assert!(head.stream);
        assert!(matches!(head.model, Some(Cow::Borrowed(_))));
    }

    #[test]
    fn a_form_may_start_with_its_boundary_or_hold_nothing() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--";
        let kind = Some("multipart/form-data; boundary=b");
        assert_eq!(read(kind, body).unwrap().model.as_deref(), Some("m"));
        assert!(read(kind, b"--b--\r\n").unwrap().model.is_none());
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault(&[("name=model", "a"), ("name=\"model\"", "a")]), BodyError::Duplicate { field: "model" });
        assert_eq!(fault(&[("name=\"bootstrap_host\"", "10.0.0.1")]), BodyError::SteeringField("bootstrap_host"));
        assert!(matches!(fault(&[("filename=x", "a")]), BodyError::Multipart { .. }));
        assert!(matches!(fault(&[("name=stream", "maybe")]), BodyError::Multipart { .. }));
        let long = "x".repeat(FIELD_BYTES_MAX + 1);
        assert_eq!(fault(&[("name=model", &long)]).status(), 413);
        for kind in
            [None, Some("application/json"), Some("multipart/form-data"), Some("multipart/form-data; boundary=")]
        {
            assert!(matches!(read(kind, b"x"), Err(BodyError::ContentType { .. })), "{kind:?}");
        }
        assert_eq!(read(TYPE, b"").unwrap_err(), BodyError::Empty);
    }

    #[test]
    fn a_cut_form_gives_what_came_before_the_cut() {
        let body = form(&[("name=model", "whisper"), ("name=file", "RIFF")]);
        for end in 0..body.len() - 12 {
            let cut = &body[..end];
            assert!(read(TYPE, cut).is_err(), "{end}");
            if let Some(cut) = head::read_cut(Api::AudioTranscriptions, TYPE, cut) {
                assert_eq!(cut.fault, None);
                assert_eq!(cut.head.model.as_deref(), Some("whisper"));
            }
        }
        let end = body.len() - 20;
        assert!(head::read_cut(Api::AudioTranscriptions, TYPE, &body[..end]).is_some());
    }

    proptest! {
        #[test]
        fn values_survive_whatever_surrounds_them(
            file in prop::collection::vec(any::<u8>(), 0..200),
            model in "[^\r\n]{0,40}",
        ) {
            let mut body = b"--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n".to_vec();
            body.extend_from_slice(&file);
            body.extend_from_slice(b"\r\n--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
            body.extend_from_slice(model.as_bytes());
            body.extend_from_slice(b"\r\n--X--\r\n");
            let head = read(Some("multipart/form-data; boundary=X"), &body).unwrap();
            prop_assert_eq!(head.model.as_deref(), Some(model.as_str()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in "(--X|\r\n|\r\n--X|Content-Disposition: form-data; name=|model|\"|;|x){0,20}") {
            let read = read(Some("multipart/form-data; boundary=X"), body.as_bytes());
            prop_assert!(read.is_ok() || read.is_err());
        }
    }
}
