//! Another model than the one asked for: its name is put into the body in the place of the first.

use std::borrow::Cow;
use std::ops::Range;

use crate::openai;

use super::machine::Exchange;

/// A text that takes the place of another one in the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    text: Vec<u8>,
}

impl Edit {
    /// Puts `name`, as it has to be written there, in the place of the model of `head`, which was read from `body`.
    /// `None` where its place is not known: a name that is written with escapes was copied.
    fn model(head: &openai::Head<'_>, body: &[u8], name: &str, is_form: bool) -> Option<Self> {
        let Some(Cow::Borrowed(model)) = head.model else { return None };
        let start = model.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
        let range = start..start.checked_add(model.len())?;
        // Not a slice of this body after all.
        if body.get(range.clone()) != Some(model.as_bytes()) {
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

    fn apply(self, mut body: Vec<u8>) -> Vec<u8> {
        if self.range.end <= body.len() {
            drop(body.splice(self.range, self.text));
        }
        body
    }
}

impl Exchange {
    /// The front end can send another body on than the one that came.
    pub fn allow_rewrite(&mut self) {
        self.may_rewrite = true;
    }

    /// Rewrites the model if a rule says so; everything after this is about the new one.
    pub(super) fn rewrite_model(&mut self, head: &openai::Head<'_>, body: &[u8], is_form: bool) {
        if !self.may_rewrite {
            return;
        }
        let policies = self.core.policies.load();
        let policies = policies.of(self.pool.as_deref());
        let Some(name) = policies.rewrite(&self.asked.model, self.seed) else { return };
        self.edit = Edit::model(head, body, name, is_form);
        if self.edit.is_some() {
            self.asked.model = name.into();
        }
    }

    /// The body's pieces as they came, or as rewritten, for a front end that has to send them back.
    pub fn take_body(&mut self) -> Vec<Vec<u8>> {
        let pieces = self.body.take();
        match self.edit.take() {
            None => pieces,
            Some(edit) => vec![edit.apply(pieces.concat())],
        }
    }

    /// The whole body, if it has to be another one than came.
    pub fn take_rewritten(&mut self) -> Option<Vec<u8>> {
        self.edit.is_some().then(|| self.take_body().concat())
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
    fn a_name_whose_place_is_not_known_stays() {
        assert_eq!(rewritten(r#"{"model":"\u0061","messages":[]}"#, "b"), None);
    }
}
