//! What discovery says about an engine endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ModelProfiles;

/// A dense handle on an endpoint: `slot` indexes arrays and bitsets, `generation` makes a reused slot a different endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Index into arrays and bitsets; the registry keeps it below its cap.
    pub slot: u32,
    /// Counts how often the slot was given out.
    pub generation: u32,
}

/// Which inference engine answers at an endpoint. It decides how its metrics are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Recognised by what its metrics page says.
    #[default]
    Auto,
    /// vLLM, and whatever exports the same metrics.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// TensorRT-LLM's own server, `trtllm-serve`.
    Trtllm,
    /// TensorRT-LLM in Triton.
    Triton,
    /// llama.cpp's `llama-server`.
    Llamacpp,
    /// Text Generation Inference.
    Tgi,
    /// xLLM.
    Xllm,
    /// An engine whose metrics the configuration names.
    Generic,
    /// An engine without metrics that we read; routing uses our own counts alone.
    None,
}

impl EngineKind {
    /// Every kind, in the order of the enumeration.
    pub const ALL: [Self; 10] = [
        Self::Auto,
        Self::Vllm,
        Self::Sglang,
        Self::Trtllm,
        Self::Triton,
        Self::Llamacpp,
        Self::Tgi,
        Self::Xllm,
        Self::Generic,
        Self::None,
    ];

    /// Name in the configuration and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Trtllm => "trtllm",
            Self::Triton => "triton",
            Self::Llamacpp => "llamacpp",
            Self::Tgi => "tgi",
            Self::Xllm => "xllm",
            Self::Generic => "generic",
            Self::None => "none",
        }
    }
}

/// The part an endpoint plays when prefill and decode are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Does both.
    #[default]
    Both,
    /// Prefill only.
    Prefill,
    /// Decode only.
    Decode,
}

/// A model that an endpoint serves, with the LoRA adapters that ride on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ModelSpec {
    /// The name that requests carry in `model`.
    pub name: String,
    /// Adapter names, each of which is a model name of its own for requests.
    pub adapters: Vec<String>,
}

/// An endpoint as discovery describes it. Its address is its identity: the same address with other
/// attributes is the same endpoint, changed, and keeps its counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointSpec {
    /// Where requests go, `ip:port`.
    pub address: SocketAddr,
    /// Name for people: the pod's name, or the address.
    pub name: String,
    /// Models served; empty means that any model is accepted.
    pub models: Vec<ModelSpec>,
    /// Engine kind.
    pub engine: EngineKind,
    /// Role in disaggregated serving.
    pub role: Role,
    /// Relative capacity, 1 to 1,000; weighted strategies send in proportion to it.
    pub weight: u32,
    /// Cost of a token relative to others, in any unit, at least 0.
    pub cost: f64,
    /// Tier name, such as `spot`.
    pub tier: Option<String>,
    /// Region name.
    pub region: Option<String>,
    /// Names of the pools that it is in.
    pub pools: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Config profiles that come with it, for the models that it serves.
    pub profiles: Option<Arc<ModelProfiles>>,
    /// Where metrics are read; `None` means the endpoint's own address.
    pub metrics_address: Option<SocketAddr>,
}

impl EndpointSpec {
    /// An endpoint at `address` with every attribute at its default, serving any model.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            name: address.to_string(),
            models: Vec::new(),
            engine: EngineKind::default(),
            role: Role::default(),
            weight: 1,
            cost: 1.0,
            tier: None,
            region: None,
            pools: Vec::new(),
            labels: BTreeMap::new(),
            profiles: None,
            metrics_address: None,
        }
    }

    /// Address of the metrics page.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address.unwrap_or(self.address)
    }
}
