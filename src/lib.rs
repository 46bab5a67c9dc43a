//! Fairlead: an LLM inference router behind Envoy.

pub mod openai;
pub mod scrape;
