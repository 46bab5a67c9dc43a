//! From a pod to its endpoints: pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::{WEIGHT_MAX, is_plain_text};
use crate::domain::{EndpointSpec, EngineKind, ModelSpec, Role, parse_annotation};

use super::objects::{Name, PodFacts};
use super::pools::PoolFacts;
use super::rules::{CLAIMS, Rules, is_follower, parsed, said};

/// Label that we add: the pod's namespace.
const NAMESPACE: &str = "fairlead/namespace";
/// Label that we add: the pool that the endpoint is of.
const POOL: &str = "fairlead/pool";
/// Ports of one pod at most.
const PORTS_MAX: usize = 64;

/// What decides what becomes of a pod, besides the pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// Label names and defaults.
    pub(super) rules: &'a Rules,
    /// Whether the pods of its namespace are found by their model label.
    pub(super) by_label: bool,
    /// The pools of its namespace.
    pub(super) pools: &'a [(&'a str, &'a PoolFacts)],
    /// Names of the LoRA adapters on it.
    pub(super) adapters: &'a [&'a str],
}

/// The endpoints of a pod, each address once. A pod that is not ready has none; nor has one that nobody asked for.
///
/// A pool's ports come before the pod's own, so that a pod that is found both ways is of the pool.
pub(super) fn endpoints(pod: &Name, facts: &PodFacts, around: Around<'_>) -> Vec<EndpointSpec> {
    let Some(ip) = facts.routable else { return Vec::new() };
    let rules = around.rules;
    let mut ports: Vec<Port<'_>> = Vec::new();
    for (pool, at) in around.pools.iter().filter(|(_, pool)| pool.selects(&facts.labels)) {
        let live = said(facts, &rules.labels.active_ports).map(port_list);
        let numbers = at.ports.iter().filter(|port| live.as_ref().is_none_or(|live| live.contains(port)));
        ports.extend(numbers.map(|number| Port { number: *number, pool: Some(pool), model: None }));
    }
    let model = said(facts, &rules.labels.model).filter(|name| is_plain_text(name));
    if around.by_label && !is_follower(facts) {
        if model.is_some() {
            let first = parsed(facts, &rules.labels.port).filter(|port| *port != 0).unwrap_or(rules.port);
            let ranks = (first..=u16::MAX).take(usize::from(facts.ranks));
            ports.extend(ranks.map(|number| Port { number, pool: None, model: None }));
        }
        ports.extend(claims(facts).map(|claim| Port { number: claim.port, pool: None, model: Some(claim.model) }));
    }
    let mut specs: Vec<EndpointSpec> = Vec::new();
    for port in ports.into_iter().take(PORTS_MAX) {
        let address = SocketAddr::new(ip, port.number);
        let name = port.model.as_deref().or(model);
        match specs.iter_mut().find(|spec| spec.address == address) {
            // Two pools at one port: one engine in both.
            Some(spec) if port.pool.is_some() => spec.pools.extend(pool_name(pod, port.pool)),
            // Two claims at one port, or a claim at the pod's own: one engine with two models.
            Some(spec) if port.model.is_some() && !spec.models.iter().any(|m| Some(m.name.as_str()) == name) => {
                spec.models.extend(name.map(|name| ModelSpec { name: name.to_owned(), adapters: Vec::new() }));
            }
            Some(_) => {}
            None => specs.push(Endpoint { pod, facts, around, name, pool: port.pool }.spec(address)),
        }
    }
    for (rank, spec) in specs.iter_mut().enumerate().skip(1) {
        spec.name = format!("{}-rank-{rank}", pod.name);
    }
    specs
}

/// The name by which a request means a pool.
fn pool_name(pod: &Name, pool: Option<&str>) -> Option<String> {
    pool.map(|pool| format!("{}/{pool}", pod.namespace))
}

/// A port that something answers at.
struct Port<'a> {
    number: u16,
    pool: Option<&'a str>,
    /// The model there, where it is not the pod's own.
    model: Option<String>,
}

/// Everything that one endpoint is made of.
struct Endpoint<'a> {
    pod: &'a Name,
    facts: &'a PodFacts,
    around: Around<'a>,
    name: Option<&'a str>,
    pool: Option<&'a str>,
}

impl Endpoint<'_> {
    fn spec(&self, address: SocketAddr) -> EndpointSpec {
        let (facts, names) = (self.facts, &self.around.rules.labels);
        // An annotation can hold anything; what would be no header is as good as not there.
        let text = |names| said(facts, names).filter(|text| is_plain_text(text)).map(str::to_owned);
        let metrics_port: Option<u16> = parsed(facts, &names.metrics_port).filter(|port| *port != 0);
        let cost = parsed(facts, &names.cost).filter(|cost: &f64| cost.is_finite() && *cost >= 0.0);
        let profiles = said(facts, &names.profiles).and_then(|json| parse_annotation(json).ok());
        EndpointSpec {
            address,
            name: self.pod.name.to_string(),
            models: self.name.map(|name| self.model(name)).into_iter().collect(),
            engine: said(facts, &names.engine).map(engine).unwrap_or_default(),
            role: said(facts, &names.role).map(role).unwrap_or_default(),
            weight: parsed(facts, &names.weight).unwrap_or(1).clamp(1, WEIGHT_MAX),
            cost: cost.unwrap_or(1.0),
            tier: text(&names.tier),
            region: text(&names.region),
            pools: pool_name(self.pod, self.pool).into_iter().collect(),
            labels: self.labels(),
            profiles: profiles.map(Arc::new),
            metrics_address: metrics_port.map(|port| SocketAddr::new(address.ip(), port)).filter(|at| *at != address),
        }
    }

    fn model(&self, name: &str) -> ModelSpec {
        let adapters = self.around.adapters.iter().filter(|adapter| **adapter != name);
        ModelSpec { name: name.to_owned(), adapters: adapters.map(|adapter| (*adapter).to_owned()).collect() }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.facts.labels.clone();
        labels.insert(NAMESPACE.to_owned(), self.pod.namespace.to_string());
        if let Some(pool) = self.pool {
            labels.insert(POOL.to_owned(), pool.to_owned());
        }
        labels
    }
}

/// A model of a warm pod, at a port of its own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claim {
    model: String,
    port: u16,
    state: Option<String>,
}

/// The claims on a pod that are active; without a state, one with a port is.
fn claims(facts: &PodFacts) -> impl Iterator<Item = Claim> {
    let read = |text: &String| serde_json::from_str::<Claim>(text).ok();
    let claims = facts.annotations.iter().filter(|(key, _)| key.starts_with(CLAIMS)).filter_map(move |(_, c)| read(c));
    claims
        .filter(|claim| claim.port != 0 && is_plain_text(&claim.model))
        .filter(|claim| claim.state.as_deref().is_none_or(|state| state == "active"))
}

fn port_list(text: &str) -> Vec<u16> {
    text.split(',').filter_map(|port| port.trim().parse().ok()).collect()
}

/// The engine of that name, as AIBrix, llm-d or we write it; one that we do not know is found out by its metrics.
fn engine(name: &str) -> EngineKind {
    match name {
        "trtllm-serve" => EngineKind::Trtllm,
        "triton-tensorrt-llm" => EngineKind::Triton,
        // No metrics that we read.
        "xdit" => EngineKind::None,
        name => EngineKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or_default(),
    }
}

fn role(name: &str) -> Role {
    match name {
        "prefill" => Role::Prefill,
        "decode" => Role::Decode,
        _ => Role::Both,
    }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
