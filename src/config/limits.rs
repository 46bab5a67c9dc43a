//! Caps, health, stopping and logging.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Caps. What happens at each is in `docs/operations.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes; above it 413.
    pub body_bytes_max: usize,
    /// Request bodies held at once, in bytes over all requests; above it 503.
    pub body_budget_bytes: usize,
    /// How long a request body may take to arrive where we hold it (duplex mode); above it 408.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// What is known of the prefixes that engines have cached, in bytes; above it the least recently used is forgotten.
    pub prefix_index_bytes: usize,
    /// gRPC streams on one connection; Envoy opens another connection above it.
    pub streams_per_connection_max: u32,
}

/// Putting failing endpoints aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// First pause of an endpoint that refused, reset or answered 502 or 503; it doubles each time in a row.
    #[serde(with = "humantime_serde")]
    pub cooldown_base: Duration,
    /// Longest pause.
    #[serde(with = "humantime_serde")]
    pub cooldown_max: Duration,
}

/// Stopping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// After the signal: report not ready but serve on for so long, so that gateways can leave.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// Then wait at most so long for open streams before leaving anyway.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `json` or `pretty`.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `fairlead=debug,info`.
    pub filter: String,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            body_budget_bytes: 512 << 20,
            prefix_index_bytes: 256 << 20,
            body_timeout: Duration::from_mins(1),
            streams_per_connection_max: 1024,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { cooldown_base: Duration::from_secs(1), cooldown_max: Duration::from_secs(30) }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::ZERO, grace: Duration::from_secs(30) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, filter: "info".to_owned() }
    }
}
