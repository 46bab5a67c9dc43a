//! What the proxy tells of the attempts it made, and what follows from it for the endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::Failure;
use crate::state::{Endpoint, Reader};

/// Envoy's response flags, as the bits of the attribute `response.flags`
/// (`envoy/stream_info/stream_info.h`, `CoreResponseFlag`).
mod flag {
    pub(super) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub(super) const UPSTREAM_REQUEST_TIMEOUT: u64 = 1 << 2;
    pub(super) const LOCAL_RESET: u64 = 1 << 3;
    pub(super) const UPSTREAM_REMOTE_RESET: u64 = 1 << 4;
    pub(super) const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
    pub(super) const UPSTREAM_CONNECTION_TERMINATION: u64 = 1 << 6;
    pub(super) const UPSTREAM_OVERFLOW: u64 = 1 << 7;
    pub(super) const NO_ROUTE_FOUND: u64 = 1 << 8;
}

/// What came with the response headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpstreamReport {
    /// HTTP status; 0 if it could not be read.
    pub status: u16,
    /// Whom the last attempt went to.
    pub address: Option<SocketAddr>,
    /// How many attempts there were.
    pub attempts: Option<u32>,
    /// Response flags, as bits.
    pub flags: Option<u64>,
    /// The proxy noted how long the engine took (`x-envoy-upstream-service-time`), so it is the engine's answer.
    pub timed: bool,
    /// What the answer's body is.
    pub content: Content,
}

/// What an answer's body is, as far as we can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// Server-sent events.
    Events,
    /// One JSON text.
    Json,
    /// Something else, compressed perhaps.
    #[default]
    Opaque,
}

impl Content {
    /// By the headers `content-type` and `content-encoding`.
    pub fn read(content_type: &[u8], content_encoding: &[u8]) -> Self {
        let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !(content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case(b"identity")) {
            Self::Opaque
        } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
            Self::Events
        } else if kind.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else {
            Self::Opaque
        }
    }
}

/// What a report means for the endpoints.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Who made the answer that the client gets, as far as can be told.
    pub(super) served: Option<Arc<Endpoint>>,
    /// Whether that one showed itself to be alive.
    pub(super) alive: bool,
    /// Who failed.
    pub(super) failed: SmallVec<[(Arc<Endpoint>, Failure); 2]>,
}

impl UpstreamReport {
    fn has(&self, flags: u64) -> bool {
        self.flags.is_some_and(|set| set & flags != 0)
    }

    /// The failure of the last attempt, if it was one of the endpoint's.
    fn failure(&self) -> Option<Failure> {
        if self.has(flag::UPSTREAM_CONNECTION_FAILURE) {
            Some(Failure::Refused)
        } else if self.has(flag::UPSTREAM_CONNECTION_TERMINATION | flag::UPSTREAM_REMOTE_RESET | flag::LOCAL_RESET) {
            Some(Failure::Reset)
        } else if self.has(flag::UPSTREAM_REQUEST_TIMEOUT) {
            Some(Failure::TimedOut)
        } else if matches!(self.status, 502 | 503) && self.is_engines_own() {
            Some(Failure::Unavailable)
        } else {
            None
        }
    }

    /// The answer is the engine's. Without flags, a 503 may as well be the proxy's: blame needs a sign.
    fn is_engines_own(&self) -> bool {
        if self.flags.is_some() { !self.is_proxys_own() } else { self.timed }
    }

    /// The proxy answered without asking any endpoint.
    fn is_proxys_own(&self) -> bool {
        self.has(flag::NO_HEALTHY_UPSTREAM | flag::UPSTREAM_OVERFLOW | flag::NO_ROUTE_FOUND)
    }

