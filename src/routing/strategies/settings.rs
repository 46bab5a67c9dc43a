//! Reading and checking parameters that several strategies have.

use serde::Deserialize;

use crate::routing::{AnswerNeeds, BuildError, KvCache, Levels, Parameter, Parameters, Spill};

/// Start value of [`Speed`](crate::routing::prefix::Speed).
pub(super) const PREFILL_RATE: Parameter = Parameter {
    name: "prefill_rate",
    default: "16000",
    about: "Tokens that an endpoint prefills in a second, until that was learned from the engine's own prefill times, or \
            from first tokens. Too low a rate holds more to the cache.",
};

/// Whether first tokens are looked for.
pub(super) const MEASURE: Parameter = Parameter {
    name: "measure",
    default: "false",
    about: "Whether the first token is looked for in answers, at the price of a message for each piece of their bodies: \
            then it is known, not reckoned, what an endpoint has yet to prefill, and how fast.",
};

/// Open requests that fill an endpoint.
pub(super) const LIMIT: Parameter = Parameter {
    name: "limit",
    default: "16",
    about: "Open requests per unit of weight, the new one included, above which an endpoint is full.",
};

/// Use of the KV cache that fills an endpoint.
pub(super) const KV_LIMIT: Parameter = Parameter {
    name: "kv_limit",
    default: "0.9",
    about: "Share of the KV cache in use above which an endpoint is full.",
};

/// When an endpoint is full: [`LIMIT`] and [`KV_LIMIT`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    pub(super) limit: f64,
    pub(super) kv_limit: f64,
}

impl Full {
    pub(super) const DEFAULT: Self = Self { limit: 16.0, kv_limit: 0.9 };

    /// One level after the other, each until it is full.
    ///
    /// # Errors
    /// If a limit is below 0.
    pub(super) fn spill(self, levels: Levels) -> Result<Spill, BuildError> {
        let Self { limit, kv_limit } = self;
        at_least(LIMIT.name, limit, 0.0)?;
        at_least(KV_LIMIT.name, kv_limit, 0.0)?;
        Ok(Spill { levels, limit, kv_limit })
    }
}

/// Size of a KV cache whose engine does not tell it.
pub(super) const ASSUMED_CAPACITY: Parameter = Parameter {
    name: "assumed_capacity",
    default: "100000",
    about: "Tokens that the KV cache of an engine holds that does not say.",
};

/// The KV cache's use, for a strategy whose only parameter is [`ASSUMED_CAPACITY`].
///
/// # Errors
/// Another parameter, or a capacity below 1.
pub(super) fn kv_cache(parameters: &Parameters) -> Result<KvCache, BuildError> {
    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        assumed_capacity: f64,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self { assumed_capacity: 100_000.0 }
        }
    }
    let Settings { assumed_capacity } = parameters.read()?;
    at_least(ASSUMED_CAPACITY.name, assumed_capacity, 1.0)?;
    Ok(KvCache { assumed_capacity })
}

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
