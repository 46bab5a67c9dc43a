//! What we tell about ourselves: metrics, logs, and the happenings that are both.

mod events;
pub mod log;
pub mod metrics;

pub use events::Events;
pub use metrics::{DecisionCounters, Metrics};
