//! Which strategy an exchange gets, in terms of HTTP.

use crate::openai::ApiError;
use crate::routing::{ChoiceError, InVain, Wish};

use super::RequestHead;
use super::machine::{Exchange, Steering};

/// Tells the client which config profile applied (AIBrix).
pub(super) const PROFILE_HEADER: &str = "x-aibrix-config-profile";

impl RequestHead {
    /// What the client asks for.
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish { strategy: self.strategy.as_deref(), profile: self.profile.as_deref() }
    }
}

impl Exchange {
    /// Tells the operator of a strategy in the model's profiles that there is not; the client cannot do anything about it.
    pub(super) fn tell_in_vain(&self, in_vain: &InVain) {
        if self.steering == Steering::Real {
            self.core.events.strategy_in_vain(&self.asked.model, &in_vain.text, &in_vain.error);
        }
    }
}

/// The answer to a text of the client's that is not a strategy.
pub(super) fn refusal(error: ChoiceError) -> ApiError {
    match error {
        ChoiceError::Unknown { name, known } => ApiError::unknown_strategy(&name, known.iter().map(|name| &**name)),
        other => ApiError::invalid_strategy(&other.to_string()),
    }
}
