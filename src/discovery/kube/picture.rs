//! What the cluster looks like, folded from what the watches say, and the endpoints that follow from it. No I/O.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::domain::EndpointSpec;
use crate::state::{Policies, PolicyBook};

use super::endpoints::{Around, endpoints};
use super::objects::{Custom, Name, Pod, PodFacts};
use super::policies::PolicyFacts;
use super::pools::{PoolFacts, adapter_pods};
use super::rules::Rules;
use super::scope::Scopes;
use super::table::{Seen, Table};

/// What a watch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pods.
    Pods,
    /// `InferencePool`s.
    Pools,
    /// AIBrix's LoRA adapters.
    Adapters,
    /// Priorities by name.
    Objectives,
    /// Rules by which models are rewritten.
    Rewrites,
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum Said {
    /// A listing begins; what it has follows as `Pod` and `Custom`.
    Begin,
    /// A pod is there, new or changed.
    Pod(Box<Pod>),
    /// An object of another kind is there, new or changed.
    Custom(Box<Custom>),
    /// The listing is complete.
    Listed,
    /// An object was deleted.
    Gone(Name),
    /// Nothing is known of this kind in the cluster, for now.
    Absent,
}

/// What is to be told to the registry.
#[derive(Debug, Default)]
pub(super) struct Patch {
    /// Addresses that are no endpoints any more.
    pub(super) gone: Vec<SocketAddr>,
    /// Endpoints that came or changed.
    pub(super) put: Vec<EndpointSpec>,
}

