//! YAML text to nodes with positions.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned, budget, options};

use super::super::{Fault, Origin};
use super::{Entry, Node, Scalar, Typed, Value};

/// Values in a file, keys and sections included: some sixty for each of the most endpoints that there can be.
const VALUES_MAX: usize = 1 << 20;

/// The library's own limits are for files of strangers, and lower than what our caps on the files let through.
fn reading() -> Options {
    options! {
        budget: budget! {
            max_nodes: VALUES_MAX,
            // A list or a section is two events, one at each end.
            max_events: 2 * VALUES_MAX + 16,
            // One for each endpoint is not too many.
            max_aliases: VALUES_MAX,
            max_merge_keys: VALUES_MAX,
            enforce_alias_anchor_ratio: false,
        },
    }
}

impl Node {
    /// Reads YAML text; `path` is only for the origins. Text without any value is a configuration in which nothing is
    /// said.
    pub(in super::super) fn parse(text: &str, path: &Arc<Path>) -> Result<Self, Fault> {
        match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, reading()) {
            Ok(raw) => Ok(Source { text, path }.node(raw)),
            Err(error) => {
                let plain = error.without_snippet();
                let location = plain.location();
                let origin = location.map_or_else(|| unplaced(path), |location| origin(&location, path));
                // The position is in the origin already.
                let text = plain.to_string();
                let message = text.split(" at line ").next().unwrap_or(&text);
                // This one goes on with advice to programmers.
                let message = message.split("; use from_str").next().unwrap_or(message);
                let message = match message.split_once("budget breached: ") {
                    Some((_, breach)) if breach.starts_with("Depth") => "is nested too deep",
                    Some(_) => "has more than 1,048,576 values",
                    None => message,
                };
                Err(Fault { origin, key: String::new(), message: format!("not valid YAML: {message}") })
            }
        }
    }
}

/// Where nodes come from.
struct Source<'a> {
    text: &'a str,
    path: &'a Arc<Path>,
}

impl Source<'_> {
    fn node(&self, raw: Spanned<Raw>) -> Node {
        let value = match raw.value {
            Raw::Null => Value::Scalar(Scalar::Null),
            Raw::Text(text) => Value::Scalar(Scalar::Text(text)),
            Raw::Typed(typed) => Value::Scalar(Scalar::Typed(typed, self.written(&raw.defined, typed))),
            Raw::List(list) => Value::List(list.into_iter().map(|raw| self.node(raw)).collect()),
            Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, raw)| self.entry(key, raw)).collect()),
        };
        Node::new(origin(&raw.referenced, self.path), value)
    }

    fn entry(&self, key: Spanned<String>, raw: Spanned<Raw>) -> Entry {
        Entry { key_origin: origin(&key.referenced, self.path), key: key.value, node: self.node(raw) }
    }

    /// The text of a scalar that is not in quotes.
    fn written(&self, at: &Location, typed: Typed) -> Box<str> {
        let span = at.span();
        let range = || {
            let start = usize::try_from(span.byte_offset()?).ok()?;
            Some(start..start.checked_add(usize::try_from(span.byte_len()?).ok()?)?)
        };
        let written = range().and_then(|range| self.text.get(range)).map(str::trim).filter(|text| !text.is_empty());
        debug_assert!(written.is_some(), "{typed:?} has no text");
        written.map_or_else(|| typed.to_string().into(), Box::from)
    }
}

fn origin(location: &Location, path: &Arc<Path>) -> Origin {
    Origin::File { path: Arc::clone(path), line: location.line(), column: location.column() }
}

fn unplaced(path: &Arc<Path>) -> Origin {
    Origin::File { path: Arc::clone(path), line: 0, column: 0 }
}

enum Raw {
    Null,
    Typed(Typed),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(Typed::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(Typed::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(u64::try_from(value).map_or(Typed::Signed(value), Typed::Unsigned)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(Typed::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
