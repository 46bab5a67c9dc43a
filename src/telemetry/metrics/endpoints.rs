//! Per-endpoint numbers, read from the newest snapshot when somebody scrapes us. An endpoint that left is gone from
//! the page at once, which held gauges would not manage.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::config::PerEndpoint;
use crate::domain::{Clock, EngineKind, Gauge, GaugeSet, Moment};
use crate::state::{Endpoint, Reader};

use super::families::{self, Declaration};
use super::watched::{descriptor, value};

/// Where the numbers are and when they count as stale.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) reader: Reader,
    pub(super) stale_after: Duration,
    pub(super) clock: Clock,
    pub(super) detail: PerEndpoint,
}

type Column = fn(&Endpoint, Moment, Duration) -> Option<f64>;

/// One family a row: how its value is read from an endpoint; `None` leaves the series out.
const COLUMNS: [(Declaration, Column); 10] = [
    (families::ENDPOINT_IN_FLIGHT, |endpoint, _, _| Some(f64::from(endpoint.live.ours.in_flight()))),
    (families::ENDPOINT_SENT, |endpoint, _, _| Some(endpoint.live.ours.sent() as f64)),
    (families::ENDPOINT_FAILED, |endpoint, _, _| Some(endpoint.live.health.failed() as f64)),
    (families::ENDPOINT_ASIDE, |endpoint, now, _| Some(f64::from(u8::from(endpoint.live.health.is_aside(now))))),
    (families::ENDPOINT_REQUESTS, |endpoint, now, stale| Some(endpoint.live.requests(now, stale).0)),
    (families::ENDPOINT_SCRAPE_AGE, |endpoint, now, _| endpoint.live.signals.age(now).map(|age| age.as_secs_f64())),
    (families::ENDPOINT_PREFILL_TOKENS, |endpoint, _, _| Some(endpoint.live.ours.prefill_tokens() as f64)),
    (families::ENDPOINT_BUSY_SHARE, |endpoint, now, _| Some(endpoint.live.ours.busy_share(now))),
    (families::ENDPOINT_OWN_TTFT, |endpoint, now, _| endpoint.live.measured.ttft_mean(now)),
    (families::ENDPOINT_EXPECTED_HITS, |endpoint, now, _| endpoint.live.measured.expected_hits(now)),
];
/// So many of them, and these gauges, are shown where only the basic ones are wanted.
const BASIC_COLUMNS: usize = 6;
const BASIC: GaugeSet = GaugeSet::of(&[Gauge::Running, Gauge::Waiting, Gauge::KvUsage]);

impl Endpoints {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, now) = (self.reader.load(), self.clock.now());
        let expected = snapshot.endpoints().iter().filter(|endpoint| endpoint.spec.engine != EngineKind::None);
        let stale = expected.filter(|endpoint| !endpoint.live.signals.is_fresh(now, self.stale_after)).count();
        let totals = [
            (families::ENDPOINTS, snapshot.endpoints().len() as f64),
            (families::ENDPOINTS_STALE, stale as f64),
            (families::SNAPSHOT_VERSION, snapshot.version() as f64),
        ];
        for (family, total) in totals {
            value(descriptor(encoder, &family)?, family.kind, total)?;
        }
        let (columns, gauges) = match self.detail {
            PerEndpoint::Full => (COLUMNS.len(), None),
            PerEndpoint::Basic => (BASIC_COLUMNS, Some(BASIC)),
            PerEndpoint::Off => return Ok(()),
        };
        for (family, read) in COLUMNS.iter().take(columns) {
            let values = snapshot.endpoints().iter().map(|endpoint| (endpoint, read(endpoint, now, self.stale_after)));
            series(encoder, family, values)?;
        }
        for gauge in Gauge::ALL.into_iter().filter(|gauge| gauges.is_none_or(|shown| shown.has(*gauge))) {
            let read = |endpoint: &Endpoint| endpoint.live.signals.gauge(gauge, now, self.stale_after);
            let values = snapshot.endpoints().iter().map(|endpoint| (endpoint, read(endpoint)));
            series(encoder, &families::endpoint_gauge(gauge), values)?;
        }
        Ok(())
    }
}

/// Writes a family with the endpoints that have a value; without any it is left out.
fn series<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Declaration,
    values: impl Iterator<Item = (&'a Arc<Endpoint>, Option<f64>)>,
) -> fmt::Result {
    let mut present = values.filter_map(|(endpoint, number)| Some((endpoint, number?))).peekable();
    if present.peek().is_none() {
        return Ok(());
    }
    let mut metric = descriptor(encoder, family)?;
    for (endpoint, number) in present {
        let labels = [("endpoint", endpoint.address_text()), ("name", endpoint.spec.name.as_str())];
        value(metric.encode_family(&labels)?, family.kind, number)?;
    }
    Ok(())
}

/// The one place for [`Endpoints`] in the registry, empty until a snapshot is watched.
#[derive(Debug, Default)]
pub(super) struct EndpointsCell(std::sync::OnceLock<Endpoints>);

impl EndpointsCell {
    /// Starts to watch; a second call changes nothing.
    pub(super) fn set(&self, endpoints: Endpoints) {
        self.0.get_or_init(|| endpoints);
    }
}

impl Collector for EndpointsCell {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.get().map_or(Ok(()), |endpoints| endpoints.encode(&mut encoder))
    }
}
