//! Who is read when. Knows nothing of sockets, and time is an argument.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::domain::EndpointId;
use crate::state::{Endpoint, Snapshot};

use super::engines;

/// A failing endpoint is read this many times less often at most.
const BACKOFF_MAX: u32 = 10;

/// New endpoints are noticed within this time.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the last read of an endpoint went well. One that was never read is a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted,
    Suspect,
}

/// A read to make now; give it back to [`Plan::finished`].
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) endpoint: Arc<Endpoint>,
    trust: Trust,
}

/// What a finished read changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trend {
    Same,
    Broke,
    Mended,
}

/// Due times of all endpoints that have metrics.
///
/// Suspects use at most half of the concurrency: a fleet of hanging ones cannot hold up those that answer.
#[derive(Debug)]
pub(super) struct Plan {
    interval: Duration,
    concurrency: usize,
    version: u64,
    entries: HashMap<EndpointId, Entry>,
    trusted: Lane,
    suspects: Lane,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    failures_in_row: u32,
    /// `None` while it is read. A lane's item with another time is out of date.
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    due: BinaryHeap<Reverse<(Instant, EndpointId)>>,
    reading: usize,
}

impl Plan {
    pub(super) fn new(config: &config::Scrape, rng: fastrand::Rng) -> Self {
        Self {
            interval: config.interval,
            concurrency: config.concurrency.max(1),
            version: 0,
            entries: HashMap::new(),
            trusted: Lane::default(),
            suspects: Lane::default(),
            rng,
        }
    }

