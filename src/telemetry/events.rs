//! What happens, one function each: it logs and counts together, so that the two cannot disagree.
//!
//! Nothing here is called for a request that goes well.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::domain::{Failure, Moment};
use crate::state::Endpoint;

use super::Metrics;

/// Lines about failing endpoints in any one second; more are counted and told with the next line.
const FAILURE_LINES_PER_SECOND: u64 = 20;
/// Most models and texts of profiles that are remembered as said.
const IN_VAIN_MAX: usize = 1024;

/// Tells what happens. One for the process, shared.
#[derive(Debug)]
pub struct Events {
    metrics: Arc<Metrics>,
    failure_lines: Limited,
    early_end_said: AtomicBool,
    /// Hashes of models and texts that were said already.
    in_vain: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Events {
    /// Events that count in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            failure_lines: Limited::default(),
            early_end_said: AtomicBool::new(false),
            in_vain: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// An endpoint failed a request; `pause` is how long it is put aside if this failure began a pause.
    pub fn endpoint_failed(&self, endpoint: &Endpoint, failure: Failure, pause: Option<Duration>, now: Moment) {
        self.metrics.endpoint_failure(failure);
        let (address, name, failure) = (endpoint.address_text(), endpoint.spec.name.as_str(), failure.name());
        let Some(pause) = pause else {
            debug!(endpoint = address, name, failure, "endpoint failed");
            return;
        };
        self.metrics.put_aside();
        if let Some(unsaid) = self.failure_lines.admit(now, FAILURE_LINES_PER_SECOND) {
            let pause_ms = pause.as_millis() as u64;
            warn!(endpoint = address, name, failure, pause_ms, unsaid, "endpoint failed and is put aside");
        }
    }

    /// An endpoint that had failed answered again.
    pub fn endpoint_back(&self, endpoint: &Endpoint, now: Moment) {
        if let Some(unsaid) = self.failure_lines.admit(now, FAILURE_LINES_PER_SECOND) {
            let (address, name) = (endpoint.address_text(), endpoint.spec.name.as_str());
            info!(endpoint = address, name, unsaid, "endpoint answers again");
        }
    }

    /// The profiles that come with a model's endpoints name a strategy that there is not. Said once for each model and
    /// text, of which the first so many are kept.
    pub fn strategy_in_vain(&self, model: &str, text: &str, error: &dyn Display) {
        let key = self.hasher.hash_one((model, text));
        let mut said = self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.len() < IN_VAIN_MAX && said.insert(key);
        drop(said);
        if is_new {
            warn!(model, text, %error, "the strategy in a model's profiles cannot be used; the default one decides");
        }
    }

    /// Envoy closes our streams before the exchange is over; from now on it is asked not to.
    pub fn streams_not_held(&self) {
        info!(
            "Envoy closes streams early; asking for response trailers by mode override from now on. \
             `response_trailer_mode: SEND` in its ext_proc filter saves that"
        );
    }

    /// Envoy closed our stream at the response headers although the exchange went on. Counted each time, said once.
    pub fn early_stream_end(&self) {
        self.metrics.early_stream_end();
        if !self.early_end_said.swap(true, Relaxed) {
            warn!(
                "Envoy closes streams at the response headers: requests in flight are counted too low; set \
                 `response_trailer_mode: SEND` in its ext_proc filter, or `allow_mode_override: true`"
            );
        }
    }
}

/// At most so many admissions in each second.
#[derive(Debug, Default)]
struct Limited {
    /// The second in the upper 48 bits, admissions within it in the lower 16.
    window: AtomicU64,
    refused: AtomicU64,
}

impl Limited {
    /// Admits or refuses; when it admits it gives the number of refusals since the last admission.
    fn admit(&self, now: Moment, per_second: u64) -> Option<u64> {
        let second = now.as_micros() / 1_000_000;
        let next = |window: u64| match window {
            window if window >> 16 != second => Some((second << 16) + 1),
            window if window & 0xffff < per_second.min(0xffff) => Some(window + 1),
            _ => None,
        };
        if self.window.fetch_update(Relaxed, Relaxed, next).is_ok() {
            return Some(self.refused.swap(0, Relaxed));
        }
        self.refused.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointId, EndpointSpec};

    #[test]
    fn a_burst_is_cut_and_the_next_second_tells_how_much() {
        let limited = Limited::default();
        let at = |micros| Moment::from_micros(micros);
        let admitted = (0..50).filter(|n| limited.admit(at(1_000_000 + n), 20).is_some()).count();
        assert_eq!(admitted, 20);
        assert_eq!(limited.admit(at(2_000_000), 20), Some(30));
        assert_eq!(limited.admit(at(2_000_001), 20), Some(0));
    }

    #[test]
    fn a_strategy_in_vain_is_said_once_for_each_model_and_text() {
        let events = Events::new(Metrics::new(&[]));
        for n in 0..3 * IN_VAIN_MAX {
            events.strategy_in_vain("m", if n % 2 == 0 { "pd" } else { "slo" }, &"no");
        }
        assert_eq!(events.in_vain.lock().unwrap().len(), 2);
        (0..3 * IN_VAIN_MAX).for_each(|n| events.strategy_in_vain(&n.to_string(), "pd", &"no"));
        assert_eq!(events.in_vain.lock().unwrap().len(), IN_VAIN_MAX);
    }

    #[test]
    fn failures_count_even_when_their_lines_are_cut() {
        let metrics = Metrics::new(&[]);
        let events = Events::new(Arc::clone(&metrics));
        let spec = EndpointSpec::at(([127, 0, 0, 1], 1).into());
        let endpoint = Endpoint::new(EndpointId { slot: 0, generation: 0 }, spec, Arc::default());
        for _ in 0..30 {
            events.endpoint_failed(&endpoint, Failure::Refused, Some(Duration::from_secs(1)), Moment::from_micros(1));
        }
        events.endpoint_failed(&endpoint, Failure::Refused, None, Moment::from_micros(1));
        events.early_stream_end();
        events.early_stream_end();
        let page = metrics.encode();
        assert!(page.contains("fairlead_endpoint_failures_total{failure=\"refused\"} 31\n"));
        assert!(page.contains("fairlead_endpoints_put_aside_total 30\n"));
        assert!(page.contains("fairlead_early_stream_ends_total 2\n"));
    }
}
