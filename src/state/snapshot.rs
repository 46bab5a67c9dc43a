//! The immutable picture that a request routes by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Endpoint, Fleet};

/// Everything that routing may know, at one version: the whole fleet, which it derefs to, and the pools in it.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    whole: Fleet,
    pools: HashMap<Box<str>, Fleet>,
    nobody: Fleet,
    by_address: HashMap<SocketAddr, u32>,
}

/// Names of models by the pool that served them at some time; those of the whole fleet are under the empty name.
pub(super) type Served = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

impl Snapshot {
    /// Builds a snapshot; `endpoints` in any order, each address once.
    pub fn build(version: u64, mut endpoints: Vec<Arc<Endpoint>>) -> Self {
        endpoints.sort_by_key(|endpoint| endpoint.spec.address);
        let by_address = (0..).zip(&endpoints).map(|(at, endpoint)| (endpoint.spec.address, at)).collect();
        let mut pools: HashMap<&str, Vec<Arc<Endpoint>>> = HashMap::new();
        for endpoint in &endpoints {
            for pool in &endpoint.spec.pools {
                let members = pools.entry(pool).or_default();
                // Named twice is named.
                if !members.last().is_some_and(|last| Arc::ptr_eq(last, endpoint)) {
                    members.push(Arc::clone(endpoint));
                }
            }
        }
        let pools = pools.into_iter().map(|(name, members)| (name.into(), Fleet::of(members))).collect();
        Self { version, whole: Fleet::of(endpoints), pools, nobody: Fleet::default(), by_address }
    }

    /// The same, knowing which models were served before.
    pub(super) fn remembering(mut self, served: &Served) -> Self {
        for (pool, served) in served {
            let fleet = if pool.is_empty() { Some(&mut self.whole) } else { self.pools.get_mut(pool) };
            if let Some(fleet) = fleet {
                fleet.remember(served);
            }
        }
        self
    }

    /// Counts publications; 0 is the empty snapshot before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints of a pool, none if nobody knows it; all endpoints without one.
    pub fn fleet(&self, pool: Option<&str>) -> &Fleet {
        pool.map_or(&self.whole, |pool| self.pools.get(pool).unwrap_or(&self.nobody))
    }

    /// The whole fleet, under the empty name, and each pool.
    pub(super) fn fleets(&self) -> impl Iterator<Item = (&str, &Fleet)> {
        std::iter::once(("", &self.whole)).chain(self.pools.iter().map(|(name, fleet)| (&**name, fleet)))
    }

    /// The endpoint at an address.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.endpoints().get(*self.by_address.get(&address)? as usize)
    }
}

impl Deref for Snapshot {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.whole
    }
}

/// A handle on the newest snapshot. Clones read the same.
#[derive(Debug, Clone, Default)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

impl Reader {
    /// The newest snapshot; keep it for the whole of one request.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Makes `snapshot` the newest. For the registry, and for tests and simulations that have none.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
