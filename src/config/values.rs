//! Value types of the configuration that have a text form of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{EndpointSpec, EngineKind, ModelSpec, Role, parse_annotation};

/// A place to listen at: `ip:port` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP, dual-stack if the address is `[::]`.
    Tcp(SocketAddr),
    /// A unix domain socket.
    Unix(PathBuf),
}

/// The text is neither `ip:port` nor `unix:PATH`.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not an address: write `ip:port`, `[ipv6]:port` or `unix:PATH`")]
pub struct AddressError(String);

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(AddressError(text.to_owned())),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| AddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One endpoint as a user writes it, in the configuration or in a discovery file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// `ip:port`, IPv6 in brackets.
    pub address: SocketAddr,
    /// Name for people; the address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Models served: names, or `{ name, adapters }`; any model if absent.
    #[serde(default)]
    pub models: Vec<ModelConfig>,
    /// `auto` (default), or the engine's name, or `none`.
    #[serde(default)]
    pub engine: EngineKind,
    /// `both` (default), `prefill` or `decode`.
    #[serde(default)]
    pub role: Role,
    /// Relative capacity, 1 to 1,000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Relative cost, at least 0.
    #[serde(default = "unit_cost")]
    pub cost: f64,
    /// Tier name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Region name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Pools that it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Config profiles of its models, as the JSON of AIBrix's annotation `model.aibrix.ai/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<String>,
    /// Where metrics are read, if not at `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<SocketAddr>,
}

fn one() -> u32 {
    1
}

fn unit_cost() -> f64 {
    1.0
}

/// A served model: its name alone, or with its adapters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "write a model name, or `{ name: …, adapters: […] }`")]
pub enum ModelConfig {
    /// `llama-3-8b`
    Name(String),
    /// `{ name: llama-3-8b, adapters: [sql] }`
    WithAdapters(NamedModel),
}

/// A served model with the LoRA adapters on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// The model's name.
    pub name: String,
    /// Adapter names.
    #[serde(default)]
    pub adapters: Vec<String>,
}

impl From<&EndpointConfig> for EndpointSpec {
    fn from(config: &EndpointConfig) -> Self {
        let model = |model: &ModelConfig| match model {
            ModelConfig::Name(name) => ModelSpec { name: name.clone(), adapters: Vec::new() },
            ModelConfig::WithAdapters(model) => {
                ModelSpec { name: model.name.clone(), adapters: model.adapters.clone() }
            }
        };
        Self {
            address: config.address,
            name: config.name.clone().unwrap_or_else(|| config.address.to_string()),
            models: config.models.iter().map(model).collect(),
            engine: config.engine,
            role: config.role,
            weight: config.weight,
            cost: config.cost,
            tier: config.tier.clone(),
            region: config.region.clone(),
            pools: config.pools.clone(),
            labels: config.labels.clone(),
            // What cannot be read was a fault before.
            profiles: config.profiles.as_deref().and_then(|text| parse_annotation(text).ok()).map(Arc::new),
            metrics_address: config.metrics_address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_read_and_print_the_same() {
        for text in ["127.0.0.1:50052", "[::1]:50052", "unix:run/ext_proc.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "50052", "localhost:1", "unix:"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
