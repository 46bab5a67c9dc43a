//! Where endpoints come from in Kubernetes. Field docs are the text of `docs/configuration.md`.

use std::path::PathBuf;
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_list_or_a_text() {
        for text in [r#"["a", "b/c"]"#, r#""a, b/c,""#] {
            let names: NameList = serde_json::from_str(text).unwrap();
            assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b/c"]);
        }
        assert!(NameList::from("").is_empty() && NameList::from("a,*").has_all());
    }
}
