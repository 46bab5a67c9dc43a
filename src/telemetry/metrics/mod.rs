//! Counters that the request path holds, and the page that Prometheus reads.
//!
//! What happens once per request is a held counter: a relaxed atomic addition, no lock and no lookup. What is rare
//! (refusals, failures) looks its label up.

pub mod docs;
mod endpoints;
pub mod families;
mod histogram;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use crate::config::PerEndpoint;
use crate::domain::{Clock, Failure};
use crate::state::Reader;

use endpoints::{Endpoints, EndpointsCell};
pub use families::Declaration;
use histogram::Seconds;
use watched::Watched;

type ByName = Family<[(&'static str, String); 1], Counter>;
/// Counters of decisions by the index of one set of strategies.
#[derive(Debug, Clone)]
pub struct DecisionCounters(Arc<[Counter]>);

type ByLabel = Family<[(&'static str, &'static str); 1], Counter>;

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
const FAILURES: [Failure; 5] =
    [Failure::Refused, Failure::Reset, Failure::TimedOut, Failure::Unavailable, Failure::PassedOver];

/// Everything that is counted in this process. Made once, shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    streams_open: Gauge,
    streams: Counter,
    decisions: ByName,
    decision_seconds: Seconds,
    degraded: Counter,
    passed_through: Counter,
    refusals: ByLabel,
    responses: [Counter; CLASSES.len()],
    response_pieces: Counter,
    aborted: Counter,
    failovers: Counter,
    early_stream_ends: Counter,
    protocol_faults: ByLabel,
    endpoint_failures: ByLabel,
    put_aside: Counter,
    prefix_answers: Counter,
    prefix_prompt_tokens: Counter,
    prefix_expected_tokens: Counter,
    prefix_reported_tokens: Counter,
    prefix_error_tokens: Counter,
    /// Bytes of request bodies held now; whoever holds bytes adds and subtracts them. Clones count together.
    pub body_bytes_held: Gauge,
    endpoints: Arc<EndpointsCell>,
    watched: Arc<Watched>,
}

impl Metrics {
    /// Metrics with a decision counter for each of these strategies from the start.
    pub fn new(strategies: &[&str]) -> Arc<Self> {
        let mut registry = Registry::default();
        let it = &mut registry;
        let by_strategy: ByName = register(it, families::DECISIONS);
        for name in strategies {
            drop(strategy_counter(&by_strategy, name));
        }
        let by_class: ByLabel = register(it, families::RESPONSES);
        let by_failure: ByLabel = register(it, families::ENDPOINT_FAILURES);
        // A series that is there from the start shows its first increment; one that appears with it does not.
        for failure in FAILURES {
            drop(by_failure.get_or_create(&[("failure", failure.name())]));
        }
        let (endpoints, watched) = (Arc::<EndpointsCell>::default(), Arc::<Watched>::default());
        it.register_collector(Box::new(Arc::clone(&endpoints)));
        it.register_collector(Box::new(Arc::clone(&watched)));
        Arc::new(Self {
            streams_open: register(it, families::STREAMS_OPEN),
            streams: register(it, families::STREAMS),
            decisions: by_strategy,
            decision_seconds: register(it, families::DECISION_SECONDS),
            degraded: register(it, families::DEGRADED_DECISIONS),
            passed_through: register(it, families::PASSED_THROUGH),
            refusals: register(it, families::REFUSALS),
            responses: CLASSES.map(|class| by_class.get_or_create_owned(&[("class", class)])),
            response_pieces: register(it, families::RESPONSE_PIECES),
            aborted: register(it, families::ABORTED),
            failovers: register(it, families::FAILOVERS),
            early_stream_ends: register(it, families::EARLY_STREAM_ENDS),
            protocol_faults: register(it, families::PROTOCOL_FAULTS),
            endpoint_failures: by_failure,
            put_aside: register(it, families::ENDPOINTS_PUT_ASIDE),
            prefix_answers: register(it, families::PREFIX_ANSWERS),
            prefix_prompt_tokens: register(it, families::PREFIX_PROMPT_TOKENS),
            prefix_expected_tokens: register(it, families::PREFIX_EXPECTED_TOKENS),
            prefix_reported_tokens: register(it, families::PREFIX_REPORTED_TOKENS),
            prefix_error_tokens: register(it, families::PREFIX_ERROR_TOKENS),
            body_bytes_held: register(it, families::BODY_BYTES_HELD),
            endpoints,
            watched,
            registry,
        })
    }

    /// A stream was opened. Exactly one [`Metrics::stream_closed`] follows.
    pub fn stream_opened(&self) {
        self.streams.inc();
        self.streams_open.inc();
    }

    /// A stream ended, however it did.
    pub fn stream_closed(&self) {
        self.streams_open.dec();
    }

    /// Counters for the strategies of these names, in this order. Those of a name are the same for every caller.
    pub fn decision_counters<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> DecisionCounters {
        DecisionCounters(names.into_iter().map(|name| strategy_counter(&self.decisions, name)).collect())
    }

    /// The strategy with this index in `counters` chose an endpoint, in so many seconds.
    pub fn decision(&self, counters: &DecisionCounters, strategy_index: usize, seconds: f64) {
        if let Some(counter) = counters.0.get(strategy_index) {
            counter.inc();
        }
        self.decision_seconds.observe(seconds);
    }

    /// A choice was made without something that the strategy wanted to know.
    pub fn degraded_decision(&self) {
        self.degraded.inc();
    }

    /// A request was left to Envoy without a destination.
    pub fn passed_through(&self) {
        self.passed_through.inc();
    }

    /// A request was answered by us with an error; `reason` is one of a small fixed set.
    pub fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Response headers with this HTTP status came on a routed request.
    pub fn response(&self, status: u16) {
        let class = usize::from(status / 100);
        if let Some(counter) = self.responses.get(class).or(self.responses.first()) {
            counter.inc();
        }
    }

    /// A piece of a response body was shown to us.
    pub fn response_piece(&self) {
        self.response_pieces.inc();
    }

    /// A routed request ended before response headers.
    pub fn aborted(&self) {
        self.aborted.inc();
    }

    /// A request was served by another endpoint than the first one named.
    pub fn failover(&self) {
        self.failovers.inc();
    }

    /// Envoy closed a stream at the response headers.
    pub fn early_stream_end(&self) {
        self.early_stream_ends.inc();
    }

    /// A message came that the protocol does not allow there; `kind` is one of a small fixed set.
    pub fn protocol_fault(&self, kind: &'static str) {
        self.protocol_faults.get_or_create(&[("kind", kind)]).inc();
    }

    /// An endpoint failed a request.
    pub fn endpoint_failure(&self, failure: Failure) {
        self.endpoint_failures.get_or_create(&[("failure", failure.name())]).inc();
    }

    /// A failing endpoint began a pause.
    pub fn put_aside(&self) {
        self.put_aside.inc();
    }

    /// An engine reported how many tokens of a prompt came from its cache, where `expected` were expected to.
    pub fn prefix_reported(&self, prompt: u64, expected: u64, reported: u64) {
        self.prefix_answers.inc();
        self.prefix_prompt_tokens.inc_by(prompt);
        self.prefix_expected_tokens.inc_by(expected);
        self.prefix_reported_tokens.inc_by(reported);
        self.prefix_error_tokens.inc_by(expected.abs_diff(reported));
    }

    /// Shows the endpoints of the newest snapshot; engine numbers older than `stale_after` are left out,
    /// and of each endpoint as much is shown as `detail` says.
    pub fn watch_snapshot(&self, reader: Reader, stale_after: Duration, clock: Clock, detail: PerEndpoint) {
        self.endpoints.set(Endpoints { reader, stale_after, clock, detail });
    }

    /// Shows a counter or a gauge that lives elsewhere: `read` is called at each scrape. `labels` are those of the
    /// declaration, in its order; call again with other label values for another series of the same family.
    pub fn watch(
        &self,
        family: Declaration,
        labels: &'static [(&'static str, &'static str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.watched.add(family, labels, Box::new(read));
    }

    /// The page in `OpenMetrics` 1.0 text.
    pub fn encode(&self) -> String {
        let mut page = String::with_capacity(16 << 10);
        // Writing to a `String` cannot fail; should a collector, then the page ends without its end mark.
        encode(&mut page, &self.registry).ok();
        page
    }
}

fn strategy_counter(family: &ByName, name: &str) -> Counter {
    family.get_or_create_owned(&[("strategy", name.to_owned())])
}

fn register<M: Metric + Clone + Default>(registry: &mut Registry, family: Declaration) -> M {
    let metric = M::default();
    registry.register(family.stem(), family.help, metric.clone());
    metric
}

#[cfg(test)]
mod tests;
