//! Reading what engines say about themselves: a page of metrics every so often, into the endpoint's gauges.
//!
//! Strategies never wait for this; a number that is too old counts as absent.

mod answer;
mod book;
pub mod engines;
mod fetch;
pub mod lens;
pub mod loads;
mod plan;
pub mod reading;
mod schedule;
mod status;
pub mod text;
#[cfg(test)]
mod truth_tests;
pub mod windows;

pub use schedule::{ScrapeOptions, run};
pub use status::{Freshness, ScrapeStatus};
