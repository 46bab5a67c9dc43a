//! Which strategy an exchange gets, in terms of HTTP.

use crate::openai::ApiError;
use crate::routing::{ChoiceError, Wish};

use super::RequestHead;

/// Tells the client which config profile applied (AIBrix).
pub(super) const PROFILE_HEADER: &str = "x-aibrix-config-profile";

impl RequestHead {
    /// What the client asks for.
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish { strategy: self.strategy.as_deref(), profile: self.profile.as_deref() }
    }
}

/// The answer to a text that is not a strategy.
pub(super) fn refusal(error: ChoiceError) -> ApiError {
    match error {
        ChoiceError::Unknown { name, known } => ApiError::unknown_strategy(&name, known.iter().map(|name| &**name)),
        other => ApiError::invalid_strategy(&other.to_string()),
    }
}
