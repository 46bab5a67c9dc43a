//! Fairlead: an LLM inference router behind Envoy.

pub mod config;
pub mod discovery;
pub mod domain;
pub mod scrape;
pub mod state;
