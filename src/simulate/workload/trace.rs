//! Recorded traffic: JSON lines, one request each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::super::engine::{Blocks, whole};
use super::{Ids, Script};

/// A line. The names are those of Mooncake's public traces; the last two are additions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Milliseconds since the beginning.
    timestamp: f64,
    /// Prompt tokens.
    input_length: u64,
    /// Answer tokens.
    output_length: u64,
    /// Ids of the prompt's consecutive blocks; equal leading ids are a shared prefix.
    #[serde(default)]
    hash_ids: Vec<u64>,
    /// Who asks.
    tenant: Option<String>,
    /// The adapter asked for.
    adapter: Option<String>,
    /// Mooncake's later traces name the kind of request; nothing here depends on it.
    #[serde(default, rename = "type")]
    _kind: Option<String>,
}

/// Recorded requests, in the order of their times.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Microseconds since the beginning, and the request.
    pub requests: Vec<(u64, Script)>,
}

/// A trace that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read trace \"{path}\"")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not a request.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no request in it.
    #[error("the trace holds no request")]
    Empty,
}

impl Trace {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Read { path: path.display().to_string(), source })?;
        Self::read(BufReader::new(file))
    }

    /// Reads lines; empty ones are passed over.
    pub fn read(lines: impl BufRead) -> Result<Self, TraceError> {
        let mut requests: Vec<(u64, Script)> = Vec::new();
        let (mut tenants, mut adapters) = (Names::default(), Names::default());
        // Ids of the trace stay below the ranges that are given out here.
        let mut ids = Ids::default();
        for (line, text) in (1..).zip(lines.lines()) {
            let fault = |reason: String| TraceError::Line { line, reason };
            let text = text.map_err(|error| fault(error.to_string()))?;
            if text.trim().is_empty() {
                continue;
            }
            let parsed: Line = serde_json::from_str(&text).map_err(|error| fault(said(&error)))?;
            if !parsed.timestamp.is_finite() || parsed.timestamp < 0.0 {
                return Err(fault("\"timestamp\" is not a time".to_owned()));
            }
            if parsed.input_length == 0 || parsed.output_length == 0 {
                return Err(fault("\"input_length\" and \"output_length\" are at least 1".to_owned()));
            }
            let at = whole(parsed.timestamp * 1000.0);
            let tenant = parsed.tenant.map_or(Ok(0), |name| tenants.number(name)).map_err(fault)?;
            let adapter = parsed.adapter.map(|name| adapters.number(name)).transpose().map_err(fault)?;
            // Far from the counted ranges, and equal ids stay equal, but for adapters: what one has computed is of no
            // use to another.
            let apart = u64::from(adapter.map_or(0, |adapter| adapter + 1)) << 46 | 1 << 63;
            let shared: Arc<[u64]> = parsed.hash_ids.iter().map(|id| id ^ apart).collect();
            let blocks = Blocks::new(shared, ids.range());
            let mut script = Script::single(tenant, blocks, parsed.input_length, parsed.output_length);
            script.adapter = adapter;
            requests.push((at, script));
        }
        requests.sort_by_key(|(at, _)| *at);
        let first = requests.first().ok_or(TraceError::Empty)?.0;
        for (at, _) in &mut requests {
            *at -= first;
        }
        Ok(Self { requests })
    }

    /// Requests a second over the whole of it.
    pub fn rate(&self) -> f64 {
        let last = self.requests.last().map_or(0, |(at, _)| *at);
        self.requests.len() as f64 / (last.max(1) as f64 / 1e6)
    }
}

/// Names by number.
#[derive(Debug, Default)]
struct Names(HashMap<String, u16>);

impl Names {
    fn number(&mut self, name: String) -> Result<u16, String> {
        let next = self.0.len() + 1;
        let number = *self.0.entry(name).or_insert(next.min(usize::from(u16::MAX)) as u16);
        if number == u16::MAX { Err("more than 65,534 different names".to_owned()) } else { Ok(number) }
    }
}

/// The words of a JSON error without its place: a line is its own document.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    format!("{} (column {})", text.replace(&place, ""), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read(text.as_bytes())
    }

    #[test]
    fn mooncakes_lines_are_read_and_sorted() {
        let trace = read(
            "{\"timestamp\": 3500, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47, 49]}\n\n\
             {\"timestamp\": 500, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [46, 47, 48]}\n",
        )
        .unwrap();
        let [(first, a), (second, b)] = &trace.requests[..] else { panic!("{trace:?}") };
        assert_eq!((*first, *second), (0, 3_000_000));
        assert_eq!((a.turns[0].prompt_tokens, b.turns[0].output_tokens), (6758, 52));
        assert!(a.blocks.id(1) == b.blocks.id(1) && a.blocks.id(2) != b.blocks.id(2));
        assert_ne!(a.blocks.id(3), b.blocks.id(3));
    }

    #[test]
    fn adapters_share_nothing() {
        let line = |adapter: &str| {
            format!("{{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [5]{adapter}}}\n")
        };
        let trace = read(&[", \"adapter\": \"a\"", ", \"adapter\": \"b\"", "", ""].map(line).concat()).unwrap();
        let mut ids: Vec<_> = trace.requests.iter().map(|(_, script)| script.blocks.id(0)).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn a_fault_names_its_line() {
        let good = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}";
        for (bad, word) in [
            ("{\"timestamp\": 0, \"input_length\": 1}", "output_length"),
            ("{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", "timestamp"),
            ("{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}", "at least 1"),
            ("what", "column 1"),
        ] {
            let error = read(&format!("{good}\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(word), "{error}");
        }
        assert!(matches!(read("\n"), Err(TraceError::Empty)));
    }
}
