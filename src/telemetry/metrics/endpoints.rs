//! Per-endpoint numbers, read from the newest snapshot when somebody scrapes us. An endpoint that left is gone from
//! the page at once, which held gauges would not manage.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::domain::{Clock, Gauge, Moment};
use crate::state::{Endpoint, Reader};

use super::families::{self, Declaration};
use super::watched::{descriptor, value};

/// Where the numbers are and when they count as stale.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) reader: Reader,
    pub(super) stale_after: Duration,
    pub(super) clock: Clock,
}

type Column = fn(&Endpoint, Moment, Duration) -> Option<f64>;

/// One family a row: how its value is read from an endpoint; `None` leaves the series out.
const COLUMNS: [(Declaration, Column); 8] = [
    (families::ENDPOINT_IN_FLIGHT, |endpoint, _, _| Some(f64::from(endpoint.live.ours.in_flight()))),
    (families::ENDPOINT_SENT, |endpoint, _, _| Some(endpoint.live.ours.sent() as f64)),
    (families::ENDPOINT_FAILED, |endpoint, _, _| Some(endpoint.live.health.failed() as f64)),
    (families::ENDPOINT_ASIDE, |endpoint, now, _| Some(f64::from(u8::from(endpoint.live.health.is_aside(now))))),
    (families::ENDPOINT_RUNNING, |endpoint, now, stale| endpoint.live.signals.gauge(Gauge::Running, now, stale)),
    (families::ENDPOINT_WAITING, |endpoint, now, stale| endpoint.live.signals.gauge(Gauge::Waiting, now, stale)),
    (families::ENDPOINT_KV_USAGE, |endpoint, now, stale| endpoint.live.signals.gauge(Gauge::KvUsage, now, stale)),
    (families::ENDPOINT_SCRAPE_AGE, |endpoint, now, _| endpoint.live.signals.age(now).map(|age| age.as_secs_f64())),
];

impl Endpoints {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, now) = (self.reader.load(), self.clock.now());
        let totals = [
            (families::ENDPOINTS, snapshot.endpoints().len() as f64),
            (families::SNAPSHOT_VERSION, snapshot.version() as f64),
        ];
        for (family, total) in totals {
            value(descriptor(encoder, &family)?, family.kind, total)?;
        }
        for (family, read) in COLUMNS {
            let mut metric = descriptor(encoder, &family)?;
            for endpoint in snapshot.endpoints() {
                if let Some(number) = read(endpoint, now, self.stale_after) {
                    let labels = [("endpoint", endpoint.address_text()), ("name", endpoint.spec.name.as_str())];
                    value(metric.encode_family(&labels)?, family.kind, number)?;
                }
            }
        }
        Ok(())
    }
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
