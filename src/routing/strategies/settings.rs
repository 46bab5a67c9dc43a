//! Reading and checking parameters that several strategies have.

use crate::routing::{AnswerNeeds, BuildError, Parameter};

/// Start value of [`Speed`](crate::routing::prefix::Speed).
pub(super) const PREFILL_RATE: Parameter = Parameter {
    name: "prefill_rate",
    default: "16000",
    about: "Tokens that an endpoint prefills in a second, until that was learned from the engine's own prefill times, or \
            from first tokens. Too low a rate holds more to the cache.",
};

/// What open requests cost a new one.
pub(super) const REQUEST_COST: Parameter = Parameter {
    name: "request_cost",
    default: "0.01",
    about: "Seconds that each request open at an endpoint delays a new one, for answers of 256 tokens; where engines \
            tell the mean length of their answers, in proportion to that.",
};

/// Whether first tokens are looked for.
pub(super) const MEASURE: Parameter = Parameter {
    name: "measure",
    default: "false",
    about: "Whether the first token is looked for in answers, at the price of a message for each piece of their bodies: \
            then it is known, not reckoned, what an endpoint has yet to prefill, and how fast.",
};

/// First tokens, if they are to be measured.
pub(super) fn first_token(measure: bool) -> AnswerNeeds {
    AnswerNeeds { first_token: measure, ..AnswerNeeds::default() }
}

/// A share as whole percent.
///
/// # Errors
/// Below 0 or above 10.
pub(super) fn percent(name: &str, share: f64) -> Result<u16, BuildError> {
    at_least(name, share, 0.0)?;
    if share > 10.0 {
        return Err(BuildError(format!("\"{name}\" is {share}; it is 10 at most")));
    }
    #[expect(clippy::cast_sign_loss, reason = "checked above")]
    Ok((share * 100.0).round() as u16)
}

/// Checks a lower bound.
///
/// # Errors
/// Below it, or no number.
pub(super) fn at_least(name: &str, value: f64, least: f64) -> Result<(), BuildError> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    Err(BuildError(format!("\"{name}\" is {value}; it is {least} at least")))
}
