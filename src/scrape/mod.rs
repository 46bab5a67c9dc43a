//! Reading what engines say about themselves: a page of metrics every so often, into the endpoint's gauges.
//!
//! Strategies never wait for this; a number that is too old counts as absent.

pub mod engines;
mod fetch;
mod plan;
mod schedule;
mod status;
pub mod text;

pub use schedule::run;
pub use status::ScrapeStatus;
