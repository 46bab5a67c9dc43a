//! Fairlead: an LLM inference router behind Envoy.
