//! How endpoints are read off a pod: the names of its labels, and what to do without them.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::config::{KubernetesDiscovery, KubernetesLabels, NameList};

use super::objects::PodFacts;

/// Annotations of AIBrix that say which models of a warm pod are active; the rest of the key names the claim.
pub(super) const CLAIMS: &str = "modelclaim.aibrix.ai/";

/// Label names and defaults.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Names of labels.
    pub(super) labels: KubernetesLabels,
    /// Port of a pod that names none.
    pub(super) port: u16,
}

impl From<&KubernetesDiscovery> for Rules {
    fn from(config: &KubernetesDiscovery) -> Self {
        Self { labels: config.labels.clone(), port: config.port }
    }
}

impl Rules {
    /// Whether a pod says of itself that it serves a model.
    pub(super) fn is_engine(&self, facts: &PodFacts) -> bool {
        let claims = || facts.annotations.keys().any(|key| key.starts_with(CLAIMS));
        !is_follower(facts) && (said(facts, &self.labels.model).is_some() || claims())
    }

    /// Drops the annotations that nobody asks for, which may be large.
    pub(super) fn trim(&self, facts: &mut PodFacts) {
        let labels = &self.labels;
        let asked = [
            &labels.model,
            &labels.port,
            &labels.metrics_port,
            &labels.engine,
            &labels.role,
            &labels.profiles,
            &labels.weight,
            &labels.cost,
            &labels.tier,
            &labels.region,
            &labels.active_ports,
        ];
        let is_asked = |key: &str| key.starts_with(CLAIMS) || asked.iter().any(|names| names.iter().any(|n| n == key));
        facts.annotations.retain(|key, _| is_asked(key));
    }
}

/// The first of `names` that the pod has, as a label before as an annotation; never empty.
pub(super) fn said<'a>(facts: &'a PodFacts, names: &NameList) -> Option<&'a str> {
    let of = |map: &'a BTreeMap<String, String>| names.iter().find_map(|name| Some(map.get(name)?.trim()));
    of(&facts.labels).or_else(|| of(&facts.annotations)).filter(|text| !text.is_empty())
}

/// The same, parsed; `None` also if it cannot be.
pub(super) fn parsed<T: FromStr>(facts: &PodFacts, names: &NameList) -> Option<T> {
    said(facts, names)?.parse().ok()
}

/// Whether the pod is one that others speak for: a worker of Ray, or a follower of an engine that spans several pods.
pub(super) fn is_follower(facts: &PodFacts) -> bool {
    let label = |name| facts.labels.get(name).map(String::as_str);
    let index = label("stormservice.orchestration.aibrix.ai/pod-group-index").and_then(|text| text.parse::<u32>().ok());
    label("ray.io/node-type") == Some("worker") || index.is_some_and(|index| index > 0)
}
