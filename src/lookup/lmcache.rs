//! Who has a prompt in `LMCache`, by its controller or by its newer coordinator.
//!
//! The controller names for each chunk only the instance that registered first, so its answer is a hint. The coordinator
//! names all. What lies in a store that all instances share, such as Redis, is nobody's: it makes no endpoint better than
//! another, and is left out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use xxhash_rust::xxh3::Xxh3;

use crate::ask::Asker;
use crate::config::LmCache as Config;
use crate::domain::{Clock, EndpointId, Moment};
use crate::state::{Endpoint, Reader};

use super::breaker::Breaker;

/// Label with an endpoint's `lmcache_instance_id`, where that is not its name.
const INSTANCE: &str = "lmcache-instance";
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Answers kept.
const KEPT_MAX: usize = 1024;
/// Addresses asked about at a refresh.
const ADDRESSES_MAX: usize = 1024;

type Depths = Vec<(EndpointId, u32)>;

/// Asks.
#[derive(Debug)]
pub(super) struct LmCache {
    config: Config,
    asker: Asker,
    reader: Reader,
    clock: Clock,
    breaker: Breaker<()>,
    kept: Mutex<HashMap<u128, (Moment, Depths)>>,
    /// Instances by the address of their host, as `LMCache` tells it.
    instances: Mutex<HashMap<String, IpAddr>>,
}

/// The controller's answer: location and tokens by instance.
#[derive(Debug, Deserialize)]
struct Layout {
    layout_info: BTreeMap<String, (String, u32)>,
}

/// The controller's answer about an address.
#[derive(Debug, Deserialize)]
struct InstanceOf {
    res: Option<String>,
}

/// The coordinator's answer, chunk by chunk.
#[derive(Debug, Deserialize)]
struct Directory {
    results: Vec<Chunk>,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    placements: Vec<Placement>,
    #[serde(default)]
    token_ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Placement {
    instance_id: String,
    #[serde(default)]
    shared: bool,
}

/// The coordinator's list.
#[derive(Debug, Deserialize)]
struct Instances {
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    instance_id: String,
    ip: Option<String>,
}

/// Tokens by instance, as the controller tells them.
pub(super) fn of_controller(answer: &[u8]) -> Option<Vec<(String, u32)>> {
    let layout: Layout = serde_json::from_slice(answer).ok()?;
    Some(layout.layout_info.into_iter().map(|(instance, (_, tokens))| (instance, tokens)).collect())
}

/// Tokens by instance, as the coordinator tells them: the chunks that an instance has without a gap from the first.
pub(super) fn of_coordinator(answer: &[u8]) -> Option<Vec<(String, u32)>> {
    let directory: Directory = serde_json::from_slice(answer).ok()?;
    let mut depths: BTreeMap<String, (usize, u32)> = BTreeMap::new();
    for (at, chunk) in directory.results.into_iter().enumerate() {
        let tokens = chunk.token_ids.len() as u32;
        for placement in chunk.placements.into_iter().filter(|placement| !placement.shared) {
            let depth = depths.entry(placement.instance_id).or_default();
            if depth.0 == at {
                *depth = (at + 1, depth.1 + tokens);
            }
        }
    }
    let depths = depths.into_iter().map(|(instance, (_, tokens))| (instance, tokens));
    Some(depths.filter(|(_, tokens)| *tokens > 0).collect())
}

impl LmCache {
    /// `None` where none is configured.
    pub(super) fn new(config: Config, reader: Reader, clock: Clock) -> Option<Self> {
        (config.controller.is_some() || config.coordinator.is_some()).then(|| Self {
            config,
            asker: Asker::new(ANSWER_BYTES_MAX),
            reader,
            clock,
            breaker: Breaker::default(),
            kept: Mutex::default(),
            instances: Mutex::default(),
        })
    }

    /// Tokens of the prompt by endpoint; `None` if it could not be had in time.
    pub(super) async fn held(&self, tokens: &[u32], model: &str, salt: Option<&str>) -> Option<Depths> {
        let (key, now) = (key_of(tokens, model, salt), self.clock.now());
        if let Some(kept) = self.kept(key, now) {
            return Some(kept);
        }
        if !self.breaker.allows(&(), now) {
            return None;
        }
        let asked = timeout(self.config.timeout, self.ask(tokens, model, salt)).await;
        let Some(told) = asked.ok().flatten() else {
            self.breaker.failed((), self.clock.now());
            return None;
        };
        self.breaker.answered(&());
        let depths = self.of_endpoints(&told, model);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (now, depths.clone()));
        Some(depths)
    }

