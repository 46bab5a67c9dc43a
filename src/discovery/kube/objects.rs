//! The objects of the API as far as we read them. Everything else of their JSON is passed over while it is parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, NamespaceResourceScope};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Name of a container's environment variable that says how many data-parallel ranks with ports of their own a pod has,
/// as in AIBrix. Engines' scripts have variables of similar names for ranks behind one port.
const DATA_PARALLEL: &str = "data-parallel-size";

/// Which object: namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    /// Its namespace.
    pub(super) namespace: Box<str>,
    /// Its name.
    pub(super) name: Box<str>,
}

impl Name {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Of an object that the API server sent; both are always there.
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "WirePod")]
pub(super) struct Pod {
    /// Namespace, name and version alone.
    pub(super) meta: ObjectMeta,
    /// What endpoints are made of.
    pub(super) facts: PodFacts,
}

/// What endpoints are made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PodFacts {
    /// Its address, if it has one and is ready and is not being deleted.
    pub(super) routable: Option<IpAddr>,
    /// Data-parallel ranks, each with a port of its own; at least 1.
    pub(super) ranks: u16,
    /// All labels.
    pub(super) labels: BTreeMap<String, String>,
    /// All annotations; only those that are asked for are kept later.
    pub(super) annotations: BTreeMap<String, String>,
}

/// An object of a kind that the cluster may not know.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "WireCustom")]
pub(super) struct Custom {
    pub(super) meta: ObjectMeta,
    /// When it was made, as RFC 3339 text, which sorts by age.
    pub(super) created: String,
    /// What it is to be.
    pub(super) spec: Value,
    /// What it is.
    pub(super) status: Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
    creation_timestamp: Option<String>,
}

impl WireMeta {
    fn identity(&mut self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.take(),
            namespace: self.namespace.take(),
            resource_version: self.resource_version.take(),
            ..ObjectMeta::default()
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WirePod {
    metadata: WireMeta,
    spec: Option<WireSpec>,
    status: Option<WireStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSpec {
    containers: Option<Vec<WireContainer>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireContainer {
    env: Option<Vec<WireVariable>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireVariable {
    name: String,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<WireCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireCondition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct WireCustom {
    metadata: WireMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<WirePod> for Pod {
    fn from(mut pod: WirePod) -> Self {
        let status = pod.status.unwrap_or_default();
        let is_ready = |condition: &WireCondition| condition.r#type == "Ready" && condition.status == "True";
        let ready = status.conditions.iter().flatten().any(is_ready) && pod.metadata.deletion_timestamp.is_none();
        let address: Option<IpAddr> = status.pod_ip.and_then(|text| text.parse().ok());
        let containers = pod.spec.and_then(|spec| spec.containers);
        let variables = containers.iter().flatten().flat_map(|container| container.env.iter().flatten());
        let ranks = variables
            .filter(|variable| variable.name == DATA_PARALLEL)
            .find_map(|variable| variable.value.as_deref()?.trim().parse().ok());
        Self {
            facts: PodFacts {
                routable: address.filter(|ip| ready && !ip.is_unspecified()),
                ranks: ranks.unwrap_or(1).max(1),
                labels: pod.metadata.labels.take().unwrap_or_default(),
                annotations: pod.metadata.annotations.take().unwrap_or_default(),
            },
            meta: pod.metadata.identity(),
        }
    }
}

impl From<WireCustom> for Custom {
    fn from(mut object: WireCustom) -> Self {
        let created = object.metadata.creation_timestamp.take().unwrap_or_default();
        Self { meta: object.metadata.identity(), created, spec: object.spec, status: object.status }
    }
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl Resource for Custom {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: Value) -> PodFacts {
        serde_json::from_value::<Pod>(json).unwrap().facts
    }

    #[test]
    fn a_pod_is_routable_while_it_is_ready_has_an_address_and_is_not_being_deleted() {
        let with = |deleted: Value, ip: &str, ready: &str| {
            pod(json!({
                "metadata": { "name": "p", "namespace": "n", "deletionTimestamp": deleted, "managedFields": [{ "x": 1 }] },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
                "status": { "phase": "Running", "podIP": ip, "conditions": [
                    { "type": "Initialized", "status": "True" }, { "type": "Ready", "status": ready }] },
            }))
            .routable
        };
        assert_eq!(with(Value::Null, "10.0.0.1", "True"), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(with(Value::Null, "fd00::1", "True"), Some("fd00::1".parse().unwrap()));
        assert_eq!(with(Value::Null, "10.0.0.1", "False"), None);
        assert_eq!(with(Value::Null, "", "True"), None);
        assert_eq!(with(json!("2026-01-01T00:00:00Z"), "10.0.0.1", "True"), None);
    }

    #[test]
    fn a_pod_of_nothing_but_a_name_is_read() {
        let facts = pod(json!({ "metadata": { "name": "p" } }));
        assert_eq!(facts, PodFacts { ranks: 1, ..PodFacts::default() });
    }

    #[test]
    fn data_parallel_ranks_come_from_a_containers_environment() {
        let env = json!([{ "name": "A" }, { "name": "data-parallel-size", "value": "4" }]);
        let facts = pod(json!({ "metadata": {}, "spec": { "containers": [{ "name": "x" }, { "env": env }] } }));
        assert_eq!(facts.ranks, 4);
        let env = json!([{ "name": "DATA_PARALLEL_SIZE", "value": "4" }]);
        let facts = pod(json!({ "metadata": {}, "spec": { "containers": [{ "env": env }] } }));
        assert_eq!(facts.ranks, 1, "the engine's own affair");
    }
}
