//! What we tell about ourselves: metrics, logs, and the happenings that are both.

pub mod events;
pub mod log;
pub mod metrics;

pub use metrics::Metrics;
