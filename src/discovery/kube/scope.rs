//! What is watched where, as the configuration says.

use std::collections::BTreeSet;

use crate::config::{KubernetesDiscovery, LocalPool, NameList};
use crate::domain::Selector;

use super::objects::Name;
use super::pools::PoolFacts;

/// Name of the pool that the configuration describes.
const LOCAL: &str = "local";

/// A part of the cluster that one watch covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// All namespaces.
    All,
    /// One namespace.
    Namespace(String),
    /// One object.
    Object(Name),
}

impl Scope {
    /// The namespace of an object, or the scope itself.
    fn namespace(&self) -> Self {
        match self {
            Self::Object(name) => Self::Namespace(name.namespace.to_string()),
            wider => wider.clone(),
        }
    }

    /// Whether it has anything of a namespace.
    fn touches(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(name) => name == namespace,
            Self::Object(name) => &*name.namespace == namespace,
        }
    }
}

/// What is watched where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scopes {
    /// Where pods are watched.
    pub(super) pods: Vec<Scope>,
    /// Which pools are watched.
    pub(super) pools: Vec<Scope>,
    /// Where pods are found by their model label.
    pub(super) labelled: Vec<Scope>,
    /// The pool that the configuration describes.
    pub(super) local: Option<(Name, PoolFacts)>,
    /// Pools that were named: without them we have nothing to route to.
    pub(super) named: Vec<Name>,
}

impl Scopes {
    /// As `config` says; `own` is our own namespace.
    pub(super) fn plan(config: &KubernetesDiscovery, own: &str) -> Self {
        let given = config.namespaces.as_ref().filter(|names| !names.is_empty());
        let places = given.map_or_else(|| vec![Scope::All], scopes);
        let local = local(&config.local_pool, own);
        let no_pools = config.pools.is_empty() && local.is_none();
        let labelled = if given.is_some() || no_pools { places.clone() } else { Vec::new() };
        let named: BTreeSet<Name> =
            config.pools.iter().filter(|name| *name != "*").map(|name| pool(name, own)).collect();
        let pools = if config.pools.has_all() { places } else { named.iter().cloned().map(Scope::Object).collect() };
        let mut pods: BTreeSet<Scope> = labelled.iter().cloned().collect();
        pods.extend(pools.iter().map(Scope::namespace));
        pods.extend(local.iter().map(|(name, _)| Scope::Namespace(name.namespace.to_string())));
        if pods.contains(&Scope::All) {
            pods = BTreeSet::from([Scope::All]);
        }
        Self { pods: pods.into_iter().collect(), pools, labelled, local, named: named.into_iter().collect() }
    }

    /// Where objectives and rewrites of the pools are.
    pub(super) fn policies(&self) -> BTreeSet<Scope> {
        self.pools.iter().map(Scope::namespace).collect()
    }

    /// Whether no other pods than those of the pool that the configuration describes are asked for.
    pub(super) fn is_local_alone(&self) -> bool {
        self.local.is_some() && self.pools.is_empty() && self.labelled.is_empty()
    }

    /// Whether the pods of a namespace are found by their model label.
    pub(super) fn by_label(&self, namespace: &str) -> bool {
        self.labelled.iter().any(|scope| scope.touches(namespace))
    }

    /// Whether pools of a namespace are watched.
    pub(super) fn has_pools(&self, namespace: &str) -> bool {
        self.pools.iter().any(|scope| scope.touches(namespace))
    }

    /// The pool that the configuration describes, if it is in that namespace.
    pub(super) fn local_in(&self, namespace: &str) -> Option<(&str, &PoolFacts)> {
        let (name, pool) = self.local.as_ref().filter(|(name, _)| &*name.namespace == namespace)?;
        Some((&name.name, pool))
    }
}

/// The pool that is described, unless there is none, or its selector cannot be read.
fn local(pool: &LocalPool, own: &str) -> Option<(Name, PoolFacts)> {
    let expression = Selector::parse(&pool.selector).ok().filter(|_| pool.is_given())?;
    let facts = PoolFacts { expression, ports: pool.ports.as_slice().to_vec(), ..PoolFacts::default() };
    Some((Name::new(pool.namespace.as_deref().unwrap_or(own), LOCAL), facts))
}

fn scopes(names: &NameList) -> Vec<Scope> {
    if names.has_all() {
        return vec![Scope::All];
    }
    let names: BTreeSet<_> = names.iter().map(|name| Scope::Namespace(name.to_owned())).collect();
    names.into_iter().collect()
}

fn pool(name: &str, own: &str) -> Name {
    let (namespace, name) = name.split_once('/').unwrap_or((own, name));
    Name::new(namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &str, pools: &str) -> Scopes {
        let namespaces = Some(NameList::from(namespaces)).filter(|names| !names.is_empty());
        Scopes::plan(&KubernetesDiscovery { namespaces, pools: pools.into(), ..KubernetesDiscovery::default() }, "own")
    }

    fn at(name: &str) -> Scope {
        Scope::Namespace(name.to_owned())
    }

    #[test]
    fn without_pools_pods_are_found_by_label_everywhere_or_where_it_is_said() {
        let all = plan("", "");
        assert_eq!((all.pods, all.pools), (vec![Scope::All], vec![]));
        let some = plan("b,a,b", "");
        assert_eq!(some.pods, [at("a"), at("b")]);
        assert!(some.labelled == some.pods);
        assert_eq!(plan("a,*", "").pods, [Scope::All]);
    }

    #[test]
    fn named_pools_alone_mean_no_other_pods_than_theirs() {
        let plan = plan("", "p,llm/q");
        assert_eq!(plan.pods, [at("llm"), at("own")]);
        assert_eq!(plan.named, [Name::new("llm", "q"), Name::new("own", "p")]);
        assert!(!plan.by_label("own") && plan.pools.len() == 2);
    }

    #[test]
    fn a_pool_without_an_object_means_the_pods_of_its_namespace_alone() {
        let plan = |namespace: Option<&str>, namespaces: &str| {
            let local_pool = LocalPool {
                namespace: namespace.map(str::to_owned),
                selector: "app in (x, y)".to_owned(),
                ..LocalPool::default()
            };
            let namespaces = Some(NameList::from(namespaces)).filter(|names| !names.is_empty());
            let config = KubernetesDiscovery { namespaces, local_pool, ..KubernetesDiscovery::default() };
            Scopes::plan(&config, "own")
        };
        let alone = plan(None, "");
        assert_eq!((alone.pods.as_slice(), alone.is_local_alone()), (&[at("own")][..], true));
        let both = plan(Some("llm"), "a");
        assert_eq!((both.pods.as_slice(), both.is_local_alone()), (&[at("a"), at("llm")][..], false));
        assert!(both.by_label("a") && !both.by_label("llm"));
    }

    #[test]
    fn pools_and_namespaces_are_watched_side_by_side() {
        let both = plan("a", "llm/q");
        assert_eq!(both.pods, [at("a"), at("llm")]);
        assert!(both.by_label("a") && !both.by_label("llm"));
        let every = plan("a,b", "*");
        assert_eq!((every.pods, every.pools), (vec![at("a"), at("b")], vec![at("a"), at("b")]));
    }
}
