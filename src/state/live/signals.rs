//! What an engine said of itself, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use xxhash_rust::xxh3::xxh3_64;

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
    /// The same at a glance: a bit for each name, and above them how many there are plus one; 0 where none were told.
    glance: AtomicU64,
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

/// What an engine does with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Requests for it run.
    Running,
    /// Requests for it wait.
    Waiting,
    /// Neither.
    Absent,
}

/// Bits of a glance that stand for names.
const GLANCE_BITS: u32 = 48;

/// The bit of a name. Others may have the same one: a bit that is not set proves absence, one that is set nothing.
fn glance_bit(name: &str) -> u64 {
    1 << (xxh3_64(name.as_bytes()) % u64::from(GLANCE_BITS))
}

/// How many adapters a glance counts.
fn held(glance: u64) -> Option<u32> {
    ((glance >> GLANCE_BITS) as u32).checked_sub(1)
}

impl Adapters {
    fn presence(&self, name: &str) -> Presence {
        if self.running.iter().any(|known| known == name) {
            Presence::Running
        } else if self.waiting.iter().any(|known| known == name) {
            Presence::Waiting
        } else {
            Presence::Absent
        }
    }

    fn glance(&self) -> u64 {
        let only_waiting = self.waiting.iter().filter(|name| !self.running.contains(name)).count();
        let held = (self.running.len() + only_waiting + 1).min(0xffff) as u64;
        self.running.iter().chain(&self.waiting).fold(held << GLANCE_BITS, |glance, name| glance | glance_bit(name))
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            read_at: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            tokens: AtomicU64::default(),
            gauges: std::array::from_fn(|_| AtomicU64::new(f64::NAN.to_bits())),
            adapters: ArcSwapOption::empty(),
            glance: AtomicU64::default(),
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

    /// How many adapters the engine works with; `None` where it does not tell.
    pub fn adapters_held(&self) -> Option<u32> {
        held(self.glance.load(Relaxed))
    }

    /// What the engine does with an adapter, and how many it works with in all; `None` where it does not tell.
    ///
    /// Asked of all candidates of a decision, most of which do not have it: for them one word is enough.
    pub fn adapter(&self, name: &str) -> Option<(Presence, u32)> {
        let glance = self.glance.load(Relaxed);
        let held = held(glance)?;
        if glance & glance_bit(name) == 0 {
            return Some((Presence::Absent, held));
        }
        Some((self.adapters.load().as_deref().map_or(Presence::Absent, |told| told.presence(name)), held))
    }

    /// Stores the adapters that the engine works with; `None` where it does not tell.
    pub fn set_adapters(&self, adapters: Option<Adapters>) {
        let same = match (&*self.adapters.load(), &adapters) {
            (Some(old), Some(new)) => **old == *new,
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            self.glance.store(adapters.as_ref().map_or(0, Adapters::glance), Relaxed);
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
    fn an_adapter_is_found_where_it_runs_or_waits_and_all_are_counted_once() {
        let signals = Signals::default();
        assert_eq!(signals.adapter("a"), None, "nothing was told yet");
        let names = |range: std::ops::Range<u32>| range.map(|number| format!("adapter {number}")).collect();
        signals.set_adapters(Some(Adapters { running: names(0..60), waiting: names(50..90) }));
        for number in 0..200 {
            let expected = match number {
                0..60 => Presence::Running,
                60..90 => Presence::Waiting,
                _ => Presence::Absent,
            };
            assert_eq!(signals.adapter(&format!("adapter {number}")), Some((expected, 90)));
        }
        signals.set_adapters(Some(Adapters::default()));
        assert_eq!(signals.adapter("adapter 1"), Some((Presence::Absent, 0)));
        signals.set_adapters(None);
        assert_eq!(signals.adapter("adapter 1"), None);
    }

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
