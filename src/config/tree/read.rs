//! Nodes to typed values: a serde data format whose errors carry the path to the node that caused them.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Entry, Node, Scalar, Step, Typed, Value};
use crate::domain::{TYPED_VALUES, hint};

/// Why a node cannot be read.
#[derive(Debug)]
pub(in super::super) struct Problem {
    /// Steps from the root to the faulty node, innermost first while it travels outwards.
    steps: Vec<Step>,
    /// The key itself is wrong, not its value.
    pub(in super::super) about_key: bool,
    pub(in super::super) message: String,
    /// The key that is missing, if that is what is wrong.
    pub(in super::super) missing: Option<&'static str>,
}

impl Problem {
    /// Steps from the root to the faulty node.
    pub(in super::super) fn path(&self) -> Vec<Step> {
        self.steps.iter().rev().cloned().collect()
    }

    fn under(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { steps: Vec::new(), about_key: false, message: message.to_string(), missing: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown key; {}", hint(field, expected.iter().copied()));
        Self { about_key: true, ..Self::custom(message) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("\"{variant}\" is not one of the choices; {}", hint(variant, expected.iter().copied())))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self::custom(match found {
            de::Unexpected::Seq => format!("is a list, but should be {expected}"),
            de::Unexpected::Map => format!("is keys and values, but should be {expected}"),
            de::Unexpected::Unit => format!("has no value, but should be {expected}"),
            de::Unexpected::Str(text) => format!("is \"{text}\", but should be {expected}"),
            other => format!("is {other}, but should be {expected}"),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::custom(format!("needs the key \"{field}\"")) }
    }
}

/// What a type's name means to a reader of the file.
fn in_words(expected: &str) -> String {
    match expected {
        "f32" | "f64" => "a number".to_owned(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, at least 0".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") || other == "a map" => "keys and values".to_owned(),
        other => other.to_owned(),
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
        }
    }
}

impl Typed {
    /// What a text spells that came from a flag or the environment, or was in quotes.
    fn parsed(text: &str) -> Option<Self> {
        let number = text.parse().map(Self::Unsigned).or_else(|_| text.parse().map(Self::Signed)).ok();
        number.or_else(|| text.parse().map(Self::Bool).ok()).or_else(|| text.parse().map(Self::Float).ok())
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(value) => visitor.visit_u64(value),
            Self::Signed(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
        }
    }
}

impl Scalar {
    /// The scalar as it is written; `None` for null.
    pub(in super::super) fn text(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Typed(_, text) => Some(text),
            Self::Text(text) => Some(text),
        }
    }

    /// As the number or the truth value that it is or spells; else as text.
    fn visit_typed<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Typed(typed, _) => typed.visit(visitor),
            Self::Text(text) => match Typed::parsed(text.trim()) {
                Some(typed) => typed.visit(visitor),
                None => visitor.visit_str(text),
            },
        }
    }

    fn visit_text<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Problem> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => visitor.visit_unit(),
        }
    }
}

/// A node being read. Where a type takes anything, a scalar is the text that was written, unless the type is one of
/// [`TYPED_VALUES`].
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Reader<'de> {
    node: &'de Node,
    is_typed: bool,
}

impl Node {
    /// To be read as a value.
    pub(in super::super) fn reader(&self) -> Reader<'_> {
        Reader { node: self, is_typed: false }
    }
}

macro_rules! by_parsing {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            match &self.node.value {
                Value::Scalar(scalar) => scalar.visit_typed(visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Scalar(Scalar::Typed(typed, _)) if self.is_typed => typed.visit(visitor),
            Value::Scalar(scalar) => scalar.visit_text(visitor),
            Value::List(nodes) => visitor.visit_seq(Elements::of(nodes, self.is_typed)),
            Value::Map(entries) => visitor.visit_map(Entries::of(entries, self.is_typed)),
        }
    }

    by_parsing! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Scalar(scalar) => scalar.visit_text(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Scalar(Scalar::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(Self { is_typed: self.is_typed || name == TYPED_VALUES, ..self })
    }

    /// A section with everything in it commented out is null to YAML; it means that nothing is said.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Scalar(Scalar::Null) => visitor.visit_map(Entries::of(&[], self.is_typed)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Scalar(Scalar::Null) => visitor.visit_seq(Elements::of(&[], self.is_typed)),
            // A struct can be read from a list too, by position; nobody means that.
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::List(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &"keys and values")),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let text = match &self.node.value {
            Value::Scalar(scalar) => scalar.text(),
            _ => None,
        };
        let text = text.ok_or_else(|| <Problem as de::Error>::custom("needs one word"))?;
        let variant: StrDeserializer<'_, Problem> = text.into_deserializer();
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Elements<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    is_typed: bool,
}

impl<'de> Elements<'de> {
    fn of(nodes: &'de [Node], is_typed: bool) -> Self {
        Self { rest: nodes.iter().enumerate(), is_typed }
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Problem;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, node)) = self.rest.find(|(_, node)| !node.broken) else { return Ok(None) };
        let reader = Reader { node, is_typed: self.is_typed };
        seed.deserialize(reader).map(Some).map_err(|problem| problem.under(Step::Index(index)))
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
    is_typed: bool,
}

impl<'de> Entries<'de> {
    fn of(entries: &'de [Entry], is_typed: bool) -> Self {
        Self { rest: entries.iter(), current: None, is_typed }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.rest.find(|entry| !entry.node.broken);
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Problem> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|problem| problem.under(Step::Key(entry.key.clone())))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some(entry) = self.current else { return Err(de::Error::custom("a value was asked for before its key")) };
        let reader = Reader { node: &entry.node, is_typed: self.is_typed };
        seed.deserialize(reader).map_err(|problem| problem.under(Step::Key(entry.key.clone())))
    }
}
