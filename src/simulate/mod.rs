//! A fleet in a box: which strategy for which traffic?
//!
//! Discrete events in virtual time. The routing is production's own ([`crate::routing`], [`crate::state`]), the engines
//! are modelled ([`engine`]), the requests drawn or replayed ([`workload`]). One seed, one result.

pub mod engine;
mod flights;
mod measure;
mod replica;
mod run;
mod scenario;
mod traffic;
pub mod workload;

pub use measure::{Summary, Times};
pub use run::{Chooser, run};
pub use scenario::{Demand, Fault, FaultError, Scenario, Slo};
pub use traffic::Traffic;
