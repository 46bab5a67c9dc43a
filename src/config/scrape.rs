//! Reading the metrics of engines, and what our own page shows of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Reading engine metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrape {
    /// Pause between two reads of an endpoint that is busy, jittered by a tenth.
    #[serde(with = "humantime_serde")]
    pub interval_min: Duration,
    /// Pause that it grows to while nothing happens there.
    #[serde(with = "humantime_serde")]
    pub interval_max: Duration,
    /// Limit of one read, connecting included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Age at which a value counts as absent.
    #[serde(with = "humantime_serde")]
    pub stale_after: Duration,
    /// Length of the window over which rates, means and quantiles are taken.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Reads under way at once.
    pub concurrency: usize,
    /// Reads begun in a second, over all endpoints; above it the pauses grow.
    pub reads_per_second_max: u32,
    /// Largest metrics page, in bytes; a larger one is dropped.
    pub page_bytes_max: usize,
    /// Read every signal that an engine tells, also those that no strategy in use needs: for dashboards and experiments.
    pub everything: bool,
    /// Engines of kind `generic`.
    pub generic: GenericEngine,
}

/// Where engines of kind `generic` tell what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenericEngine {
    /// Path of the metrics page of an engine of kind `generic`.
    pub path: String,
    /// What is told, by the name of the gauge, counter or histogram, and where.
    pub metrics: BTreeMap<String, GenericMetric>,
}

/// Where an engine tells one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericMetric {
    /// Names of the metric, the preferred one first; of a histogram without suffix.
    pub names: Vec<String>,
    /// Over all series of the name.
    #[serde(default)]
    pub fold: GenericFold,
    /// What a value is multiplied by to be in the gauge's unit.
    #[serde(default = "GenericMetric::unscaled")]
    pub scale: f64,
    /// Labels; a series that has one of them with another value does not count.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
}

/// How the values of several series become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenericFold {
    /// They are added up.
    #[default]
    Sum,
    /// Their mean counts.
    Mean,
    /// The greatest counts.
    Max,
    /// The least counts.
    Min,
}

/// What `/metrics` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Series of each endpoint: `full` has every gauge that is known, `basic` counts, load and cache use, `off` none.
    pub per_endpoint: PerEndpoint,
}

/// How much of each endpoint `/metrics` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerEndpoint {
    /// Every gauge that is known.
    #[default]
    Full,
    /// Counts, load and cache use.
    Basic,
    /// Nothing.
    Off,
}

impl Default for Scrape {
    fn default() -> Self {
        Self {
            interval_min: Duration::from_millis(200),
            interval_max: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            stale_after: Duration::from_secs(5),
            window: Duration::from_secs(30),
            concurrency: 64,
            reads_per_second_max: 2000,
            page_bytes_max: 4 << 20,
            everything: false,
            generic: GenericEngine::default(),
        }
    }
}

impl Default for GenericEngine {
    fn default() -> Self {
        Self { path: "/metrics".to_owned(), metrics: BTreeMap::new() }
    }
}

impl GenericMetric {
    const fn unscaled() -> f64 {
        1.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { per_endpoint: PerEndpoint::Full }
    }
}
