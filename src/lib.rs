//! Fairlead: an LLM inference router behind Envoy.

pub mod config;
pub mod domain;
pub mod routing;
pub mod state;
pub mod telemetry;