#[derive(Debug)]
struct Watch {
    kind: Kind,
    listing: u32,
    /// It has listed once, or was found absent.
    known: bool,
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Picture {
    rules: Rules,
    scopes: Scopes,
    watches: Vec<Watch>,
    pods: Table<PodFacts>,
    pools: Table<PoolFacts>,
    adapters: Table<Vec<String>>,
    objectives: Table<PolicyFacts>,
    rewrites: Table<PolicyFacts>,
    /// Pools, objectives or rewrites have changed.
    policies_changed: bool,
    /// Adapters by the pod that they are on.
    adapters_on: HashMap<Name, BTreeSet<Arc<Name>>>,
    /// What each pod was last told to have.
    addresses: HashMap<Arc<Name>, Vec<SocketAddr>>,
    /// Pods at an address; more than one for moments only. The last one counts.
    holders: HashMap<SocketAddr, Vec<Arc<Name>>>,
    /// Pods whose endpoints may have changed.
    dirty: BTreeSet<Arc<Name>>,
}

impl Picture {
    /// An empty one; a watch is spoken of by its index in `kinds`.
    pub(super) fn new(rules: Rules, scopes: Scopes, kinds: &[Kind]) -> Self {
        let watch = |kind: &Kind| Watch { kind: *kind, listing: 0, known: false };
        Self {
            rules,
            scopes,
            watches: kinds.iter().map(watch).collect(),
            pods: Table::default(),
            pools: Table::default(),
            adapters: Table::default(),
            objectives: Table::default(),
            rewrites: Table::default(),
            policies_changed: false,
            adapters_on: HashMap::new(),
            addresses: HashMap::new(),
            holders: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Folds what a watch says in.
    pub(super) fn fold(&mut self, watch: usize, said: Said) {
        let Some(state) = self.watches.get_mut(watch) else { return };
        let kind = state.kind;
        match said {
            Said::Begin => state.listing += 1,
            Said::Absent => {
                // Not even an empty listing would say more clearly that there is nothing.
                let seen = Seen { watch, listing: u32::MAX };
                state.known = true;
                self.sweep(kind, seen);
            }
            Said::Listed => {
                state.known = true;
                let seen = Seen { watch, listing: state.listing };
                self.sweep(kind, seen);
            }
            Said::Pod(pod) => {
                let seen = Seen { watch, listing: state.listing };
                let name = Name::of(kube::Resource::meta(&*pod));
                let mut facts = pod.facts;
                self.rules.trim(&mut facts);
                if self.is_asked_for(&name.namespace, &facts) {
                    self.dirty.extend(self.pods.put(seen, name, facts));
                } else {
                    self.drop(kind, &name);
                }
            }
            Said::Custom(object) => {
                let seen = Seen { watch, listing: state.listing };
                self.take(kind, seen, &object);
            }
            Said::Gone(name) => self.drop(kind, &name),
        }
    }

    /// Whether a pod can be an endpoint as it is; with a pool that comes or changes, any of its namespace can.
    fn is_asked_for(&self, namespace: &str, facts: &PodFacts) -> bool {
        self.scopes.has_pools(namespace)
            || self.scopes.by_label(namespace) && self.rules.is_engine(facts)
            || self.scopes.local_in(namespace).is_some_and(|(_, pool)| pool.selects(&facts.labels))
    }

    fn take(&mut self, kind: Kind, seen: Seen, object: &Custom) {
        let name = Name::of(kube::Resource::meta(object));
        match kind {
            Kind::Pods => {}
            Kind::Pools => {
                // One that cannot be read selects nothing.
                let facts = PoolFacts::read(object).unwrap_or_default();
                if let Some(name) = self.pools.put(seen, name, facts) {
                    self.touch_namespace(&name.namespace);
                }
            }
            Kind::Objectives | Kind::Rewrites => {
                // One that cannot be read is of no pool.
                let facts = PolicyFacts::read(object).unwrap_or_default();
                self.policies_changed |= self.policies_of(kind).put(seen, name, facts).is_some();
            }
            Kind::Adapters => {
                let before = self.adapters.get(&name).cloned().unwrap_or_default();
                let pods = adapter_pods(object);
                if let Some(name) = self.adapters.put(seen, name, pods.clone()) {
                    self.move_adapter(&name, &before, &pods);
                }
            }
        }
    }

    fn drop(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Pods => self.dirty.extend(self.pods.remove(name).map(|(name, _)| name)),
            Kind::Pools => {
                if self.pools.remove(name).is_some() {
                    self.touch_namespace(&name.namespace);
                }
            }
            Kind::Objectives | Kind::Rewrites => {
                self.policies_changed |= self.policies_of(kind).remove(name).is_some();
            }
            Kind::Adapters => {
                if let Some((name, pods)) = self.adapters.remove(name) {
                    self.move_adapter(&name, &pods, &[]);
                }
            }
        }
    }

    fn sweep(&mut self, kind: Kind, complete: Seen) {
        match kind {
            Kind::Pods => self.dirty.extend(self.pods.sweep(complete).into_iter().map(|(name, _)| name)),
            Kind::Pools => {
                for (name, _) in self.pools.sweep(complete) {
                    self.touch_namespace(&name.namespace);
                }
            }
            Kind::Objectives | Kind::Rewrites => {
                self.policies_changed |= !self.policies_of(kind).sweep(complete).is_empty();
            }
            Kind::Adapters => {
                for (name, pods) in self.adapters.sweep(complete) {
                    self.move_adapter(&name, &pods, &[]);
                }
            }
        }
    }

    fn policies_of(&mut self, kind: Kind) -> &mut Table<PolicyFacts> {
        if kind == Kind::Objectives { &mut self.objectives } else { &mut self.rewrites }
    }

    /// Of a pool.
    fn touch_namespace(&mut self, namespace: &str) {
        self.policies_changed = true;
        self.dirty.extend(self.pods.of_namespace(namespace).map(|(name, _)| Arc::clone(name)));
    }

    /// Pods need not be known yet: they find their adapters when they come.
    fn move_adapter(&mut self, adapter: &Arc<Name>, before: &[String], after: &[String]) {
        let pod = |name: &String| Name::new(&adapter.namespace, name);
        for name in before.iter().map(pod) {
            if let Some(adapters) = self.adapters_on.get_mut(&name) {
                adapters.remove(adapter);
                if adapters.is_empty() {
                    self.adapters_on.remove(&name);
                }
            }
            self.touch_pod(name);
        }
        for name in after.iter().map(pod) {
            self.adapters_on.entry(name.clone()).or_default().insert(Arc::clone(adapter));
            self.touch_pod(name);
        }
    }

    fn touch_pod(&mut self, name: Name) {
        if self.pods.get(&name).is_some() {
            self.dirty.insert(Arc::new(name));
        }
    }

    /// Whether every watch has said what there is.
    pub(super) fn is_complete(&self) -> bool {
        self.watches.iter().all(|watch| watch.known)
    }

    /// Objects that were not taken since the last call, for there are too many of their kind.
    pub(super) fn take_refused(&mut self) -> [(Kind, u64); 5] {
        [
            (Kind::Pods, self.pods.take_refused()),
            (Kind::Pools, self.pools.take_refused()),
            (Kind::Adapters, self.adapters.take_refused()),
            (Kind::Objectives, self.objectives.take_refused()),
            (Kind::Rewrites, self.rewrites.take_refused()),
        ]
    }

    /// Pods known, whether or not they are endpoints.
    pub(super) fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is a pool of that name.
    pub(super) fn has_pool(&self, name: &Name) -> bool {
        self.pools.get(name).is_some()
    }

    /// Priorities and rewrites of our pools, if any of it changed since the last call.
    ///
    /// Of rules, those for named models come first, then the older object, then the order in the object.
    pub(super) fn policies(&mut self) -> Option<PolicyBook> {
        if !std::mem::take(&mut self.policies_changed) {
            return None;
        }
        let mut all = Policies::default();
        let mut pools: HashMap<Name, Policies> =
            self.pools.iter().map(|(pool, _)| (Name::clone(pool), Policies::default())).collect();
        let pool_of = |name: &Name, facts: &PolicyFacts| Name::new(&name.namespace, &facts.pool);
        for (name, facts) in self.objectives.iter() {
            let Some(own) = pools.get_mut(&pool_of(name, facts)) else { continue };
            for policies in [&mut all, own] {
                policies.objectives.insert(name.name.clone(), facts.priority);
            }
        }
        let mut objects: Vec<_> = self.rewrites.iter().collect();
        objects.sort_by_key(|(_, facts)| &facts.created);
        for (name, facts) in objects {
            let Some(own) = pools.get_mut(&pool_of(name, facts)) else { continue };
            for policies in [&mut all, own] {
                policies.rewrites.extend(facts.rules.iter().cloned());
            }
        }
        for policies in pools.values_mut().chain([&mut all]) {
            policies.rewrites.sort_by_key(|rule| rule.models.is_empty());
        }
        let pools = pools.into_iter().map(|(pool, policies)| (pool.to_string().into(), policies));
        Some(PolicyBook::new(all, pools.collect()))
    }

    /// What changed since the last call.
    pub(super) fn patch(&mut self) -> Patch {
        let mut patch = Patch::default();
        while let Some(pod) = self.dirty.pop_first() {
            self.refresh(&pod, &mut patch);
        }
        patch
    }

    fn refresh(&mut self, pod: &Arc<Name>, patch: &mut Patch) {
        let specs = self.pods.get(pod).map(|facts| self.endpoints(pod, facts)).unwrap_or_default();
        let before = self.addresses.remove(pod).unwrap_or_default();
        for address in before.iter().filter(|address| !specs.iter().any(|spec| spec.address == **address)) {
            let Some(holders) = self.holders.get_mut(address) else { continue };
            holders.retain(|holder| holder != pod);
            if let Some(other) = holders.last() {
                // Another pod has the address meanwhile: let it say what is there.
                self.dirty.insert(Arc::clone(other));
            } else {
                self.holders.remove(address);
                patch.gone.push(*address);
            }
        }
        if !specs.is_empty() {
            self.addresses.insert(Arc::clone(pod), specs.iter().map(|spec| spec.address).collect());
        }
        for spec in specs {
            let holders = self.holders.entry(spec.address).or_default();
            if !holders.contains(pod) {
                holders.push(Arc::clone(pod));
            }
            if holders.last() == Some(pod) {
                patch.put.push(spec);
            }
        }
    }

    fn endpoints(&self, pod: &Name, facts: &PodFacts) -> Vec<EndpointSpec> {
        let pools = self.pools.of_namespace(&pod.namespace).map(|(name, pool)| (&*name.name, pool));
        let pools: Vec<_> = pools.chain(self.scopes.local_in(&pod.namespace)).collect();
        let adapters: Vec<_> = self.adapters_on.get(pod).into_iter().flatten().map(|name| &*name.name).collect();
        let by_label = self.scopes.by_label(&pod.namespace);
        endpoints(pod, facts, Around { rules: &self.rules, by_label, pools: &pools, adapters: &adapters })
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
