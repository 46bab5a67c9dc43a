//! A fleet in a box: which strategy for which traffic?
//!
//! Discrete events in virtual time. The routing is production's own ([`crate::routing`], [`crate::state`]), the engines
//! are modelled ([`engine`]), the requests drawn or replayed ([`workload`]). One seed, one result.

pub mod calibrate;
mod command;
pub mod engine;
mod exporter;
mod flights;
mod measure;
mod options;
mod prefix;
mod replica;
mod report;
mod run;
mod scenario;
mod strategy;
mod sweep;
mod traffic;
pub mod workload;

pub use command::{SimulateError, execute, report_on, sweep};
pub use measure::{Summary, Times};
pub use options::{Options, Other, command, read};
pub use report::{json, plots, table};
pub use run::{Chooser, run};
pub use scenario::{Demand, Fault, FaultError, Scenario, Slo};
pub use sweep::{Cell, Steps, Sweep};
pub use traffic::Traffic;
