//! What we read of `InferencePool`s and of AIBrix's adapters.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::domain::Selector;

use super::objects::Custom;

/// What endpoints are made of, of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PoolFacts {
    /// Labels that a pod must have, all of them.
    pub(super) selector: BTreeMap<String, String>,
    /// What its labels must be like, in a pool without an object.
    pub(super) expression: Selector,
    /// Ports, each an endpoint of every pod.
    pub(super) ports: Vec<u16>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WirePool {
    selector: Value,
    target_ports: Vec<WirePort>,
    /// The older group has one port, and the labels without `matchLabels`.
    target_port_number: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WirePort {
    number: u16,
}

impl PoolFacts {
    /// What a pool object says; `None` if it cannot be read.
    pub(super) fn read(object: &Custom) -> Option<Self> {
        let pool = WirePool::deserialize(&object.spec).ok()?;
        let selector = pool.selector.get("matchLabels").unwrap_or(&pool.selector);
        let ports = pool.target_ports.iter().map(|port| port.number).chain(pool.target_port_number);
        let (selector, ports) = (BTreeMap::deserialize(selector).ok()?, ports.filter(|port| *port != 0).collect());
        Some(Self { selector, ports, ..Self::default() })
    }

    /// Whether it takes a pod with these labels. One that asks for nothing takes none.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let asks = !self.selector.is_empty() || self.expression != Selector::default();
        let has_all = || self.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        asks && has_all() && self.expression.matches(labels)
    }
}

/// Names of the pods that hold an adapter, in the adapter's namespace. One that cannot be read is on no pod.
pub(super) fn adapter_pods(object: &Custom) -> Vec<String> {
    let pods = object.status.get("instances").and_then(Value::as_array);
    pods.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: Value, status: Value) -> Custom {
        Custom { spec, status, ..Custom::default() }
    }

    #[test]
    fn both_shapes_of_a_pool_are_read() {
        let new = json!({ "selector": { "matchLabels": { "app": "x" } }, "targetPorts": [{ "number": 8000 }, { "number": 8001 }] });
        let old = json!({ "selector": { "app": "x" }, "targetPortNumber": 8000, "extensionRef": { "name": "y" } });
        let [new, old] = [new, old].map(|spec| PoolFacts::read(&object(spec, Value::Null)).unwrap());
        assert_eq!((new.selector, new.ports), (old.selector, vec![8000, 8001]));
        assert_eq!(old.ports, [8000]);
        assert_eq!(PoolFacts::read(&object(json!({ "selector": 3 }), Value::Null)), None);
    }

    #[test]
    fn an_adapter_names_its_pods() {
        let pods = |status| adapter_pods(&object(Value::Null, status));
        assert_eq!(pods(json!({ "instances": ["a", 3, "b"] })), ["a", "b"]);
        assert_eq!(pods(Value::Null), Vec::<String>::new());
    }
}
