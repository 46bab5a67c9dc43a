//! Which metrics of which engine mean what. Adding an engine is a file with a table, and a line in [`table`].

mod vllm;

use crate::domain::{EngineKind, Gauge, Gauges};

/// How the values of several ranks behind one address become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Counts add up.
    Sum,
    /// Shares, 0 to 1, are averaged.
    MeanShare,
}

/// Where an engine tells a gauge.
#[derive(Debug)]
pub struct Signal {
    /// What is told.
    pub gauge: Gauge,
    /// Names of the metric by version, newest first; the first that a page has is taken.
    pub names: &'static [&'static str],
    /// Over all samples of that name.
    pub fold: Fold,
}

/// The signals of an engine; `None` if it has no metrics that we read.
pub fn table(kind: EngineKind) -> Option<&'static [Signal]> {
    match kind {
        EngineKind::Vllm => Some(vllm::SIGNALS),
        EngineKind::None => None,
    }
}

/// Whether a metric of that name is one of these signals.
pub fn wants(signals: &'static [Signal]) -> impl Fn(&[u8]) -> bool {
    move |name| signals.iter().any(|signal| signal.names.iter().any(|known| known.as_bytes() == name))
}

/// Collects one page's samples into gauges.
#[derive(Debug)]
pub struct Reading {
    signals: &'static [Signal],
    cells: [Cell; Gauge::COUNT],
}

/// What was found of one gauge, under the newest name so far.
#[derive(Debug, Clone, Copy)]
struct Cell {
    name: usize,
    sum: f64,
    count: u32,
}

impl Reading {
    /// An empty reading by this table.
    pub fn new(signals: &'static [Signal]) -> Self {
        Self { signals, cells: [Cell { name: usize::MAX, sum: 0.0, count: 0 }; Gauge::COUNT] }
    }

    /// Takes a sample in, if the engine's table has its name.
    pub fn add(&mut self, name: &[u8], value: f64) {
        for signal in self.signals {
            let Some(at) = signal.names.iter().position(|known| known.as_bytes() == name) else { continue };
            let Some(cell) = self.cells.get_mut(signal.gauge as usize) else { continue };
            if at < cell.name {
                *cell = Cell { name: at, sum: 0.0, count: 0 };
            }
            if at == cell.name {
                // One rank that lies makes the whole unknown; a sum that leaves it out would be a lie as well.
                let sound = value >= 0.0 && (signal.fold == Fold::Sum || value <= 1.0);
                cell.sum += if sound { value } else { f64::NAN };
                cell.count += 1;
            }
        }
    }

    /// The gauges, without those that the page did not tell or told nonsense of.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        for signal in self.signals {
            if let Some(cell) = self.cells.get(signal.gauge as usize).filter(|cell| cell.count > 0) {
                let divisor = if signal.fold == Fold::Sum { 1.0 } else { f64::from(cell.count) };
                gauges.set(signal.gauge, Some(cell.sum / divisor));
            }
        }
        gauges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(samples: &[(&str, f64)]) -> Gauges {
        let mut reading = Reading::new(table(EngineKind::Vllm).unwrap());
        for (name, value) in samples {
            reading.add(name.as_bytes(), *value);
        }
        reading.gauges()
    }

    #[test]
    fn a_page_without_known_names_tells_nothing() {
        assert_eq!(reading(&[("vllm:num_requests_waiting_by_reason", 3.0), ("up", 1.0)]), Gauges::default());
    }

    #[test]
    fn the_newest_name_wins_in_whatever_order() {
        let (old, new) = (("vllm:gpu_cache_usage_perc", 0.9), ("vllm:kv_cache_usage_perc", 0.2));
        assert_eq!(reading(&[old]).get(Gauge::KvUsage), Some(0.9));
        assert_eq!(reading(&[old, new]).get(Gauge::KvUsage), Some(0.2));
        assert_eq!(reading(&[new, old]).get(Gauge::KvUsage), Some(0.2));
    }

    #[test]
    fn one_lying_rank_makes_a_gauge_unknown() {
        for lie in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(
                reading(&[("vllm:num_requests_running", 2.0), ("vllm:num_requests_running", lie)]).get(Gauge::Running),
                None
            );
        }
        assert_eq!(reading(&[("vllm:kv_cache_usage_perc", 57.0)]).get(Gauge::KvUsage), None);
    }
}
