//! A strategy as somebody writes it down, before it is built.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name of a newtype whose scalars are what their format takes them for; elsewhere only their text counts.
pub const TYPED_VALUES: &str = "TypedValues";

/// Parameters, of which only the strategy knows the types.
fn typed_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    struct Typed;

    impl<'de> Visitor<'de> for Typed {
        type Value = Map<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("keys and values")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            Map::deserialize(deserializer)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Map::deserialize(serde::de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_newtype_struct(TYPED_VALUES, Typed)
}

/// A named strategy: either `use`, a registered strategy with parameters of its own, or `scorers` with their weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrategySpec {
    /// The registered strategy that it is made of.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Parameters of that strategy.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "typed_values")]
    pub parameters: Map<String, Value>,
    /// Registered strategies whose filters are applied before the scorers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// What is added up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scorers: Vec<ScorerSpec>,
    /// How one is picked by the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picker: Option<PickerName>,
    /// Strategies that decide in turn where this one cannot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
}

/// One of several scorers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSpec {
    /// The registered strategy whose number it is.
    #[serde(rename = "use")]
    pub base: String,
    /// Its part in the sum, 0 to 1,000,000.
    #[serde(default = "one")]
    pub weight: u32,
    /// The difference, in the scorer's unit, that counts as much as the whole weight; without it, the span between the
    /// best and the worst candidate does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Parameters of that strategy.
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "typed_values")]
    pub parameters: Map<String, Value>,
}

fn one() -> u32 {
    1
}

/// How one of the scored candidates is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PickerName {
    /// The best of all.
    Best,
    /// The better of two drawn at random.
    BestOfTwo,
    /// Drawn, each with a chance in proportion to its sum.
    WeightedRandom,
}

/// Something in the configuration that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Keys and list positions that lead to it, from the root.
    pub path: Vec<String>,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl Complaint {
    /// A complaint about the value at `path`.
    pub fn at<'a>(path: impl IntoIterator<Item = &'a str>, message: impl Into<String>) -> Self {
        Self { path: path.into_iter().map(str::to_owned).collect(), message: message.into() }
    }
}
