//! How fast an endpoint's first tokens come.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{AnswerNeeds, OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

use super::recent::Recent;

/// 95th percentile of the time to first token of the last minute, times open requests per weight, the new one included.
///
/// As the engine tells; without that, as we measured, to the second. Times the open requests, because a minute's
/// percentile follows a burst only when that is over.
#[derive(Debug)]
pub struct FirstToken {
    answers: AnswerNeeds,
    measured: Recent,
}

impl FirstToken {
    /// Looks for this in answers.
    pub fn new(answers: AnswerNeeds) -> Self {
        Self { answers, measured: Recent::default() }
    }
}

impl Scorer for FirstToken {
    fn name(&self) -> &'static str {
        "first-token"
    }

    fn unit(&self) -> &'static str {
        "seconds × requests per weight"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn answers(&self) -> AnswerNeeds {
        self.answers
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::TtftP95]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let (live, now) = (&endpoint.live, request.now);
        let told = live.signals.gauge(Gauge::TtftP95, now, request.stale_after);
        let measured = || self.measured.get(endpoint, now, || live.measured.ttft_quantile(0.95, now));
        match told.or_else(measured) {
            Some(seconds) => Score::of(seconds * OpenRequests.score(request, endpoint).value),
            None => Score::UNKNOWN,
        }
    }
}
