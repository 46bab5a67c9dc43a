//! Numbers that live elsewhere and are read when somebody scrapes us.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::families::{Declaration, Kind};

type Labels = &'static [(&'static str, &'static str)];
type Read = Box<dyn Fn() -> f64 + Send + Sync>;
type Series = Vec<(Labels, Read)>;

/// Closures by family; several closures of one family differ by labels.
#[derive(Default)]
pub(super) struct Watched(Mutex<Vec<(Declaration, Series)>>);

impl Watched {
    pub(super) fn add(&self, family: Declaration, labels: Labels, read: Read) {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(family.labels), "labels of {}", family.name);
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, series)) => series.push((labels, read)),
            None => families.push((family, vec![(labels, read)])),
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, series) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut metric = descriptor(&mut encoder, family)?;
            for (labels, read) in series {
                value(metric.encode_family(labels)?, family.kind, read())?;
            }
        }
        Ok(())
    }
}

/// Writes the head of a family.
pub(super) fn descriptor<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    family: &'a Declaration,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    encoder.encode_descriptor(family.stem(), &format!("{}.", family.help), None, kind)
}

/// Writes one value of a counter or a gauge.
pub(super) fn value(mut encoder: MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
    }
}
