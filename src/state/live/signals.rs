//! What an engine said of itself, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::domain::{EngineKind, Gauge, Gauges, Moment};

use super::Mark;

/// The last reading of an engine.
#[derive(Debug)]
pub struct Signals {
    /// When it was read (microseconds); 0 is never.
    read_at: AtomicU64,
    /// Our counts as it was read.
    in_flight: AtomicU64,
    tokens: AtomicU64,
    /// `f64` bits by [`Gauge`] index; NaN when the engine did not say.
    gauges: [AtomicU64; Gauge::COUNT],
    adapters: ArcSwapOption<Adapters>,
    /// Index in [`EngineKind::ALL`] of the engine as which it was last read; 0 is not known.
    engine: AtomicU8,
}

/// A reading that was found to be fresh.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<'a>(&'a Signals);

impl Fresh<'_> {
    /// A gauge, or `None` if the engine did not tell.
    pub fn gauge(self, gauge: Gauge) -> Option<f64> {
        self.0.read(gauge)
    }
}

/// The LoRA adapters that an engine works with now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adapters {
    /// Those with requests running.
    pub running: Vec<String>,
    /// Those with requests waiting.
    pub waiting: Vec<String>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            read_at: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            tokens: AtomicU64::default(),
            gauges: std::array::from_fn(|_| AtomicU64::new(f64::NAN.to_bits())),
            adapters: ArcSwapOption::empty(),
            engine: AtomicU8::default(),
        }
    }
}

impl Signals {
    pub(super) fn store(&self, gauges: &Gauges, mark: Mark, now: Moment) {
        for gauge in Gauge::ALL {
            if let Some(cell) = self.gauges.get(gauge as usize) {
                cell.store(gauges.get(gauge).unwrap_or(f64::NAN).to_bits(), Relaxed);
            }
        }
        self.in_flight.store(mark.in_flight, Relaxed);
        self.tokens.store(mark.tokens, Relaxed);
        self.read_at.store(now.as_micros(), Relaxed);
    }

    /// Our counts at the last reading.
    pub fn mark(&self) -> Mark {
        Mark { in_flight: self.in_flight.load(Relaxed), tokens: self.tokens.load(Relaxed) }
    }

    /// The last reading of a gauge, or `None` if the engine did not tell or the reading is older than `stale_after`.
    pub fn gauge(&self, gauge: Gauge, now: Moment, stale_after: Duration) -> Option<f64> {
        self.is_fresh(now, stale_after).then(|| self.read(gauge)).flatten()
    }

    /// The last reading for one look at several gauges; `None` if it is older than `stale_after`.
    pub fn fresh(&self, now: Moment, stale_after: Duration) -> Option<Fresh<'_>> {
        self.is_fresh(now, stale_after).then_some(Fresh(self))
    }

    /// Age of the last reading; `None` if there was none.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let at = self.read_at.load(Relaxed);
        (at != 0).then(|| now - Moment::from_micros(at))
    }

    /// Whether there is a reading no older than `stale_after`.
    pub fn is_fresh(&self, now: Moment, stale_after: Duration) -> bool {
        self.age(now).is_some_and(|age| age <= stale_after)
    }

    /// The adapters of the last reading that told any.
    pub fn adapters(&self) -> Option<Arc<Adapters>> {
        self.adapters.load_full()
    }

    /// Looks at the adapters of the last reading that told any, which costs less than holding on to them.
    pub fn with_adapters<R>(&self, look: impl FnOnce(&Adapters) -> R) -> Option<R> {
        self.adapters.load().as_deref().map(look)
    }

    /// Stores the adapters that the engine works with; `None` where it does not tell.
    pub fn set_adapters(&self, adapters: Option<Adapters>) {
        let same = match (&*self.adapters.load(), &adapters) {
            (Some(old), Some(new)) => **old == *new,
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            self.adapters.store(adapters.map(Arc::new));
        }
    }

    /// The engine that its metrics showed it to be; `None` before the first reading.
    pub fn engine(&self) -> Option<EngineKind> {
        let kind = EngineKind::ALL.get(usize::from(self.engine.load(Relaxed))).copied();
        kind.filter(|kind| *kind != EngineKind::Auto)
    }

    /// Stores as which engine it is read.
    pub fn set_engine(&self, engine: EngineKind) {
        self.engine.store(engine as u8, Relaxed);
    }

    fn read(&self, gauge: Gauge) -> Option<f64> {
        let value = self.gauges.get(gauge as usize).map(|cell| f64::from_bits(cell.load(Relaxed)))?;
        value.is_finite().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_absent_before_the_first_reading_and_after_it_grew_old() {
        let (signals, stale) = (Signals::default(), Duration::from_secs(5));
        let at = |seconds| Moment::EPOCH + Duration::from_secs(seconds);
        assert_eq!(signals.gauge(Gauge::KvUsage, at(1), stale), None);
        signals.store(&Gauges::default().with(Gauge::KvUsage, 0.4), Mark::default(), at(10));
        assert_eq!(signals.gauge(Gauge::KvUsage, at(11), stale), Some(0.4));
        assert_eq!(signals.gauge(Gauge::Running, at(11), stale), None);
        assert_eq!(signals.gauge(Gauge::KvUsage, at(16), stale), None);
    }
}
