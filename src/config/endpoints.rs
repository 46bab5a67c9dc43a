//! What is wrong with a list of endpoints, beyond its shape. One rule for `discovery.static` and for discovery files.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::{EndpointConfig, ModelConfig};
use crate::domain::parse_annotation;

/// Longest name of an endpoint, a model, an adapter, a pool and so on, in bytes.
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
    let optional = [("name", &endpoint.name), ("tier", &endpoint.tier), ("region", &endpoint.region)];
    faults.extend(optional.into_iter().filter_map(|(what, text)| check_text(what, text.as_deref()?)));
    faults.extend(endpoint.pools.iter().filter_map(|pool| check_text("name of pool", pool)));
    for (label, value) in &endpoint.labels {
        faults.extend(check_text("label", label));
        faults.extend((!value.is_empty()).then(|| check_text("value of label", value)).flatten());
    }
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
    faults.extend(check_text("name of model", name));
    let mut seen = HashSet::new();
    for adapter in adapters {
        faults.extend(check_text("name of adapter", adapter));
        if adapter == name {
            faults.push(format!("adapter \"{adapter}\" has the name of its model"));
        } else if !seen.insert(adapter) {
            faults.push(format!("adapter \"{adapter}\" is given twice"));
        }
    }
}

/// Whether a text may become part of a header or a metric.
pub fn is_plain_text(text: &str) -> bool {
    check_text("", text).is_none()
}

/// A text that becomes part of a header or a metric: not empty, not endless, of printable characters, and without spaces
/// around it.
pub(super) fn check_text(what: &str, text: &str) -> Option<String> {
    let start: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    if text.is_empty() {
        Some(format!("{what} is empty"))
    } else if text.len() > MODEL_NAME_BYTES_MAX {
        Some(format!("{what} \"{start}...\" has {} bytes, at most {MODEL_NAME_BYTES_MAX} are taken", text.len()))
    } else if text.contains(char::is_control) {
        Some(format!("{what} \"{start}\" has a control character; write it without"))
    } else if text.trim() != text {
        Some(format!("{what} \"{start}\" has spaces around it; write it without"))
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
    fn text_that_would_be_no_header_is_refused_wherever_it_stands() {
        let bad = ["a\nb", "a\u{0}", "\u{7f}", "\u{85}", " a", "a ", ""];
        for bad in bad {
            let bad = serde_json::to_string(bad).unwrap();
            for field in [
                format!(r#""name":{bad}"#),
                format!(r#""tier":{bad}"#),
                format!(r#""region":{bad}"#),
                format!(r#""pools":[{bad}]"#),
                format!(r#""models":[{bad}]"#),
                format!(r#""models":[{{"name":"m","adapters":[{bad}]}}]"#),
                format!(r#""labels":{{{bad}:"x"}}"#),
            ] {
                let faults = check_endpoints(&[endpoint(&format!(r#"{{"address":"127.0.0.1:1",{field}}}"#))]);
                assert_eq!(faults.len(), 1, "{field}: {faults:?}");
                assert!(!faults[0].1.contains(char::is_control), "{field}: {faults:?}");
            }
        }
        let sound = r#"{"address":"127.0.0.1:1","name":"Köln 1","labels":{"a/b":""},"tier":"gold"}"#;
        assert_eq!(check_endpoints(&[endpoint(sound)]), []);
    }

    #[test]
    fn a_cost_that_is_no_number_is_refused() {
        for cost in [f64::NAN, f64::INFINITY] {
            let list = [EndpointConfig { cost, ..endpoint(r#"{"address":"127.0.0.1:1"}"#) }];
            assert_eq!(check_endpoints(&list).len(), 1);
        }
    }
}
