//! What we read of `InferenceObjective` and `InferenceModelRewrite` objects.

use serde::Deserialize;

use crate::config::is_plain_text;
use crate::state::Rewrite;

use super::objects::Custom;

/// An objective, or a set of rewrites, of a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PolicyFacts {
    /// Name of the pool whose requests it is for, in its own namespace.
    pub(super) pool: String,
    /// When the object was made, which sorts by age.
    pub(super) created: String,
    /// An objective's priority.
    pub(super) priority: i32,
    /// Rules, the first that fits counts.
    pub(super) rules: Vec<Rewrite>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    pool_ref: WireRef,
    priority: Option<i32>,
    rules: Vec<WireRule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireRef {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireRule {
    matches: Vec<WireMatch>,
    targets: Vec<WireTarget>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireMatch {
    model: Option<WireModel>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireModel {
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireTarget {
    weight: Option<u32>,
    model_rewrite: String,
}

impl PolicyFacts {
    /// What an object says; `None` if it cannot be read.
    pub(super) fn read(object: &Custom) -> Option<Self> {
        let wire = Wire::deserialize(&object.spec).ok()?;
        Some(Self {
            pool: wire.pool_ref.name,
            created: object.created.clone(),
            priority: wire.priority.unwrap_or(0),
            rules: wire.rules.into_iter().map(rule).collect(),
        })
    }
}

fn rule(wire: WireRule) -> Rewrite {
    // A match without a model fits all, and so does the rule then.
    let models: Option<Vec<_>> = wire.matches.into_iter().map(|given| Some(given.model?.value.into())).collect();
    let is_name = |target: &WireTarget| is_plain_text(&target.model_rewrite);
    let targets = wire.targets.into_iter().filter(is_name);
    Rewrite {
        models: models.unwrap_or_default(),
        targets: targets.map(|target| (target.model_rewrite.into(), target.weight.unwrap_or(1).max(1))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Option<PolicyFacts> {
        PolicyFacts::read(&Custom { spec, ..Custom::default() })
    }

    #[test]
    fn an_objective_has_a_priority_and_0_without_one() {
        let facts = read(json!({ "priority": -2, "poolRef": { "name": "p" } })).unwrap();
        assert_eq!((facts.priority, facts.pool.as_str()), (-2, "p"));
        assert_eq!(read(json!({})).unwrap().priority, 0);
        assert_eq!(read(json!({ "priority": "high" })), None);
    }

    #[test]
    fn rules_have_models_and_weighted_targets() {
        let exact = json!({ "matches": [{ "model": { "type": "Exact", "value": "a" } }],
            "targets": [{ "weight": 9, "modelRewrite": "b" }, { "modelRewrite": "" }] });
        let generic = json!({ "targets": [{ "modelRewrite": "c" }] });
        let rules = read(json!({ "rules": [exact, generic] })).unwrap().rules;
        assert_eq!(rules[0], Rewrite { models: vec!["a".into()], targets: vec![("b".into(), 9)] });
        assert_eq!(rules[1], Rewrite { models: vec![], targets: vec![("c".into(), 1)] });
    }
}
