//! Happenings worth a word: each function logs and counts in one place, so that the two cannot disagree.

use std::time::Duration;

use tracing::{info, warn};

use crate::domain::Failure;
use crate::state::Endpoint;

use super::Metrics;

/// An endpoint failed; `pause` says that it is put aside for so long from now on.
pub fn endpoint_failed(metrics: &Metrics, endpoint: &Endpoint, failure: Failure, pause: Option<Duration>) {
    metrics.endpoint_failure(failure);
    if let Some(pause) = pause {
        metrics.put_aside();
        warn!(
            endpoint = endpoint.address_text(),
            name = endpoint.spec.name,
            failure = failure.name(),
            pause_ms = pause.as_millis() as u64,
            "endpoint put aside"
        );
    }
}

/// An endpoint that had failed answers again.
pub fn endpoint_back(endpoint: &Endpoint) {
    info!(endpoint = endpoint.address_text(), name = endpoint.spec.name, "endpoint is back");
}

/// The proxy ends our stream at the response headers, so requests count as finished while they still run.
pub fn streams_end_early(metrics: &Metrics) {
    metrics.early_stream_end();
    warn!(
        "streams end with the response headers, so in-flight counts are too low: set response_trailer_mode: SEND in \
         the ext_proc filter, or allow_mode_override: true so that Fairlead can ask for it"
    );
}
