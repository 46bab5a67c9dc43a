//! Who is read when. Knows nothing of sockets, and time is an argument.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::domain::{EndpointId, EngineKind};
use crate::state::{Endpoint, Snapshot};

use super::book::Book;

/// A failing endpoint is read this many times less often than an idle one at most; while it answers requests, it is read
/// as often as an idle one.
const BACKOFF_MAX: u32 = 10;

/// New endpoints, and requests to endpoints that were idle, are noticed within this time.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// How much longer each pause of an idle endpoint is than the one before.
const EASE: f64 = 1.5;

/// Whether the last read of an endpoint went well. One that was never read is a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted,
    Suspect,
}

/// A read to make now; give it back to [`Plan::finished`].
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) book: Box<Book>,
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
    interval_min: Duration,
    interval_max: Duration,
    /// Least time between the beginnings of two reads, on average.
    spacing: Duration,
    window: Duration,
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
    /// Not there while it is read.
    book: Option<Box<Book>>,
    failures_in_row: u32,
    /// The last pause.
    pause: Duration,
    /// What we had sent there at the last read, and how much of it was answered.
    sent: u64,
    answers: u64,
    /// When the last read was over.
    read_at: Instant,
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
            interval_min: config.interval_min,
            interval_max: config.interval_max,
            spacing: Duration::from_secs(1) / config.reads_per_second_max.max(1),
            window: config.window,
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
            if endpoint.spec.engine == EngineKind::None {
                continue;
            }
            let endpoint = Arc::clone(endpoint);
            let id = endpoint.id;
            let entry = if let Some(entry) = former.remove(&id) {
                let book = entry.book.filter(|_| reads_alike(&endpoint, &entry.endpoint));
                let book = book.or_else(|| entry.due.map(|_| self.book(&endpoint)));
                Entry { endpoint, book, ..entry }
            } else {
                let due = now + self.interval_min.mul_f64(self.rng.f64());
                self.suspects.due.push(Reverse((due, id)));
                let (book, pause) = (Some(self.book(&endpoint)), self.interval_min);
                Entry { endpoint, book, failures_in_row: 0, pause, sent: 0, answers: 0, read_at: now, due: Some(due) }
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
                if let Some((entry, book)) = entry.and_then(|entry| entry.book.take().map(|book| (entry, book))) {
                    entry.due = None;
                    entry.sent = entry.endpoint.live.ours.sent();
                    entry.answers = entry.endpoint.live.measured.answers();
                    let endpoint = Arc::clone(&entry.endpoint);
                    self.lane(trust).reading += 1;
                    return Some(Turn { endpoint, book, trust });
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

    /// Reads those soon to which requests were sent while they were idle, and those that failed and answer requests now,
    /// such as after a restart. To be called every [`LOOK`].
    pub(super) fn rouse(&mut self, now: Instant) {
        let soon = now + self.busy_pause();
        for (id, entry) in &mut self.entries {
            let Some(due) = entry.due.filter(|due| *due > soon) else { continue };
            let live = &entry.endpoint.live;
            let sooner = now + self.interval_min.mul_f64(self.rng.f64());
            if entry.failures_in_row > 0 {
                // It may answer requests and tell no metrics at all, so not as often as a busy one.
                let sooner = sooner.max(entry.read_at + self.interval_max);
                if sooner < due && live.measured.answers() != entry.answers {
                    entry.due = Some(sooner);
                    self.suspects.due.push(Reverse((sooner, *id)));
                }
            } else if live.ours.sent() != entry.sent {
                (entry.due, entry.pause) = (Some(sooner), self.interval_min);
                self.trusted.due.push(Reverse((sooner, *id)));
            }
        }
    }

    /// Pause of a busy endpoint; longer than configured in a fleet too large for it.
    fn busy_pause(&self) -> Duration {
        let fleet = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.interval_min.max(self.spacing.saturating_mul(fleet))
    }

    fn book(&self, endpoint: &Endpoint) -> Box<Book> {
        Box::new(Book::new(endpoint.spec.engine, self.window))
    }

    /// Books a finished read and sets the endpoint's next one.
    pub(super) fn finished(&mut self, turn: Turn, success: bool, now: Instant) -> Trend {
        let lane = self.lane(turn.trust);
        debug_assert!(lane.reading > 0, "more reads finished than were begun");
        lane.reading = lane.reading.saturating_sub(1);
        let id = turn.endpoint.id;
        let (shortest, jitter) = (self.busy_pause(), 0.9 + 0.2 * self.rng.f64());
        let (longest, fresh) = (self.interval_max.max(shortest), self.book(&turn.endpoint));
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.due.is_none()) else {
            return Trend::Same;
        };
        let failures_before = entry.failures_in_row;
        entry.failures_in_row = if success { 0 } else { failures_before.saturating_add(1) };
        let is_busy = turn.book.is_busy || entry.endpoint.live.ours.in_flight() > 0;
        entry.pause = match success {
            true if is_busy => shortest,
            true => entry.pause.mul_f64(EASE).clamp(shortest, longest),
            false => shortest.saturating_mul(2_u32.saturating_pow(entry.failures_in_row)).min(longest * BACKOFF_MAX),
        };
        let due = now + entry.pause.mul_f64(jitter);
        (entry.due, entry.read_at) = (Some(due), now);
        entry.book = Some(if reads_alike(&entry.endpoint, &turn.endpoint) { turn.book } else { fresh });
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

/// Whether what was learned of one is true of the other.
fn reads_alike(a: &Endpoint, b: &Endpoint) -> bool {
    a.spec.engine == b.spec.engine && a.spec.metrics_address() == b.spec.metrics_address()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::domain::{EndpointSpec, EngineKind};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn plan(concurrency: usize) -> Plan {
        let config =
            config::Scrape { interval_min: INTERVAL, interval_max: INTERVAL, concurrency, ..config::Scrape::default() };
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
                plan.finished(turn, true, now);
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
                plan.finished(turn, false, now);
                reads += 1;
            }
        }
        assert!((90..=115).contains(&reads), "{reads}");
    }

    #[test]
    fn a_failing_endpoint_that_answers_requests_is_read_soon_and_then_as_often_as_an_idle_one() {
        let (mut plan, start) = (plan(8), Instant::now());
        let snapshot = snapshot(1, &[EngineKind::Vllm]);
        plan.follow(&snapshot, start);
        let mut now = start;
        let mut run = |plan: &mut Plan, steps: u32, answers: bool| {
            let mut reads = 0;
            for _ in 0..steps {
                now += LOOK;
                if answers {
                    snapshot.endpoints()[0].live.measured.answered(crate::domain::Moment::EPOCH);
                }
                plan.rouse(now);
                for turn in turns(plan, now) {
                    plan.finished(turn, false, now);
                    reads += 1;
                }
            }
            reads
        };
        run(&mut plan, 1_000, false);
        let silent: u32 = run(&mut plan, 1_000, false);
        assert!((9..=12).contains(&silent), "{silent}");
        // Its last read is an interval ago at least, since the pauses are ten by now.
        run(&mut plan, 11, false);
        assert!(run(&mut plan, 12, true) >= 1);
        let answering = run(&mut plan, 1_000, true);
        assert!((60..=100).contains(&answering), "{answering}");
    }

    #[test]
    fn suspects_leave_half_of_the_places_to_the_others() {
        let (mut plan, start) = (plan(4), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm; 6]), start);
        let now = start + INTERVAL;
        let mut first = turns(&mut plan, now);
        assert_eq!(first.len(), 2);
        let answers = first[0].endpoint.id;
        plan.finished(first.remove(0), true, now);
        let later = now + INTERVAL * 2;
        assert!(turns(&mut plan, later).iter().any(|turn| turn.endpoint.id == answers));
    }

    #[test]
    fn an_endpoint_that_left_is_forgotten_even_while_it_is_read() {
        let (mut plan, start) = (plan(4), Instant::now());
        plan.follow(&snapshot(1, &[EngineKind::Vllm; 2]), start);
        let under_way = turns(&mut plan, start + INTERVAL);
        assert_eq!(under_way.len(), 2);
        plan.follow(&snapshot(2, &[]), start + INTERVAL);
        for turn in under_way {
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
            trends.push(plan.finished(turn, success, now));
        }
        assert_eq!(trends, [Trend::Same, Trend::Broke, Trend::Same, Trend::Mended, Trend::Same]);
    }
}