    fn kept(&self, key: u128, now: Moment) -> Option<Depths> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, depths) = kept.get(&key)?;
        (at.until(now) < self.config.cache_life).then(|| depths.clone())
    }

    async fn ask(&self, tokens: &[u32], model: &str, salt: Option<&str>) -> Option<Vec<(String, u32)>> {
        if let Some(base) = &self.config.coordinator {
            let question =
                json!({ "token_ids": tokens, "model_name": model, "world_size": 1, "cache_salt": salt.unwrap_or("") });
            return of_coordinator(&self.post(base, "/directory/lookup", &question).await?);
        }
        let base = self.config.controller.as_deref()?;
        of_controller(&self.post(base, "/lookup", &json!({ "tokens": tokens })).await?)
    }

    async fn post(&self, base: &str, path: &str, question: &serde_json::Value) -> Option<Vec<u8>> {
        let uri = uri_of(base, path)?;
        self.asker.post(uri, Bytes::from(question.to_string())).await.ok()
    }

    /// Instances as endpoints: by label, by name, or by the address of their host.
    fn of_endpoints(&self, told: &[(String, u32)], model: &str) -> Depths {
        let snapshot = self.reader.load();
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens_of = |endpoint: &Arc<Endpoint>| {
            let is_it = |instance: &str| {
                let name = endpoint.spec.labels.get(INSTANCE).unwrap_or(&endpoint.spec.name);
                name == instance || instances.get(instance) == Some(&endpoint.spec.address.ip())
            };
            let tokens = told.iter().filter(|(instance, _)| is_it(instance)).map(|(_, tokens)| *tokens).max();
            tokens.map(|tokens| (endpoint.id, tokens))
        };
        snapshot.serving(model).iter().filter_map(tokens_of).collect()
    }

    /// Learns which instance is where. For every half minute or so.
    pub(super) async fn refresh(&self) {
        let found = match (&self.config.coordinator, &self.config.controller) {
            (Some(base), _) => self.list(base).await,
            (None, Some(base)) => Some(self.query(base).await),
            (None, None) => None,
        };
        if let Some(found) = found {
            *self.instances.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    async fn list(&self, base: &str) -> Option<HashMap<String, IpAddr>> {
        let asked = timeout(self.config.timeout * 10, self.asker.get_at(uri_of(base, "/instances")?)).await;
        let told: Instances = serde_json::from_slice(&asked.ok()?.ok()?).ok()?;
        let located = |instance: Instance| Some((instance.instance_id, instance.ip?.parse().ok()?));
        Some(told.instances.into_iter().filter_map(located).collect())
    }

    /// Asks for each endpoint's address whose it is.
    async fn query(&self, base: &str) -> HashMap<String, IpAddr> {
        let snapshot = self.reader.load();
        let mut addresses: Vec<IpAddr> =
            snapshot.endpoints().iter().map(|endpoint| endpoint.spec.address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut found = HashMap::new();
        for ip in addresses.into_iter().take(ADDRESSES_MAX) {
            let question = json!({ "event_id": "fairlead", "ip": ip.to_string() });
            let asked = timeout(self.config.timeout * 10, self.post(base, "/query_instance", &question)).await;
            let told = asked.ok().flatten().and_then(|answer| serde_json::from_slice::<InstanceOf>(&answer).ok());
            if let Some(instance) = told.and_then(|told| told.res) {
                found.insert(instance, ip);
            }
        }
        found
    }
}

fn uri_of(base: &str, path: &str) -> Option<Uri> {
    format!("{}{path}", base.trim_end_matches('/')).parse().ok()
}

fn key_of(tokens: &[u32], model: &str, salt: Option<&str>) -> u128 {
    let mut hasher = Xxh3::new();
    for text in [model, salt.unwrap_or_default()] {
        hasher.update(text.as_bytes());
        hasher.update(&[0xff]);
    }
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    hasher.digest128()
}
