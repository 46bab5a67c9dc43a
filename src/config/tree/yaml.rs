//! YAML text to nodes with positions.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::super::{Fault, Origin};
use super::{Entry, Node, Scalar, Value};

impl Node {
    /// Reads YAML text; `path` is only for the origins. Text without any value is a configuration in which nothing is
    /// said.
    pub(in super::super) fn parse(text: &str, path: &Arc<Path>) -> Result<Self, Fault> {
        match serde_saphyr::from_str::<Spanned<Raw>>(text) {
            Ok(raw) => Ok(node(raw, path)),
            Err(error) => {
                let plain = error.without_snippet();
                let location = plain.location();
                let origin = location.map_or_else(|| unplaced(path), |location| origin(&location, path));
                // The position is in the origin already.
                let text = plain.to_string();
                let message = text.split(" at line ").next().unwrap_or(&text);
                // This one goes on with advice to programmers.
                let message = message.split("; use from_str").next().unwrap_or(message);
                Err(Fault { origin, key: String::new(), message: format!("not valid YAML: {message}") })
            }
        }
    }
}

fn node(raw: Spanned<Raw>, path: &Arc<Path>) -> Node {
    let value = match raw.value {
        Raw::Scalar(scalar) => Value::Scalar(scalar),
        Raw::List(list) => Value::List(list.into_iter().map(|raw| node(raw, path)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, raw)| entry(key, raw, path)).collect()),
    };
    Node::new(origin(&raw.referenced, path), value)
}

fn entry(key: Spanned<String>, raw: Spanned<Raw>, path: &Arc<Path>) -> Entry {
    Entry { key_origin: origin(&key.referenced, path), key: key.value, node: node(raw, path) }
}

fn origin(location: &Location, path: &Arc<Path>) -> Origin {
    Origin::File { path: Arc::clone(path), line: location.line(), column: location.column() }
}

fn unplaced(path: &Arc<Path>) -> Origin {
    Origin::File { path: Arc::clone(path), line: 0, column: 0 }
}

enum Raw {
    Scalar(Scalar),
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
        Ok(Raw::Scalar(Scalar::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Scalar::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Scalar::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Scalar::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(u64::try_from(value).map_or(Scalar::Signed(value), Scalar::Unsigned)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Scalar::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Scalar::Text(value.to_owned())))
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
