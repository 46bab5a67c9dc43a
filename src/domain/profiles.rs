//! Config profiles of a model: which strategy its requests get.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The profiles of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelProfiles {
    /// Strategy of every request for the model, whatever the client asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Name of the profile of requests that name none, or one that is not there; `default` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Profiles by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<Arc<str>, Profile>,
}

/// One profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Strategy of its requests, unless the client names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Requests a second for the model; 0 means no limit. Kept and shown, not enforced yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests_per_second: u32,
    /// Which requests it is for, where the client leaves the choice to us (`config-profile: auto`).
    #[serde(skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// Lengths by which a profile is chosen; all that are given must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// At least so many tokens of prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_gte: Option<u32>,
    /// Fewer tokens of prompt than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_lt: Option<u32>,
    /// The request limits its answer to at least so many tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_gte: Option<u32>,
    /// The request limits its answer to fewer tokens than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_lt: Option<u32>,
}

impl When {
    /// Whether no length is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
