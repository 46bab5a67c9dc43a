//! What is wrong with a configuration, said so that somebody can act on it at three in the morning.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
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

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
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

/// A hint that ends a message about an unknown name: the nearest known one if it is near, else all of them.
pub(super) fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().into_iter().map(|name| (distance(wrong, name), name)).min();
    match nearest {
        Some((steps, name)) if steps <= 1 + wrong.len() / 4 => format!("did you mean \"{name}\"?"),
        Some(_) => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        None => "there is nothing to choose from".to_owned(),
    }
}

/// Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let cost = (diagonal + usize::from(a != b)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_gets_the_list() {
        let known = ["least-request", "random"];
        assert_eq!(hint("least-requests", known), "did you mean \"least-request\"?");
        assert_eq!(hint("prefix-cache", known), "known are least-request, random");
    }
}
