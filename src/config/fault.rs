//! What is wrong with a configuration, said so that somebody can act on it at three in the morning.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// Nowhere: it is the default of the subcommand.
    Preset,
    /// In the configuration file.
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// Line, from 1; 0 when only the file is known.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
    },
    /// In this environment variable.
    Env(String),
    /// In this command-line flag, with its dashes.
    Flag(String),
}

impl Origin {
    /// The line in the file, where it is known.
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::File { line, .. } => Some(*line).filter(|line| *line > 0),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset => f.write_str("default of the subcommand"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {}{message}", prefix(key))]
pub struct Fault {
    /// Where the value was given.
    pub origin: Origin,
    /// Dotted key, such as `routing.algorithm` or `discovery.static[1].weight`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}
