//! Fairlead: an LLM inference router behind Envoy.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod state;
pub mod telemetry;
