//! What can go wrong with an endpoint.

/// What an endpoint did wrong, as far as passive health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The connection could not be made (Envoy flag `UF`).
    Refused,
    /// The connection broke before response headers (Envoy flags `UC`, `UR`).
    Reset,
    /// No response headers within the proxy's per-try limit (Envoy flag `UT`).
    TimedOut,
    /// The engine answered 502 or 503.
    Unavailable,
    /// The proxy went on to the next endpoint of the list; which fault made it do so is not told.
    PassedOver,
}

impl Failure {
    /// Name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::PassedOver => "passed_over",
        }
    }
}
