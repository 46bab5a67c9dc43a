//! Who needs which gauges now: a request may name any strategy, and only those in use are worth reading engines for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::{GaugeSet, Moment};

/// A strategy that was asked for within this time is in use.
const MEMORY: Duration = Duration::from_mins(10);
/// Marks closer together than this are one.
const GRAIN: Duration = Duration::from_secs(1);

/// What strategies need, and when each was last used. Marking costs a load, and a store once a second.
#[derive(Debug)]
pub struct Demand {
    always: GaugeSet,
    strategies: Box<[Use]>,
    /// Somebody wants what nobody wanted before.
    begun: Notify,
}

#[derive(Debug)]
struct Use {
    needs: GaugeSet,
    /// Microseconds; 0 is never.
    last: AtomicU64,
}

impl Demand {
    /// `always` is needed whoever asks; `strategies` are the needs of each, in the order of the indices to
    /// [`mark`](Self::mark).
    pub fn new(always: GaugeSet, strategies: impl IntoIterator<Item = GaugeSet>) -> Self {
        let unused = |needs| Use { needs, last: AtomicU64::new(0) };
        Self { always, strategies: strategies.into_iter().map(unused).collect(), begun: Notify::new() }
    }

    /// The strategy with this index was used. Its first use wakes the scraper.
    pub fn mark(&self, strategy: usize, now: Moment) {
        let Some(used) = self.strategies.get(strategy) else { return };
        let last = used.last.load(Relaxed);
        let ago = now.as_micros().saturating_sub(last);
        if last == 0 || ago >= GRAIN.as_micros() as u64 {
            used.last.store(now.as_micros(), Relaxed);
            if last == 0 || ago >= MEMORY.as_micros() as u64 {
                self.begun.notify_one();
            }
        }
    }

    /// Takes over when strategies were last used from the demand before; `index_before` says which index there is the
    /// one here.
    pub fn take_over(&self, before: &Self, index_before: impl Fn(usize) -> Option<usize>) {
        for (index, used) in self.strategies.iter().enumerate() {
            let former = index_before(index).and_then(|index| before.strategies.get(index));
            used.last.store(former.map_or(0, |former| former.last.load(Relaxed)), Relaxed);
        }
    }

    /// What is needed now.
    pub fn gauges(&self, now: Moment) -> GaugeSet {
        let in_use = self.strategies.iter().filter(|used| {
            let last = used.last.load(Relaxed);
            last != 0 && now - Moment::from_micros(last) < MEMORY
        });
        in_use.fold(self.always, |all, used| all.with(used.needs))
    }

    /// Wakes whoever waits for [`begun`](Self::begun), for another demand holds from now on.
    pub fn wake(&self) {
        self.begun.notify_one();
    }

    /// Waits until somebody wants what nobody wanted before. For one task.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Gauge;

    use super::*;

    const LOAD: GaugeSet = GaugeSet::of(&[Gauge::Running]);
    const CACHE: GaugeSet = GaugeSet::of(&[Gauge::KvUsage]);

    fn at(seconds: u64) -> Moment {
        Moment::EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_strategy_needs_is_needed_from_its_first_use_until_ten_minutes_after_the_last() {
        let demand = Demand::new(LOAD, [GaugeSet::NONE, CACHE]);
        assert_eq!(demand.gauges(at(1)), LOAD);
        demand.mark(0, at(1));
        assert_eq!(demand.gauges(at(1)), LOAD);
        demand.mark(1, at(1));
        demand.mark(1, at(100));
        assert_eq!(demand.gauges(at(100 + 599)), LOAD.with(CACHE));
        assert_eq!(demand.gauges(at(100 + 601)), LOAD);
        demand.mark(7, at(1));
    }

    #[test]
    fn what_was_used_before_is_still_in_use_under_another_index() {
        let (before, demand) = (Demand::new(GaugeSet::NONE, [LOAD, CACHE]), Demand::new(LOAD, [CACHE, LOAD]));
        before.mark(1, at(1));
        demand.take_over(&before, |index| (index == 0).then_some(1));
        assert_eq!(demand.gauges(at(2)), LOAD.with(CACHE));
    }

    #[tokio::test]
    async fn only_a_use_after_a_pause_wakes() {
        let demand = Demand::new(GaugeSet::NONE, [CACHE]);
        let woken = || tokio::time::timeout(Duration::from_millis(1), demand.begun());
        demand.mark(0, at(1));
        assert!(woken().await.is_ok());
        demand.mark(0, at(30));
        assert!(woken().await.is_err());
        demand.mark(0, at(1000));
        assert!(woken().await.is_ok());
    }
}