    /// Judges the attempts made for a request that was sent to `plan`, best first.
    pub(super) fn judge(&self, plan: &[Arc<Endpoint>], fleet: &Reader) -> Verdict {
        let mut verdict = Verdict::default();
        let attempts = self.attempts.unwrap_or(1) as usize;
        let served_at = self.address.and_then(|address| plan.iter().position(|e| e.spec.address == address));
        verdict.served = match (self.address, served_at) {
            (_, Some(at)) => plan.get(at).cloned(),
            (Some(address), None) => fleet.load().at(address).cloned(),
            // Not told: the only endpoint it can have been, or the one after as many failures as there were.
            (None, None) => plan.get(attempts.saturating_sub(1)).cloned(),
        };
        // Each attempt before the last one failed at the next endpoint of the list. An endpoint of the list that
        // Envoy does not know yet is skipped without an attempt, hence the smaller of the two.
        let passed_over = served_at.unwrap_or(plan.len()).min(attempts.saturating_sub(1));
        verdict.failed.extend(plan.iter().take(passed_over).map(|e| (Arc::clone(e), Failure::PassedOver)));
        match (self.failure(), &verdict.served) {
            (Some(failure), Some(served)) => {
                verdict.failed.retain(|(endpoint, _)| endpoint.id != served.id);
                verdict.failed.push((Arc::clone(served), failure));
            }
            (None, Some(_)) => {
                verdict.alive = self.status != 0 && !matches!(self.status, 502..=504) && !self.is_proxys_own();
            }
            _ => {}
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{EndpointId, EndpointSpec};
    use crate::state::Snapshot;

    use super::*;

    fn plan(count: u16) -> Vec<Arc<Endpoint>> {
        let endpoint = |n: u16| {
            let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], n)));
            Arc::new(Endpoint::new(EndpointId { slot: u32::from(n), generation: 0 }, spec, Arc::default()))
        };
        (1..=count).map(endpoint).collect()
    }

    fn judge(
        plan: &[Arc<Endpoint>],
        known: &[Arc<Endpoint>],
        report: UpstreamReport,
    ) -> (Option<u16>, bool, Vec<(u16, Failure)>) {
        let fleet = Reader::default();
        fleet.publish(Snapshot::build(1, known.to_vec()));
        let verdict = report.judge(plan, &fleet);
        let port = |endpoint: &Arc<Endpoint>| endpoint.spec.address.port();
        let failed = verdict.failed.iter().map(|(endpoint, failure)| (port(endpoint), *failure)).collect();
        (verdict.served.as_ref().map(port), verdict.alive, failed)
    }

    fn at(port: u16, attempts: u32, status: u16, flags: u64) -> UpstreamReport {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        UpstreamReport { status, address, attempts: Some(attempts), flags: Some(flags), ..UpstreamReport::default() }
    }

    #[test]
    fn a_plain_answer_shows_the_first_endpoint_alive() {
        let plan = plan(3);
        assert_eq!(judge(&plan, &plan, at(1, 1, 200, 0)), (Some(1), true, vec![]));
        assert_eq!(judge(&plan, &plan, UpstreamReport { status: 200, ..Default::default() }), (Some(1), true, vec![]));
    }

    #[test]
    fn endpoints_before_the_one_that_served_were_passed_over() {
        let plan = plan(3);
        let expected = vec![(1, Failure::PassedOver), (2, Failure::PassedOver)];
        assert_eq!(judge(&plan, &plan, at(3, 3, 200, 0)), (Some(3), true, expected));
    }

    #[test]
    fn an_endpoint_skipped_without_an_attempt_is_not_blamed() {
        let plan = plan(3);
        assert_eq!(judge(&plan, &plan, at(2, 1, 200, 0)), (Some(2), true, vec![]));
    }

    #[test]
    fn retries_on_the_same_endpoint_blame_nobody_else() {
        let plan = plan(1);
        let refused = judge(&plan, &plan, at(1, 3, 503, flag::UPSTREAM_CONNECTION_FAILURE));
        assert_eq!(refused, (Some(1), false, vec![(1, Failure::Refused)]));
    }

    #[test]
    fn the_fallbacks_choice_is_rebooked_if_we_know_it() {
        let fleet = plan(3);
        let expected = vec![(1, Failure::PassedOver)];
        assert_eq!(judge(&fleet[..1], &fleet, at(3, 2, 200, 0)), (Some(3), true, expected.clone()));
        assert_eq!(judge(&fleet[..1], &fleet[..1], at(3, 2, 200, 0)), (None, false, expected));
    }

    #[test]
    fn without_flags_a_503_is_blamed_only_with_a_sign_that_the_engine_made_it() {
        let plan = plan(1);
        let bare = UpstreamReport { status: 503, ..Default::default() };
        assert!(judge(&plan, &plan, bare).2.is_empty());
        assert_eq!(judge(&plan, &plan, UpstreamReport { timed: true, ..bare }).2, vec![(1, Failure::Unavailable)]);
    }

    #[test]
    fn the_engines_own_errors_and_the_proxys_are_told_apart() {
        let plan = plan(1);
        assert_eq!(judge(&plan, &plan, at(1, 1, 503, 0)).2, vec![(1, Failure::Unavailable)]);
        assert_eq!(judge(&plan, &plan, at(1, 1, 503, flag::UPSTREAM_OVERFLOW)), (Some(1), false, vec![]));
        assert_eq!(judge(&plan, &plan, at(1, 1, 500, 0)), (Some(1), true, vec![]));
        assert_eq!(judge(&plan, &plan, at(1, 1, 429, 0)), (Some(1), true, vec![]));
        assert_eq!(judge(&plan, &plan, at(1, 1, 504, flag::UPSTREAM_REQUEST_TIMEOUT)).2, vec![(1, Failure::TimedOut)]);
    }
}
