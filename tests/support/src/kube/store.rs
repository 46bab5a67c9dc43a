//! The objects and what became of them, version by version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

/// Kinds that the server knows, by their plural, with the group and version that their paths have.
const KINDS: [(&str, &str); 6] = [
    ("pods", "/api/v1"),
    ("inferencepools", "/apis/inference.networking.k8s.io/v1"),
    ("modeladapters", "/apis/model.aibrix.ai/v1alpha1"),
    ("inferenceobjectives", "/apis/llm-d.ai/v1alpha2"),
    ("inferencemodelrewrites", "/apis/llm-d.ai/v1alpha2"),
    ("configmaps", "/api/v1"),
];

/// Namespace and name.
type Key = (String, String);

/// One change of one object.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub(super) version: u64,
    plural: &'static str,
    /// What was there before, for watches whose selector it no longer fits.
    before: Option<Arc<Value>>,
    /// What is there now.
    after: Option<Arc<Value>>,
}

/// Everything that the server has.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    /// Watches from before this version have to list again.
    floor: u64,
    objects: HashMap<&'static str, BTreeMap<Key, Arc<Value>>>,
    log: Vec<Happening>,
    pub(super) page_max: usize,
}

/// What is asked for: a kind, perhaps in one namespace, perhaps by a selector.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) plural: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

impl Store {
    pub(super) fn new(without: &[&str]) -> Self {
        let known = KINDS.iter().map(|(plural, _)| *plural).filter(|plural| !without.contains(plural));
        let objects = known.map(|plural| (plural, BTreeMap::new())).collect();
        Self { version: 100, floor: 0, objects, log: Vec::new(), page_max: usize::MAX }
    }

    /// The kind whose objects are at a path such as `/api/v1/namespaces/llm/pods`, and the namespace.
    pub(super) fn at(&self, path: &str) -> Option<(&'static str, Option<String>)> {
        KINDS.iter().filter(|(plural, _)| self.objects.contains_key(plural)).find_map(|(plural, prefix)| {
            let rest = path.strip_prefix(prefix)?.strip_suffix(plural)?.strip_suffix('/')?;
            match rest.strip_prefix("/namespaces/") {
                Some(namespace) => Some((*plural, Some(namespace.to_owned()))),
                None => rest.is_empty().then_some((*plural, None)),
            }
        })
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Adds or replaces; the new version.
    pub(super) fn put(&mut self, plural: &str, mut object: Value) -> u64 {
        self.version += 1;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        }
        let after = Arc::new(object);
        self.change(plural, key(&after), Some(after));
        self.version
    }

    pub(super) fn delete(&mut self, plural: &str, namespace: &str, name: &str) -> u64 {
        self.version += 1;
        self.change(plural, (namespace.to_owned(), name.to_owned()), None);
        self.version
    }

    fn change(&mut self, plural: &str, key: Key, after: Option<Arc<Value>>) {
        let Some(plural) = KINDS.iter().map(|(known, _)| *known).find(|known| *known == plural) else { return };
        let Some(objects) = self.objects.get_mut(plural) else { return };
        let before = match &after {
            Some(object) => objects.insert(key, Arc::clone(object)),
            None => objects.remove(&key),
        };
        if before.is_some() || after.is_some() {
            self.log.push(Happening { version: self.version, plural, before, after });
        }
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.floor = self.version;
        self.log.clear();
    }

    /// Whether a watch can begin at a version.
    pub(super) fn remembers(&self, version: u64) -> bool {
        version >= self.floor
    }

    /// One page: objects, and where the next begins.
    pub(super) fn page(&self, wanted: &Wanted, from: usize, limit: usize) -> (Vec<Arc<Value>>, Option<usize>) {
        let limit = limit.min(self.page_max);
        let all = self.objects.get(wanted.plural).into_iter().flat_map(BTreeMap::values);
        let mut rest = all.filter(|object| wanted.fits(object)).skip(from);
        let page: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let more = rest.next().is_some();
        let next = from + page.len();
        (page, more.then_some(next))
    }

    /// What a watch that has seen `version` has to be told: type and object.
    pub(super) fn since(&self, version: u64, wanted: &Wanted) -> Vec<(&'static str, Value)> {
        let start = self.log.partition_point(|happening| happening.version <= version);
        let told = self.log.get(start..).unwrap_or_default().iter();
        told.filter(|happening| happening.plural == wanted.plural)
            .filter_map(|happening| happening.tell(wanted))
            .collect()
    }
}

impl Happening {
    fn tell(&self, wanted: &Wanted) -> Option<(&'static str, Value)> {
        let before = self.before.as_ref().filter(|object| wanted.fits(object));
        let after = self.after.as_ref().filter(|object| wanted.fits(object));
        match (before, after) {
            (None, Some(object)) => Some(("ADDED", Value::clone(object))),
            (Some(_), Some(object)) => Some(("MODIFIED", Value::clone(object))),
            (Some(object), None) => {
                let mut object = Value::clone(object);
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
                }
                Some(("DELETED", object))
            }
            (None, None) => None,
        }
    }
}

impl Wanted {
    fn fits(&self, object: &Value) -> bool {
        let metadata = |name| object.pointer("/metadata").and_then(|metadata| metadata.get(name));
        let in_namespace = self.namespace.as_ref().is_none_or(|own| metadata("namespace") == Some(&json!(own)));
        let labels = metadata("labels");
        let has = |term: &str| match term.split_once('=') {
            Some((name, value)) => {
                labels.and_then(|labels| labels.get(name)) == Some(&json!(value.trim_start_matches('=')))
            }
            None => labels.is_some_and(|labels| labels.get(term).is_some()),
        };
        let by_label = self.labels.as_ref().is_none_or(|terms| terms.split(',').all(has));
        let by_name = self.fields.as_ref().and_then(|fields| fields.strip_prefix("metadata.name="));
        in_namespace && by_label && by_name.is_none_or(|name| metadata("name") == Some(&json!(name)))
    }
}

fn key(object: &Value) -> Key {
    let text = |name: &str| object.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/metadata/namespace"), text("/metadata/name"))
}
