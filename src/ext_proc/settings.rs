//! What the protocol goes by.

use std::time::Duration;

use crate::config::Config;

/// The part of the configuration that the protocol goes by.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the configuration")]
pub struct Settings {
    /// Set `target-pod`.
    pub target_pod: bool,
    /// Set `x-gateway-destination-endpoint`.
    pub endpoint_header: bool,
    /// Set the dynamic metadata.
    pub metadata: bool,
    /// Have Envoy choose the route anew.
    pub clear_route_cache: bool,
    /// Use mode overrides.
    pub mode_override: bool,
    /// How long a decision may wait.
    pub decision_timeout: Duration,
    /// How long a body may take where we hold it.
    pub body_timeout: Duration,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            target_pod: config.destination.target_pod,
            endpoint_header: config.destination.endpoint_header,
            metadata: config.destination.metadata,
            clear_route_cache: config.destination.clear_route_cache,
            mode_override: config.envoy.mode_override,
            decision_timeout: config.routing.decision_timeout,
            body_timeout: config.limits.body_timeout,
        }
    }
}
