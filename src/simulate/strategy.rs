//! Strategies as the command line names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{Complaint, StrategySpec};
use crate::routing::{Configured, InvalidStrategies, Prefixes, Router, StrategySet};

/// Under which a strategy with parameters of its own is built.
const TUNED: &str = "tuned";

/// Whether a text names a strategy with parameters.
pub(super) fn is_tuned(text: &str) -> bool {
    text.contains('{')
}

/// A new strategy from its name, a combination, or a name followed by parameters as JSON; and what it knows of prefixes.
pub(super) fn router(text: &str) -> Result<(Arc<dyn Router>, Arc<Prefixes>), InvalidStrategies> {
    let mut strategies = BTreeMap::new();
    let mut algorithm = text;
    if let Some(at) = text.find('{') {
        let (name, parameters) = text.split_at(at);
        let fault = |error: serde_json::Error| {
            let message = format!("\"{parameters}\" is not a JSON object of parameters: {error}");
            InvalidStrategies(vec![Complaint::at([], message)])
        };
        let parameters = serde_json::from_str(parameters).map_err(fault)?;
        let spec = StrategySpec { base: Some(name.trim().to_owned()), parameters, ..StrategySpec::default() };
        strategies.insert(TUNED.to_owned(), spec);
        algorithm = TUNED;
    }
    let models = BTreeMap::new();
    let set = StrategySet::configured(Configured::of(algorithm, &strategies, &models))?;
    Ok((Arc::clone(&set.default_strategy().router), Arc::clone(set.prefixes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_followed_by_parameters() {
        assert!(router("random").is_ok() && router("least-request:2,least-kv-cache:1").is_ok());
        assert!(router("prefix-cache{}").is_ok());
        let said = |text| router(text).unwrap_err().to_string();
        assert!(said("prefix-cache{\"speed\":1}").contains("speed"));
        assert!(said("prefix-cash{\"a\":1}").contains("prefix-cache"));
        assert!(said("prefix-cache{a}").contains("JSON"));
    }
}
