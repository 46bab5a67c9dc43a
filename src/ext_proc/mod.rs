//! The Envoy front end: external processing over gRPC.
//!
//! [`machine`](self) turns messages into messages and is pure; [`driver`](self) does all the waiting; [`Server`]
//! listens and hands connections to one single-threaded runtime per core.

mod driver;
mod listener;

#[cfg(test)]
mod answer_tests;
mod machine;
#[cfg(test)]
mod machine_tests;
mod modes;
mod reading;
mod replies;
#[cfg(test)]
mod rewrite_tests;
mod server;
mod settings;

pub use machine::{Flow, Machine};
pub use server::{Server, ServerOptions};
pub use settings::Settings;

/// Names that gRPC health is answered for: everything, the service, and what the endpoint-picker
/// conformance manifests probe.
pub const HEALTH_NAMES: [&str; 3] = ["", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"];
