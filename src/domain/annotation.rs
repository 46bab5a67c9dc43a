//! AIBrix's annotation `model.aibrix.ai/config`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{ModelProfiles, Profile, When};

/// Why an annotation says nothing.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// It is not the JSON that AIBrix knows.
    #[error("not a model configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no profiles.
    #[error("there are no profiles in it")]
    Empty,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotation {
    locked_routing_strategy: Option<String>,
    default_profile: Option<String>,
    profiles: BTreeMap<Arc<str>, Annotated>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotated {
    routing_strategy: Option<String>,
    requests_per_second: u32,
    routing_config: Hints,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    prompt_tokens_gte: Option<u32>,
    prompt_tokens_lt: Option<u32>,
    max_tokens_gte: Option<u32>,
    max_tokens_lt: Option<u32>,
}

/// Reads the annotation `model.aibrix.ai/config`. Keys that are not ours are passed over: `routingConfig` is free.
///
/// # Errors
/// If it cannot be read, or has no profiles; its lock does not count then either.
pub fn parse_annotation(text: &str) -> Result<ModelProfiles, AnnotationError> {
    let read: Annotation = serde_json::from_str(text)?;
    if read.profiles.is_empty() {
        return Err(AnnotationError::Empty);
    }
    let some = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let profile = |(name, profile): (Arc<str>, Annotated)| {
        let Hints { prompt_tokens_gte, prompt_tokens_lt, max_tokens_gte, max_tokens_lt } = profile.routing_config;
        let when = When { prompt_tokens_gte, prompt_tokens_lt, max_tokens_gte, max_tokens_lt };
        let (strategy, requests_per_second) = (some(profile.routing_strategy), profile.requests_per_second);
        (name, Profile { strategy, requests_per_second, when })
    };
    Ok(ModelProfiles {
        locked: some(read.locked_routing_strategy),
        default: some(read.default_profile),
        profiles: read.profiles.into_iter().map(profile).collect(),
    })
}

/// Profiles as AIBrix writes them.
#[cfg(test)]
pub(crate) const SAMPLE: &str = r#"{
    "lockedRoutingStrategy": "",
    "defaultProfile": "chat",
    "profiles": {
        "chat": { "routingStrategy": "least-request", "requestsPerSecond": 5 },
        "long": { "routingStrategy": "throughput", "routingConfig": { "promptTokensGte": 1000, "other": [1] } },
        "longest": { "routingStrategy": "random", "routingConfig": { "promptTokensGte": 5000 } },
        "batch": { "routingConfig": { "promptTokensGte": 1000, "maxTokensGte": 512 } },
        "short": { "routingConfig": { "promptTokensLt": 100, "maxTokensLt": 64 } },
        "a-short": { "routingConfig": { "promptTokensLt": 100, "maxTokensLt": 64 } }
    }
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_of_aibrix_is_read_and_keys_that_are_not_ours_are_passed_over() {
        let read = parse_annotation(SAMPLE).unwrap();
        assert_eq!((read.locked, read.default.as_deref(), read.profiles.len()), (None, Some("chat"), 6));
        assert_eq!(read.profiles["chat"].requests_per_second, 5);
        assert_eq!(read.profiles["long"].strategy.as_deref(), Some("throughput"));
    }

    #[test]
    fn an_annotation_without_profiles_does_not_count_nor_does_its_lock() {
        assert!(matches!(parse_annotation(r#"{"lockedRoutingStrategy":"random"}"#), Err(AnnotationError::Empty)));
        assert!(matches!(parse_annotation("{"), Err(AnnotationError::Json(_))));
        assert!(parse_annotation("[]").is_err());
    }
}
