//! Objects as a cluster has them.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// A pod that serves a model.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub address: SocketAddr,
    /// Labels besides those of AIBrix for model and port.
    pub labels: Vec<(String, String)>,
    /// The model that its label names.
    pub model: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What else it says of itself, which nobody needs: it makes objects as large as they are.
    pub ballast: usize,
}

impl Pod {
    /// A ready pod in namespace `default`.
    pub fn new(name: impl Into<String>, address: SocketAddr, model: impl Into<String>) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.into(),
            address,
            labels: Vec::new(),
            model: Some(model.into()),
            ready: true,
            deleting: false,
            ballast: 0,
        }
    }

    /// Whether it is ready.
    #[must_use]
    pub fn ready(mut self, ready: bool) -> Self {
        self.ready = ready;
        self
    }

    /// Being deleted, and still running.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.deleting = true;
        self
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As the API server tells it.
    pub fn object(&self) -> Value {
        let mut labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        if let Some(model) = &self.model {
            labels.insert("model.aibrix.ai/name".to_owned(), json!(model));
            labels.insert("model.aibrix.ai/port".to_owned(), json!(self.address.port().to_string()));
        }
        let ready = if self.ready { "True" } else { "False" };
        let deleted = self.deleting.then_some("2026-01-01T00:00:00Z");
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": format!("uid-{}", self.name),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": deleted,
                "labels": labels,
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(self.ballast) },
                "managedFields": [{ "manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                    "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:podIP": {} } } }],
            },
            "spec": { "containers": [{ "name": "engine", "image": "engine:1", "env": [{ "name": "A", "value": "b" }] }] },
            "status": {
                "phase": "Running",
                "podIP": self.address.ip().to_string(),
                "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": ready }],
            },
        })
    }
}

/// An object of any kind.
pub fn custom(kind: &str, namespace: &str, name: &str, spec: &Value, status: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" });
    json!({ "kind": kind, "metadata": metadata, "spec": spec, "status": status })
}
