//! The one writer of the endpoint picture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::domain::{EndpointId, EndpointSpec};

use super::snapshot::Served;
use super::{ENDPOINTS_MAX, Endpoint, Reader, Snapshot};

/// Which discovery source speaks. Where two give the same address, the lower id wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

/// What a source tells the registry.
#[derive(Debug)]
pub enum Change {
    /// The source's whole set, replacing what it gave before. Of two entries with one address the first counts.
    Replace(SourceId, Vec<EndpointSpec>),
    /// A part of the source's set: what came or changed, and what left. The rest stays as it is.
    Patch {
        /// Who speaks.
        source: SourceId,
        /// Addresses that it no longer has; taken before `put`.
        gone: Vec<SocketAddr>,
        /// Endpoints that it has, new or changed.
        put: Vec<EndpointSpec>,
    },
}

/// What became of a batch of changes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Endpoints that came.
    pub added: Vec<Arc<Endpoint>>,
    /// Endpoints that left; whoever keeps state by id must drop it.
    pub removed: Vec<Arc<Endpoint>>,
}

/// A change that could not be taken whole.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// More endpoints than slots.
    #[error("{0} endpoints do not fit: at most {ENDPOINTS_MAX} are kept; the rest are left out")]
    Full(usize),
}

/// Names of models kept after their last endpoint left; names beyond that are forgotten at once.
const MODELS_REMEMBERED_MAX: usize = 4096;

/// The mutable picture. Owned by one task; publishes through its [`Reader`].
#[derive(Debug, Default)]
pub struct Registry {
    sources: BTreeMap<SourceId, HashMap<SocketAddr, EndpointSpec>>,
    endpoints: HashMap<SocketAddr, Arc<Endpoint>>,
    free: Vec<EndpointId>,
    /// Freed by the last change; given out again from the next one on, when everybody was told to forget them.
    freed: Vec<EndpointId>,
    /// Addresses that sources have and that did not fit.
    refused: BTreeSet<SocketAddr>,
    /// Which models were served at some time, so that one whose endpoints restart is not unknown.
    served: Served,
    /// How many names that are.
    remembered: usize,
    slots_used: u32,
    version: u64,
    reader: Reader,
}

impl Registry {
    /// An empty registry; nothing is published yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle on what this registry publishes.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Folds changes into the picture and publishes one snapshot.
    ///
    /// Endpoints that stay keep their id and their numbers, also when their attributes change. Requests that run
    /// on an endpoint that left go on: they own it.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> (Applied, Result<(), RegistryError>) {
        // Addresses that were refused before may fit now. In order, so that slots are given out in that of addresses.
        let mut touched = std::mem::take(&mut self.refused);
        for change in changes {
            self.note(change, &mut touched);
        }
        self.free.append(&mut self.freed);
        let mut applied = Applied::default();
        let (stay, left): (Vec<_>, Vec<_>) = touched.into_iter().partition(|address| self.wanted(address).is_some());
        for address in left {
            if let Some(endpoint) = self.endpoints.remove(&address) {
                self.freed.push(EndpointId { generation: endpoint.id.generation + 1, ..endpoint.id });
                applied.removed.push(endpoint);
            }
        }
        for address in stay {
            self.take(address, &mut applied);
        }
        self.publish();
        let refused = self.refused.len();
        (applied, if refused > 0 { Err(RegistryError::Full(refused)) } else { Ok(()) })
    }

    /// Folds one change into what its source has.
    fn note(&mut self, change: Change, touched: &mut BTreeSet<SocketAddr>) {
        match change {
            Change::Replace(source, specs) => {
                let own = self.sources.entry(source).or_default();
                touched.extend(own.drain().map(|(address, _)| address));
                for spec in specs {
                    touched.insert(spec.address);
                    own.entry(spec.address).or_insert(spec);
                }
            }
            Change::Patch { source, gone, put } => {
                let own = self.sources.entry(source).or_default();
                for address in gone {
                    own.remove(&address);
                    touched.insert(address);
                }
                for spec in put {
                    touched.insert(spec.address);
                    own.insert(spec.address, spec);
                }
            }
        }
    }

    /// What is said of an address by the first source that has it.
    fn wanted(&self, address: &SocketAddr) -> Option<&EndpointSpec> {
        self.sources.values().find_map(|specs| specs.get(address))
    }

    /// Makes the endpoint at an address what the sources say that it is.
    fn take(&mut self, address: SocketAddr, applied: &mut Applied) {
        let Some(spec) = self.wanted(&address) else { return };
        let renewed = match self.endpoints.get(&address) {
            Some(endpoint) if endpoint.spec == *spec => return,
            Some(endpoint) => Arc::new(Endpoint::new(endpoint.id, spec.clone(), Arc::clone(&endpoint.live))),
            None => {
                let spec = spec.clone();
                let Some(id) = next_id(&mut self.free, &mut self.slots_used) else {
                    self.refused.insert(address);
                    return;
                };
                let endpoint = Arc::new(Endpoint::new(id, spec, Arc::default()));
                applied.added.push(Arc::clone(&endpoint));
                endpoint
            }
        };
        self.endpoints.insert(address, renewed);
    }

    fn publish(&mut self) {
        self.version += 1;
        let snapshot = Snapshot::build(self.version, self.endpoints.values().cloned().collect());
        for (pool, fleet) in snapshot.fleets() {
            for view in fleet.models() {
                let is_known = self.served.get(pool).is_some_and(|served| served.contains(&view.name));
                if !is_known && self.remembered < MODELS_REMEMBERED_MAX {
                    self.remembered += 1;
                    self.served.entry(pool.into()).or_default().insert(view.name.clone());
                }
            }
        }
        self.reader.publish(snapshot.remembering(&self.served));
    }
}

