//! How a strategy is listed, described and built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Router, Scored};

/// A strategy as it is listed. One constant a file, and a line in [`STRATEGIES`](super::STRATEGIES).
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    /// Name in headers and configuration.
    pub name: &'static str,
    /// Other names for the same, with where each comes from.
    pub aliases: &'static [(&'static str, &'static str)],
    /// One line for people.
    pub summary: &'static str,
    /// The long description.
    pub about: About,
    /// What can be set.
    pub parameters: &'static [Parameter],
    /// Makes the strategy.
    pub build: fn(&Parameters) -> Result<Built, BuildError>,
}

/// What people want to know of a strategy before they use it; Markdown, a sentence or two each.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// What traffic it is for.
    pub purpose: &'static str,
    /// What is minimised or maximised, with units.
    pub formula: &'static str,
    /// What happens when inputs are missing or stale.
    pub missing: &'static str,
    /// The paper, product or document that the idea comes from.
    pub source: &'static str,
}

/// A parameter's documentation. Its type and its checking are those of the struct that the strategy reads it into.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Key.
    pub name: &'static str,
    /// Default, as it would be written.
    pub default: &'static str,
    /// What it does, with its unit.
    pub about: &'static str,
}

/// What building a strategy gives.
#[derive(Debug)]
pub enum Built {
    /// A composition, whose scorers may be combined with others.
    Scored(Scored),
    /// A strategy of its own kind.
    Router(Arc<dyn Router>),
}

impl Built {
    /// The strategy, whichever kind it is.
    pub fn into_router(self) -> Arc<dyn Router> {
        match self {
            Self::Scored(scored) => Arc::new(scored),
            Self::Router(router) => router,
        }
    }
}

/// Why a strategy cannot be built. The text says what is wrong with which parameter.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// The parameters that the configuration gives a strategy, and what it says for all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    own: Map<String, Value>,
    session_key_file: Option<PathBuf>,
}

impl Parameters {
    /// Parameters by name.
    pub fn new(given: Map<String, Value>) -> Self {
        Self { own: given, session_key_file: None }
    }

    /// With the file of the secret that session ids are signed with, unless a strategy has its own.
    #[must_use]
    pub fn with_session_key_file(self, path: Option<&Path>) -> Self {
        Self { session_key_file: path.map(Path::to_owned), ..self }
    }

    /// The file of the secret that session ids are signed with.
    pub fn session_key_file(&self) -> Option<&Path> {
        self.session_key_file.as_deref()
    }

    /// Reads them into the strategy's own struct, whose defaults stand for those not given.
    ///
    /// # Errors
    /// An unknown name or a wrong type, if the struct denies unknown fields.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        serde_json::from_value(Value::Object(self.own.clone())).map_err(|error| BuildError(error.to_string()))
    }

    /// For a strategy without parameters.
    ///
    /// # Errors
    /// If any is given.
    pub fn none(&self) -> Result<(), BuildError> {
        match self.own.keys().next() {
            Some(name) => Err(BuildError(format!("there is no parameter \"{name}\"; this strategy has none"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        spill: f64,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { spill: 0.8 }
        }
    }

    fn given(value: &Value) -> Parameters {
        Parameters::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn parameters_that_are_not_given_keep_their_defaults_and_unknown_ones_are_faults() {
        assert_eq!(given(&json!({})).read::<Settings>().unwrap(), Settings { spill: 0.8 });
        assert_eq!(given(&json!({ "spill": 2 })).read::<Settings>().unwrap(), Settings { spill: 2.0 });
        let error = given(&json!({ "spil": 2 })).read::<Settings>().unwrap_err().to_string();
        assert!(error.contains("spil") && error.contains("spill"), "{error}");
        assert!(given(&json!({ "spil": 2 })).none().is_err());
    }
}