    /// Takes over the endpoints of a snapshot: forgets who left, spreads who came over one interval.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        if snapshot.version() == self.version {
            return;
        }
        self.version = snapshot.version();
        let mut former = mem::take(&mut self.entries);
        for endpoint in snapshot.endpoints() {
            if engines::table(endpoint.spec.engine).is_none() {
                continue;
            }
            let endpoint = Arc::clone(endpoint);
            let id = endpoint.id;
            let entry = if let Some(entry) = former.remove(&id) {
                Entry { endpoint, ..entry }
            } else {
                let due = now + self.interval.mul_f64(self.rng.f64());
                self.suspects.due.push(Reverse((due, id)));
                Entry { endpoint, failures_in_row: 0, due: Some(due) }
            };
            self.entries.insert(id, entry);
        }
    }

    /// The next endpoint to read at `now`, if one is due and a place is free. Counts it as being read.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Turn> {
        for trust in [Trust::Trusted, Trust::Suspect] {
            while let Some(due) = self.front(trust).filter(|due| *due <= now) {
                let lane = self.lane(trust);
                let Some(Reverse((_, id))) = lane.due.pop() else { break };
                let entry = self.entries.get_mut(&id).filter(|entry| entry.due == Some(due));
                if let Some(entry) = entry {
                    entry.due = None;
                    let endpoint = Arc::clone(&entry.endpoint);
                    self.lane(trust).reading += 1;
                    return Some(Turn { endpoint, trust });
                }
            }
        }
        None
    }

    /// When to look again, if no read finishes before.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let fronts = [Trust::Trusted, Trust::Suspect].into_iter().filter_map(|trust| self.front(trust));
        fronts.fold(now + LOOK, Instant::min)
    }

    /// Books a finished read and sets the endpoint's next one.
    pub(super) fn finished(&mut self, turn: &Turn, success: bool, now: Instant) -> Trend {
        let lane = self.lane(turn.trust);
        debug_assert!(lane.reading > 0, "more reads finished than were begun");
        lane.reading = lane.reading.saturating_sub(1);
        let id = turn.endpoint.id;
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.due.is_none()) else {
            return Trend::Same;
        };
        let failures_before = entry.failures_in_row;
        entry.failures_in_row = if success { 0 } else { failures_before.saturating_add(1) };
        let slower = 2_u32.saturating_pow(entry.failures_in_row).min(BACKOFF_MAX);
        let due = now + (self.interval * slower).mul_f64(0.9 + 0.2 * self.rng.f64());
        entry.due = Some(due);
        self.lane(if success { Trust::Trusted } else { Trust::Suspect }).due.push(Reverse((due, id)));
        match (failures_before > 0, success) {
            (false, false) => Trend::Broke,
            (true, true) => Trend::Mended,
            _ => Trend::Same,
        }
    }

    /// The earliest due time in a lane that has a place free.
    fn front(&self, trust: Trust) -> Option<Instant> {
        let reading = self.trusted.reading + self.suspects.reading;
        let (lane, free) = match trust {
            Trust::Trusted => (&self.trusted, reading < self.concurrency),
            Trust::Suspect => {
                let free = self.suspects.reading < (self.concurrency / 2).max(1);
                (&self.suspects, free && reading < self.concurrency)
            }
        };
        lane.due.peek().filter(|_| free).map(|Reverse((due, _))| *due)
    }

    fn lane(&mut self, trust: Trust) -> &mut Lane {
        match trust {
            Trust::Trusted => &mut self.trusted,
            Trust::Suspect => &mut self.suspects,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::domain::{EndpointSpec, EngineKind};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn plan(concurrency: usize) -> Plan {
        let config = config::Scrape { interval: INTERVAL, concurrency, ..config::Scrape::default() };
        Plan::new(&config, fastrand::Rng::with_seed(7))
    }

    fn snapshot(version: u64, engines: &[EngineKind]) -> Snapshot {
        let endpoint = |(slot, engine): (u32, &EngineKind)| {
            let address = SocketAddr::from(([127, 0, 0, 1], slot as u16 + 1));
            let spec = EndpointSpec { engine: *engine, ..EndpointSpec::at(address) };
            Arc::new(Endpoint::new(EndpointId { slot, generation: 0 }, spec, Arc::default()))
        };
        Snapshot::build(version, (0..).zip(engines).map(endpoint).collect())
    }

    fn turns(plan: &mut Plan, now: Instant) -> Vec<Turn> {
        std::iter::from_fn(|| plan.next_due(now)).collect()
    }

    #[test]
    fn each_endpoint_with_metrics_is_read_once_an_interval() {
        let (mut plan, start) = (plan(8), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm, EngineKind::None, EngineKind::Vllm]), start);
        let mut reads = 0;
        for step in 0..1_000 {
            let now = start + INTERVAL / 10 * step;
            for turn in turns(&mut plan, now) {
                assert_eq!(turn.endpoint.spec.engine, EngineKind::Vllm);
                plan.finished(&turn, true, now);
                reads += 1;
            }
        }
        assert!((160..=200).contains(&reads), "{reads}");
    }

    #[test]
    fn a_failing_endpoint_is_read_ten_times_less_often_and_never_less() {
        let (mut plan, start) = (plan(8), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm]), start);
        let mut reads = 0;
        for step in 0..10_000 {
            let now = start + INTERVAL / 10 * step;
            for turn in turns(&mut plan, now) {
                plan.finished(&turn, false, now);
                reads += 1;
            }
        }
        assert!((90..=115).contains(&reads), "{reads}");
    }

    #[test]
    fn suspects_leave_half_of_the_places_to_the_others() {
        let (mut plan, start) = (plan(4), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm; 6]), start);
        let now = start + INTERVAL;
        let first = turns(&mut plan, now);
        assert_eq!(first.len(), 2);
        plan.finished(&first[0], true, now);
        let later = now + INTERVAL * 2;
        assert!(turns(&mut plan, later).iter().any(|turn| turn.endpoint.id == first[0].endpoint.id));
    }

    #[test]
    fn an_endpoint_that_left_is_forgotten_even_while_it_is_read() {
        let (mut plan, start) = (plan(4), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm; 2]), start);
        let under_way = turns(&mut plan, start + INTERVAL);
        assert_eq!(under_way.len(), 2);
        plan.follow(&snapshot(2, &[]), start + INTERVAL);
        for turn in &under_way {
            assert_eq!(plan.finished(turn, false, start + INTERVAL), Trend::Same);
        }
        assert!(turns(&mut plan, start + INTERVAL * 100).is_empty());
        assert_eq!((plan.suspects.reading, plan.suspects.due.len()), (0, 0));
    }

    #[test]
    fn breaking_and_mending_are_told_once() {
        let (mut plan, start) = (plan(4), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm]), start);
        let mut trends = Vec::new();
        for (round, success) in (1..).zip([true, false, false, true, true]) {
            let now = start + INTERVAL * 20 * round;
            let turn = plan.next_due(now).unwrap();
            trends.push(plan.finished(&turn, success, now));
        }
        assert_eq!(trends, [Trend::Same, Trend::Broke, Trend::Same, Trend::Mended, Trend::Same]);
    }
}
