//! Nodes to typed values: a serde data format whose errors carry the path to the node that caused them.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Entry, Node, Scalar, Step, Value};
use crate::domain::hint;

/// Why a node cannot be read.
#[derive(Debug)]
pub(in super::super) struct Problem {
    /// Steps from the root to the faulty node, innermost first while it travels outwards.
    steps: Vec<Step>,
    /// The key itself is wrong, not its value.
    pub(in super::super) about_key: bool,
    pub(in super::super) message: String,
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
        Self { steps: Vec::new(), about_key: false, message: message.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown key; {}", hint(field, expected.iter().copied()));
        Self { about_key: true, ..Self::custom(message) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("\"{variant}\" is not one of the choices; {}", hint(variant, expected.iter().copied())))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string().replace("a sequence", "a list");
        Self::custom(match found {
            de::Unexpected::Seq => format!("is a list, but should be {expected}"),
            de::Unexpected::Map => format!("is keys and values, but should be {expected}"),
            de::Unexpected::Unit => format!("has no value, but should be {expected}"),
            other => format!("is {other}, but should be {expected}"),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("needs the key \"{field}\""))
    }
}

impl Scalar {
    /// The scalar as it is written; `None` for null.
    pub(in super::super) fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(value.to_string()),
            Self::Unsigned(value) => Some(value.to_string()),
            Self::Signed(value) => Some(value.to_string()),
            Self::Float(value) => Some(value.to_string()),
            Self::Text(text) => Some(text.clone()),
        }
    }

    /// Text that came from a flag or the environment, or that was quoted, as the number or the truth value it spells.
    fn parsed(&self) -> Self {
        let Self::Text(text) = self else { return self.clone() };
        let text = text.trim();
        let number = text.parse().map(Self::Unsigned).or_else(|_| text.parse().map(Self::Signed)).ok();
        let value = number.or_else(|| text.parse().map(Self::Bool).ok()).or_else(|| text.parse().map(Self::Float).ok());
        value.unwrap_or_else(|| self.clone())
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(value) => visitor.visit_u64(value),
            Self::Signed(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(text) => visitor.visit_string(text),
        }
    }
}

macro_rules! by_parsing {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            match &self.value {
                Value::Scalar(scalar) => scalar.parsed().visit(visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone().visit(visitor),
            Value::List(nodes) => visitor.visit_seq(Elements(nodes.iter().enumerate())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), current: None }),
        }
    }

    by_parsing! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(scalar) => match scalar.text() {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_unit(),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    /// A section with everything in it commented out is null to YAML; it means that nothing is said.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_map(Entries { rest: [].iter(), current: None }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_seq(Elements([].iter().enumerate())),
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
        match &self.value {
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
        let text = match &self.value {
            Value::Scalar(scalar) => scalar.text(),
            _ => None,
        };
        let text = text.ok_or_else(|| <Problem as de::Error>::custom("needs one word"))?;
        let variant: StrDeserializer<'_, Problem> = text.as_str().into_deserializer();
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Problem;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, node)) = self.0.find(|(_, node)| !node.broken) else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|problem| problem.under(Step::Index(index)))
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
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
        seed.deserialize(&entry.node).map_err(|problem| problem.under(Step::Key(entry.key.clone())))
    }
}
