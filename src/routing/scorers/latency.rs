//! How long this very request is expected to take.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::{Endpoint, Fresh};

/// Expected seconds to the last token: waiting, prefill and decode, from what the engine did in the last minute.
///
/// ```text
/// queue + prefill/token × (prompt + our prompt tokens waiting there) + decode/token × output × (1 + open / parallel)
/// ```
///
/// `parallel` is per unit of weight, and no more than the engine takes into a batch.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedLatency {
    /// Requests that an engine works on side by side before they slow each other down to half; above 0.
    pub parallel: f64,
}

/// Prompt and output tokens of a request of which nothing is known, as AIBrix takes them.
const UNKNOWN_PROMPT: f64 = 10.0;
const UNKNOWN_OUTPUT: f64 = 100.0;

impl ExpectedLatency {
    /// Seconds to the first token; `None` where the engine does not tell enough.
    fn first_token(request: &RequestView<'_>, endpoint: &Endpoint, told: Fresh<'_>) -> Option<f64> {
        let prompt = told.gauge(Gauge::PromptLengthMean).filter(|tokens| *tokens > 0.0);
        if let (Some(seconds), Some(tokens)) = (told.gauge(Gauge::PrefillTimeMean), prompt) {
            let ahead = endpoint.live.ours.prefill_tokens() as f64;
            let queue = told.gauge(Gauge::QueueTimeMean).unwrap_or(0.0);
            return Some(queue + seconds / tokens * (ahead + of(request.asked.work.prompt_tokens, UNKNOWN_PROMPT)));
        }
        // Waiting and prefill in one, of a request of mean length.
        told.gauge(Gauge::TtftMean)
    }
}

fn of(tokens: u32, unknown: f64) -> f64 {
    if tokens == 0 { unknown } else { f64::from(tokens) }
}

impl Scorer for ExpectedLatency {
    fn name(&self) -> &'static str {
        "expected-latency"
    }

    fn unit(&self) -> &'static str {
        "seconds"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Lower
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[
            Gauge::QueueTimeMean,
            Gauge::PrefillTimeMean,
            Gauge::PromptLengthMean,
            Gauge::DecodeTimeMean,
            Gauge::OutputLengthMean,
            Gauge::TtftMean,
            Gauge::ItlMean,
            Gauge::MaxRunning,
        ]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let live = &endpoint.live;
        let Some(told) = live.signals.fresh(request.now, request.stale_after) else { return Score::UNKNOWN };
        let output = told.gauge(Gauge::OutputLengthMean).filter(|tokens| *tokens > 0.0);
        let decode = told.gauge(Gauge::DecodeTimeMean).zip(output).map(|(seconds, tokens)| seconds / tokens);
        let per_token = decode.or_else(|| told.gauge(Gauge::ItlMean));
        let (Some(first), Some(per_token)) = (Self::first_token(request, endpoint, told), per_token) else {
            return Score::UNKNOWN;
        };
        let (open, _) = live.requests(request.now, request.stale_after);
        let fits = told.gauge(Gauge::MaxRunning).filter(|most| *most >= 1.0).unwrap_or(f64::MAX);
        let crowd = 1.0 + open / (self.parallel.min(fits) * endpoint.weight());
        Score::of(first + per_token * of(request.asked.work.output_tokens, UNKNOWN_OUTPUT) * crowd)
    }
}
