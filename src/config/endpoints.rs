//! What is wrong with a list of endpoints, beyond its shape. One rule for `discovery.static` and for discovery files.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::{EndpointConfig, ModelConfig};
use crate::domain::parse_annotation;

/// Longest model or adapter name, in bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 256;

/// Largest weight of an endpoint.
pub const WEIGHT_MAX: u32 = 1_000;

/// All faults of `endpoints`, each with the index of the endpoint that it is about; empty if there are none.
pub fn check_endpoints(endpoints: &[EndpointConfig]) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let mut first_at: HashMap<SocketAddr, usize> = HashMap::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let mut found = check_endpoint(endpoint);
        let first = *first_at.entry(endpoint.address).or_insert(index);
        if first != index {
            found.push(format!("address \"{}\" is given twice, first in entry {}", endpoint.address, first + 1));
        }
        faults.extend(found.into_iter().map(|message| (index, message)));
    }
    faults
}

fn check_endpoint(endpoint: &EndpointConfig) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(check_address("address", endpoint.address));
    faults.extend(endpoint.metrics_address.and_then(|address| check_address("metrics_address", address)));
    if !(1..=WEIGHT_MAX).contains(&endpoint.weight) {
        faults.push(format!("weight {} is not within 1 to {WEIGHT_MAX}", endpoint.weight));
    }
    if !(endpoint.cost.is_finite() && endpoint.cost >= 0.0) {
        faults.push(format!("cost {} is not a finite number of at least 0", endpoint.cost));
    }
    if let Some(error) = endpoint.profiles.as_deref().and_then(|text| parse_annotation(text).err()) {
        faults.push(format!("profiles: {error}"));
    }
    faults.extend(endpoint.pools.iter().filter_map(|pool| check_name("pool", pool)));
    for model in &endpoint.models {
        check_model(model, &mut faults);
    }
    faults
}

/// A destination must be one that a proxy can connect to.
fn check_address(field: &str, address: SocketAddr) -> Option<String> {
    if address.ip().is_unspecified() {
        Some(format!("{field} \"{address}\" is unspecified: nothing can be sent there"))
    } else if address.port() == 0 {
        Some(format!("{field} \"{address}\" has port 0"))
    } else {
        None
    }
}

fn check_model(model: &ModelConfig, faults: &mut Vec<String>) {
    let (name, adapters) = match model {
        ModelConfig::Name(name) => (name, &[][..]),
        ModelConfig::WithAdapters(model) => (&model.name, model.adapters.as_slice()),
    };
    faults.extend(check_name("model", name));
    let mut seen = HashSet::new();
    for adapter in adapters {
        faults.extend(check_name("adapter", adapter));
        if adapter == name {
            faults.push(format!("adapter \"{adapter}\" has the name of its model"));
        } else if !seen.insert(adapter) {
            faults.push(format!("adapter \"{adapter}\" is given twice"));
        }
    }
}

fn check_name(what: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        Some(format!("a name of {what} is empty"))
    } else if name.len() > MODEL_NAME_BYTES_MAX {
        let start: String = name.chars().take(32).collect();
        Some(format!(
            "name of {what} \"{start}...\" has {} bytes, at most {MODEL_NAME_BYTES_MAX} are taken",
            name.len()
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(json: &str) -> EndpointConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_sound_list_has_no_faults() {
        let list = [
            endpoint(r#"{"address":"127.0.0.1:1","weight":1000,"cost":0}"#),
            endpoint(r#"{"address":"[::1]:1","models":["a",{"name":"b","adapters":["c","d"]}]}"#),
        ];
        assert_eq!(check_endpoints(&list), []);
    }

    #[test]
    fn every_fault_is_told_with_its_entry() {
        let long = "x".repeat(MODEL_NAME_BYTES_MAX + 1);
        let list = [
            endpoint(r#"{"address":"127.0.0.1:1"}"#),
            endpoint(r#"{"address":"127.0.0.1:1","weight":0,"cost":-1}"#),
            endpoint(r#"{"address":"0.0.0.0:1","metrics_address":"[::]:9"}"#),
            endpoint(r#"{"address":"127.0.0.1:0","weight":1001}"#),
            endpoint(&format!(r#"{{"address":"[::1]:1","models":["","{long}"]}}"#)),
            endpoint(r#"{"address":"[::1]:2","models":[{"name":"a","adapters":["a","b","b",""]}]}"#),
        ];
        let faults = check_endpoints(&list);
        let count = |index| faults.iter().filter(|(at, _)| *at == index).count();
        assert_eq!((0..6).map(count).collect::<Vec<_>>(), [0, 3, 2, 2, 2, 3], "{faults:#?}");
    }

    #[test]
    fn a_cost_that_is_no_number_is_refused() {
        for cost in [f64::NAN, f64::INFINITY] {
            let list = [EndpointConfig { cost, ..endpoint(r#"{"address":"127.0.0.1:1"}"#) }];
            assert_eq!(check_endpoints(&list).len(), 1);
        }
    }
}
