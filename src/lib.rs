//! Fairlead: an LLM inference router behind Envoy.

pub mod admin;
pub mod admission;
pub mod app;
pub mod config;
pub mod discovery;
pub mod domain;
pub mod exchange;
pub mod ext_proc;
pub mod openai;
pub mod routing;
pub mod scrape;
pub mod state;
pub mod telemetry;
