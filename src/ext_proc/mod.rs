//! The Envoy front end: external processing over gRPC.
//!
//! [`machine`](self) turns messages into messages and is pure; [`driver`](self) does all the waiting; [`Server`]
//! listens and hands connections to one single-threaded runtime per core.

mod driver;
mod health;
mod listener;

#[cfg(test)]
mod answer_tests;
mod machine;
#[cfg(test)]
mod machine_tests;
mod modes;
mod processor;
mod reading;
mod replies;
mod response;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod rewrite_tests;
mod server;
mod settings;
mod tls;

pub use health::{HealthBoard, serve_health};
pub use machine::{Flow, Machine};
pub use processor::Processor;
pub use server::{BoundServer, Server, ServerOptions};
pub use settings::Settings;
pub use tls::TlsError;
