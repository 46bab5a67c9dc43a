//! Endpoints that requests may go to, and who of them serves what.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::domain::ModelProfiles;

use super::Endpoint;

/// The endpoints that serve one model.
#[derive(Debug)]
pub struct ModelView {
    /// The name that requests carry.
    pub name: Box<str>,
    /// For an adapter: the model that it rides on.
    pub parent: Option<Box<str>>,
    /// Who serves it; never empty, in the order of addresses.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// Config profiles, of the first endpoint that comes with some.
    pub profiles: Option<Arc<ModelProfiles>>,
}

/// All endpoints, or those of one pool.
#[derive(Debug, Default)]
pub struct Fleet {
    endpoints: Box<[Arc<Endpoint>]>,
    models: HashMap<Box<str>, ModelView>,
    any_model: Box<[Arc<Endpoint>]>,
    departed: HashSet<Box<str>>,
    has_locks: bool,
}

impl Fleet {
    /// Of endpoints in the order of their addresses.
    pub(super) fn of(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let any_model: Box<[_]> = endpoints.iter().filter(|e| e.spec.models.is_empty()).cloned().collect();
        let mut models: HashMap<Box<str>, Serving> = HashMap::new();
        for endpoint in &endpoints {
            for model in &endpoint.spec.models {
                let adapters = model.adapters.iter().map(|name| (name, Some(&model.name)));
                for (name, parent) in std::iter::once((&model.name, None)).chain(adapters) {
                    let (_, serving) = models
                        .entry(name.as_str().into())
                        .or_insert_with(|| (parent.map(|parent| parent.as_str().into()), Vec::new()));
                    if !serving.last().is_some_and(|last| Arc::ptr_eq(last, endpoint)) {
                        serving.push(Arc::clone(endpoint));
                    }
                }
            }
        }
        let view = |(name, (parent, mut serving)): (Box<str>, Serving)| {
            serving.extend(any_model.iter().cloned());
            let profiles = serving.iter().find_map(|endpoint| endpoint.spec.profiles.clone());
            (name.clone(), ModelView { name, parent, endpoints: serving.into(), profiles })
        };
        let models: HashMap<_, _> = models.into_iter().map(view).collect();
        let locks = |view: &ModelView| view.profiles.as_ref().is_some_and(|profiles| profiles.locked.is_some());
        let has_locks = models.values().any(locks);
        Self { endpoints: endpoints.into(), models, any_model, departed: HashSet::new(), has_locks }
    }

    /// Takes over which models were served here at some time.
    pub(super) fn remember(&mut self, served: &BTreeSet<Box<str>>) {
        self.departed = served.iter().filter(|name| !self.models.contains_key(*name)).cloned().collect();
    }

    /// Whether `model` was served by an endpoint that has left.
    pub fn was_served(&self, model: &str) -> bool {
        self.departed.contains(model)
    }

    /// Whether the profiles of some model lock its strategy.
    pub fn has_locks(&self) -> bool {
        self.has_locks
    }

    /// All of them, in the order of addresses.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Those that serve `model`: the ones that name it and the ones that take any model. Empty if nobody does.
    pub fn serving(&self, model: &str) -> &[Arc<Endpoint>] {
        self.models.get(model).map_or(&self.any_model, |view| &view.endpoints)
    }

    /// The named models and adapters, in no order.
    pub fn models(&self) -> impl Iterator<Item = &ModelView> {
        self.models.values()
    }

    /// One named model or adapter.
    pub fn model(&self, name: &str) -> Option<&ModelView> {
        self.models.get(name)
    }
}

/// A model while its view is being collected: its parent, and who serves it.
type Serving = (Option<Box<str>>, Vec<Arc<Endpoint>>);
