//! Another model than the one asked for: its name is put into the body in the place of the first, and the first into the
//! answer in the place of the other.

use std::ops::Range;

use crate::openai::{self, Renamed};
use crate::routing::Trace;

use super::Explanation;
use super::asking::MODEL_BYTES_MAX;
use super::machine::{Exchange, Steering};
use super::upstream::Content;

/// What becomes of the model's name in one exchange.
#[derive(Debug, Default)]
pub(super) struct Rewriting {
    /// The front end can send another body on.
    is_allowed: bool,
    /// What is to be changed in the request's body.
    edit: Option<Edit>,
    /// The name that the client used, if the engine is asked for another.
    asked: Option<Box<str>>,
    /// Puts it back into the answer.
    answer: Option<Box<Renamed>>,
}

impl Rewriting {
    /// Tells those who want to know that the model is `now` another than the one asked for.
    pub(super) fn tell(&self, now: &str, trace: &mut Trace) {
        if let Some(asked) = &self.asked {
            trace.note(|| format!("the model \"{}\" is rewritten to \"{now}\"", Explanation::shortened(asked)));
        }
    }
}

/// A text that takes the place of another one in the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    text: Vec<u8>,
}

impl Edit {
    /// Puts `name`, as it has to be written there, in the place of the model of `head`, which was read from `body`.
    fn model(head: &openai::Head<'_>, body: &[u8], name: &str, is_form: bool) -> Option<Self> {
        let written = head.model_written?;
        let start = written.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
        let range = start..start.checked_add(written.len())?;
        // Not a slice of this body after all.
        if body.get(range.clone()) != Some(written.as_bytes()) {
            return None;
        }
        let text = if is_form {
            name.to_owned()
        } else {
            let quoted = serde_json::to_string(name).ok()?;
            quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned()
        };
        Some(Self { range, text: text.into_bytes() })
    }

    fn apply(&self, mut body: Vec<u8>) -> Vec<u8> {
        if self.range.end <= body.len() {
            drop(body.splice(self.range.clone(), self.text.iter().copied()));
        }
        body
    }
}

impl Exchange {
    /// The front end can send another body on than the one that came.
    pub fn allow_rewrite(&mut self) {
        self.rewriting.is_allowed = true;
    }

    /// Rewrites the model if a rule says so. The new name, which everything after this is about.
    pub(super) fn rewrite_model(&mut self, head: &openai::Head<'_>, body: &[u8], is_form: bool) -> Option<Box<str>> {
        let asked = head.model.as_deref().filter(|name| self.rewriting.is_allowed && name.len() <= MODEL_BYTES_MAX)?;
        let policies = self.core.policies.load();
        let name = policies.of(self.pool.as_deref()).rewrite(asked, self.seed)?;
        self.rewriting.edit = Some(Edit::model(head, body, name, is_form)?);
        self.rewriting.asked = Some(asked.into());
        Some(name.into())
    }

    /// The body as it will be sent, if that is another one than came.
    pub(super) fn rewritten(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.rewriting.edit.as_ref().map(|edit| edit.apply(body.to_vec()))
    }

    /// The body's pieces as they came, or as rewritten, for a front end that has to send them back.
    pub fn take_body(&mut self) -> Vec<Vec<u8>> {
        let pieces = self.body.take();
        match self.rewriting.edit.take() {
            None => pieces,
            Some(edit) => vec![edit.apply(pieces.concat())],
        }
    }

    /// The whole body, if it has to be another one than came.
    pub fn take_rewritten(&mut self) -> Option<Vec<u8>> {
        self.rewriting.edit.is_some().then(|| self.take_body().concat())
    }

    /// An answer with such a body begins: the client's name for the model has to go back into it.
    pub(super) fn prepare_to_restore(&mut self, content: Content) {
        let Some(asked) = self.rewriting.asked.take().filter(|_| self.steering == Steering::Real) else { return };
        self.rewriting.answer = match content {
            Content::Events => Some(Box::new(Renamed::in_events(&self.asked.model, &asked))),
            Content::Json => Some(Box::new(Renamed::in_json(&self.asked.model, &asked))),
            Content::Opaque => None,
        };
    }

    /// Whether the answer's body may have to be another one than comes. Known once the response headers were taken.
    pub fn restores_model(&self) -> bool {
        self.rewriting.answer.is_some()
    }

    /// What goes on in the place of a piece of the response body, perhaps nothing; `None` if it goes on as it is. Parts
    /// may be held back until the next piece, but not behind the last.
    pub fn restore_model(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        self.rewriting.answer.as_mut()?.pass(piece, is_last)
    }

    /// What is held back of a response body that ended without a last piece.
    pub fn take_held_back(&mut self) -> Vec<u8> {
        self.rewriting.answer.take().map(|mut answer| answer.finish()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::openai::{Api, head};

    use super::*;

    fn rewritten(body: &str, name: &str) -> Option<String> {
        let read = head::read(Api::Chat, Some("application/json"), body.as_bytes()).unwrap();
        let edit = Edit::model(&read, body.as_bytes(), name, false)?;
        Some(String::from_utf8(edit.apply(body.as_bytes().to_vec())).unwrap())
    }

    #[test]
    fn only_the_name_changes_and_not_a_byte_besides() {
        let body = r#" {"messages":[{"role":"user","content":"model \"a\""}], "model" : "a" ,"x":1.50}"#;
        let expected = r#" {"messages":[{"role":"user","content":"model \"a\""}], "model" : "a\"b" ,"x":1.50}"#;
        assert_eq!(rewritten(body, "a\"b").as_deref(), Some(expected));
    }

    #[test]
    fn a_name_is_replaced_however_it_is_written() {
        let expected = r#"{"messages":[],"mod\u0065l":"b"}"#;
        for name in ["a", r"\u0061", r"\\\/\ud83d\ude00", ""] {
            let body = format!(r#"{{"messages":[],"mod\u0065l":"{name}"}}"#);
            assert_eq!(rewritten(&body, "b").as_deref(), Some(expected), "{name}");
        }
        assert_eq!(rewritten(r#"{"messages":[],"model":null}"#, "b"), None);
    }

    #[test]
    fn a_name_in_a_form_is_replaced_as_it_is() {
        let form = |name: &str| {
            format!("--X\r\nContent-Disposition: form-data; name=model\r\n\r\n{name}\r\n--X--\r\n").into_bytes()
        };
        let body = form("whisper \\u0061");
        let read = head::read(Api::AudioTranscriptions, Some("multipart/form-data; boundary=X"), &body).unwrap();
        let edit = Edit::model(&read, &body, "a\"b", true).unwrap();
        assert_eq!(edit.apply(body.clone()), form("a\"b"));
    }
}