fn next_id(free: &mut Vec<EndpointId>, slots_used: &mut u32) -> Option<EndpointId> {
    if let Some(id) = free.pop() {
        return Some(id);
    }
    let slot = *slots_used;
    ((slot as usize) < ENDPOINTS_MAX).then(|| {
        *slots_used += 1;
        EndpointId { slot, generation: 0 }
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::{Clock, ModelSpec, Work};
    use crate::state::Ticket;

    use super::*;

    fn spec(port: u16, models: &[&str]) -> EndpointSpec {
        let models =
            models.iter().map(|name| ModelSpec { name: (*name).to_owned(), adapters: vec![format!("{name}-lora")] });
        EndpointSpec { models: models.collect(), ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port))) }
    }

    fn replace(registry: &mut Registry, source: u16, specs: Vec<EndpointSpec>) -> Applied {
        let (applied, result) = registry.apply([Change::Replace(SourceId(source), specs)]);
        result.unwrap();
        applied
    }

    #[test]
    fn a_changed_attribute_keeps_the_id_and_the_count() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![spec(1, &["a"])]);
        let before = Arc::clone(&registry.reader().load().endpoints()[0]);
        let _ticket = Ticket::open(Arc::clone(&before), Work::default(), &Clock::start());
        let applied = replace(&mut registry, 0, vec![EndpointSpec { weight: 7, ..spec(1, &["a"]) }]);
        let after = Arc::clone(&registry.reader().load().endpoints()[0]);
        assert!(applied.added.is_empty() && applied.removed.is_empty());
        assert_eq!((after.id, after.live.ours.in_flight(), after.spec.weight), (before.id, 1, 7));
    }

    #[test]
    fn a_reused_slot_is_another_endpoint() {
        let mut registry = Registry::new();
        let first = replace(&mut registry, 0, vec![spec(1, &[])]).added[0].id;
        replace(&mut registry, 0, vec![]);
        let meanwhile = registry.reader().load();
        assert!(meanwhile.endpoints().is_empty());
        let second = replace(&mut registry, 0, vec![spec(2, &[])]).added[0].id;
        assert_eq!(first.slot, second.slot);
        assert_ne!(first, second);
    }

    #[test]
    fn a_slot_is_not_given_out_by_the_change_that_frees_it() {
        let mut registry = Registry::new();
        let first = replace(&mut registry, 0, vec![spec(1, &[])]).added[0].id;
        let second = replace(&mut registry, 0, vec![spec(2, &[])]).added[0].id;
        assert_ne!(first.slot, second.slot);
    }

    #[test]
    fn a_model_whose_endpoints_left_is_remembered_but_not_listed() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![spec(1, &["a"]), spec(2, &["b"])]);
        replace(&mut registry, 0, vec![spec(1, &["a"])]);
        let snapshot = registry.reader().load();
        assert!(snapshot.model("b").is_none() && snapshot.was_served("b") && !snapshot.was_served("c"));
    }

    #[test]
    fn sources_do_not_erase_each_other_and_the_first_wins() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![EndpointSpec { weight: 2, ..spec(1, &[]) }]);
        replace(&mut registry, 1, vec![spec(1, &[]), spec(2, &[])]);
        let snapshot = registry.reader().load();
        assert_eq!(snapshot.endpoints().len(), 2);
        assert_eq!(snapshot.endpoints()[0].spec.weight, 2);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![spec(1, &["a"]), spec(2, &["a"]), spec(3, &["a"])]);
        let before = registry.reader().load();
        let gone = vec![spec(2, &[]).address, spec(9, &[]).address];
        let put = vec![EndpointSpec { weight: 3, ..spec(3, &["a"]) }, spec(4, &["b"])];
        let (applied, result) = registry.apply([Change::Patch { source: SourceId(0), gone, put }]);
        result.unwrap();
        let after = registry.reader().load();
        assert_eq!((applied.added.len(), applied.removed.len(), after.endpoints().len()), (1, 1, 3));
        assert!(Arc::ptr_eq(&before.endpoints()[0], &after.endpoints()[0]));
        assert_eq!((after.endpoints()[1].id, after.endpoints()[1].spec.weight), (before.endpoints()[2].id, 3));
    }

    #[test]
    fn an_address_that_moves_within_a_patch_stays_the_same_endpoint() {
        let mut registry = Registry::new();
        let id = replace(&mut registry, 0, vec![spec(1, &["a"])]).added[0].id;
        let (gone, put) = (vec![spec(1, &[]).address], vec![spec(1, &["b"])]);
        let (applied, _) = registry.apply([Change::Patch { source: SourceId(0), gone, put }]);
        assert!(applied.added.is_empty() && applied.removed.is_empty());
        assert_eq!(registry.reader().load().endpoints()[0].id, id);
    }

    #[test]
    fn what_a_second_source_has_stays_when_the_first_gives_it_up() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![spec(1, &["a"])]);
        replace(&mut registry, 1, vec![EndpointSpec { weight: 5, ..spec(1, &["a"]) }]);
        let id = registry.reader().load().endpoints()[0].id;
        replace(&mut registry, 0, vec![]);
        let endpoint = Arc::clone(&registry.reader().load().endpoints()[0]);
        assert_eq!((endpoint.id, endpoint.spec.weight), (id, 5));
    }

    #[test]
    fn models_and_adapters_are_found_with_the_endpoints_that_take_any() {
        let mut registry = Registry::new();
        replace(&mut registry, 0, vec![spec(1, &["a"]), spec(2, &["a", "b"]), spec(3, &[])]);
        let snapshot = registry.reader().load();
        let ports = |model| snapshot.serving(model).iter().map(|e| e.spec.address.port()).collect::<Vec<_>>();
        assert_eq!(ports("a"), [1, 2, 3]);
        assert_eq!(ports("b-lora"), [2, 3]);
        assert_eq!(ports("unheard-of"), [3]);
        assert_eq!(snapshot.model("b-lora").unwrap().parent.as_deref(), Some("b"));
    }

    #[test]
    fn more_endpoints_than_slots_are_refused_and_the_rest_kept() {
        let specs = (0..=ENDPOINTS_MAX as u32)
            .map(|n| EndpointSpec::at(SocketAddr::from(((0x7f00_0001 + n).to_be_bytes(), 80))))
            .collect();
        let mut registry = Registry::new();
        let (applied, result) = registry.apply([Change::Replace(SourceId(0), specs)]);
        assert!(matches!(result, Err(RegistryError::Full(1))));
        assert_eq!(applied.added.len(), ENDPOINTS_MAX);
    }
}
