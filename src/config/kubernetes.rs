//! Where endpoints come from in Kubernetes. Field docs are the text of `docs/configuration.md`.

use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Endpoints from the pods of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesDiscovery {
    /// Namespaces whose pods are found by their model label, separated by commas; `*` means all. Not set: all, but none
    /// where pools are named.
    pub namespaces: Option<NameList>,
    /// `InferencePool`s whose pods are endpoints: `namespace/name`, or `name` in our own namespace, separated by commas;
    /// `*` means all that are in the namespaces.
    pub pools: NameList,
    /// A pool that is written here, for clusters without `InferencePool`s.
    pub local_pool: LocalPool,
    /// API group of `InferencePool`s; `inference.networking.x-k8s.io` is the older one.
    pub pool_group: String,
    /// Label selector that the API server applies to pods; empty means all pods of the namespaces.
    pub pod_selector: String,
    /// Whether AIBrix's `ModelAdapter` objects are read, which say on which pods a LoRA adapter is.
    pub adapters: bool,
    /// Whether `InferenceObjective` and `InferenceModelRewrite` objects are read, where pools are.
    pub objectives: bool,
    /// Port of a pod that names none.
    pub port: u16,
    /// URL of the API server, without credentials. Not set: from `kubeconfig`, else from the pod that we run in.
    pub server: Option<String>,
    /// Path of a kubeconfig file. Not set: the variable `KUBECONFIG` or `~/.kube/config` if there is one, else the pod
    /// that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; not set means its current one.
    pub context: Option<String>,
    /// How long one watch lasts before it is asked for anew. An API server that is silent for 10 s longer is given up.
    #[serde(with = "humantime_serde")]
    pub watch_timeout: Duration,
    /// Names of the labels and annotations of pods.
    pub labels: KubernetesLabels,
}

/// A pool without an object: everything that an `InferencePool` would say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalPool {
    /// Namespace of a pool that is written here; not set means our own.
    pub namespace: Option<String>,
    /// Label selector of the pods of a pool that is written here; empty means that there is no such pool.
    pub selector: String,
    /// Ports of each of its pods, separated by commas; each is an endpoint.
    pub ports: PortList,
}

impl LocalPool {
    /// Whether there is one.
    pub fn is_given(&self) -> bool {
        !self.selector.is_empty()
    }
}

/// Names of the labels and annotations of pods. Each may be several, separated by commas: the first that a pod has
/// counts, as a label before as an annotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesLabels {
    /// The model that the pod serves.
    pub model: NameList,
    /// The port that it serves at.
    pub port: NameList,
    /// The port of its metrics page; without it the serving port.
    pub metrics_port: NameList,
    /// The engine: `vllm`, `sglang`, `trtllm`, `xllm` and so on; without it the engine is recognised by its metrics.
    pub engine: NameList,
    /// `prefill` or `decode`.
    pub role: NameList,
    /// Config profiles, as JSON.
    pub profiles: NameList,
    /// Relative capacity, 1 to 1,000.
    pub weight: NameList,
    /// Relative cost, at least 0.
    pub cost: NameList,
    /// Tier name.
    pub tier: NameList,
    /// Region name.
    pub region: NameList,
    /// The ports of a pool that are live on the pod, separated by commas; without it all of them.
    pub active_ports: NameList,
}

impl Default for KubernetesDiscovery {
    fn default() -> Self {
        Self {
            namespaces: None,
            pools: NameList::default(),
            local_pool: LocalPool::default(),
            pool_group: "inference.networking.k8s.io".to_owned(),
            pod_selector: String::new(),
            adapters: true,
            objectives: true,
            port: 8000,
            server: None,
            kubeconfig: None,
            context: None,
            watch_timeout: Duration::from_secs(30),
            labels: KubernetesLabels::default(),
        }
    }
}

impl Default for LocalPool {
    fn default() -> Self {
        Self { namespace: None, selector: String::new(), ports: PortList(vec![8000]) }
    }
}

impl Default for KubernetesLabels {
    fn default() -> Self {
        let names = NameList::from;
        Self {
            model: names("model.aibrix.ai/name"),
            port: names("model.aibrix.ai/port"),
            metrics_port: names("model.aibrix.ai/metric-port"),
            engine: names("model.aibrix.ai/engine,llm-d.ai/engine-type,inference.networking.k8s.io/engine-type"),
            role: names("role-name,llm-d.ai/role"),
            profiles: names("model.aibrix.ai/config"),
            weight: names("fairlead/weight"),
            cost: names("fairlead/cost"),
            tier: names("fairlead/tier"),
            region: names("fairlead/region"),
            active_ports: names("llm-d.ai/active-ports,inference.networking.k8s.io/active-ports"),
        }
    }
}

/// Names, written as a list or as one text with commas, so that a flag can give them too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameList(Vec<String>);

impl NameList {
    /// The names, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is `*`.
    pub fn has_all(&self) -> bool {
        self.iter().any(|name| name == "*")
    }
}

impl From<&str> for NameList {
    fn from(text: &str) -> Self {
        Self(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

impl Serialize for NameList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

impl<'de> Deserialize<'de> for NameList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write names as a list, or as a text with commas between them")]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self::from(text.as_str()),
            Written::List(names) => Self::from(names.join(",").as_str()),
        })
    }
}

/// Ports, written as a list, as one number, or as one text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortList(Vec<u16>);

impl PortList {
    /// The ports, in the order given.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }
}

impl FromStr for PortList {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.split(',')
            .map(str::trim)
            .filter(|port| !port.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Serialize for PortList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = self.0.iter().map(u16::to_string).collect();
        serializer.serialize_str(&texts.join(","))
    }
}

impl<'de> Deserialize<'de> for PortList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write ports as a list, or as a text with commas between them")]
        enum Written {
            One(One),
            List(Vec<One>),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum One {
            Number(u16),
            Text(String),
        }
        let ports = match Written::deserialize(deserializer)? {
            Written::One(one) => vec![one],
            Written::List(ports) => ports,
        };
        let parsed = |one: One| match one {
            One::Number(port) => Ok(Self(vec![port])),
            One::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("\"{text}\" is not a list of ports"))),
        };
        let ports: Vec<Self> = ports.into_iter().map(parsed).collect::<Result<_, _>>()?;
        Ok(Self(ports.into_iter().flat_map(|ports| ports.0).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_a_list_a_number_or_a_text() {
        for text in ["[8000, 8001]", r#""8000, 8001""#] {
            let ports: PortList = serde_json::from_str(text).unwrap();
            assert_eq!(ports.as_slice(), [8000, 8001]);
        }
        assert_eq!(serde_json::from_str::<PortList>("80").unwrap().as_slice(), [80]);
        assert!(serde_json::from_str::<PortList>(r#""80,x""#).is_err());
    }

    #[test]
    fn names_are_read_from_a_list_or_a_text() {
        for text in [r#"["a", "b/c"]"#, r#""a, b/c,""#] {
            let names: NameList = serde_json::from_str(text).unwrap();
            assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b/c"]);
        }
        assert!(NameList::from("").is_empty() && NameList::from("a,*").has_all());
    }
}
