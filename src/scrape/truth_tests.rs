//! Our picture of an engine's load against the engine's own, where requests, ends and readings take time on the way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Clock, ClockHand, EndpointId, EndpointSpec, Gauge, Gauges, Moment, Work};
use crate::state::{Endpoint, Question, Ticket};

const STALE: Duration = Duration::from_secs(5);
const MS: u64 = 1000;
/// From us to an engine, and back.
const WAY: u64 = 3 * MS;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// At the engine: a request comes, and ends after so long.
    Arrives {
        engine: usize,
        lasts: u64,
        ours: bool,
    },
    Ends {
        engine: usize,
        ours: bool,
    },
    /// At us: an end is seen.
    Freed {
        engine: usize,
    },
    Ask {
        engine: usize,
    },
    /// At the engine: it is read.
    Read {
        engine: usize,
    },
    Answer {
        engine: usize,
        running: u32,
    },
}

/// Engines in virtual time, their requests, and our tickets.
struct World {
    clock: Clock,
    hand: ClockHand,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    endpoints: Vec<Arc<Endpoint>>,
    tickets: Vec<Vec<Ticket>>,
    running: Vec<u32>,
    asked: Vec<Option<Question>>,
    interval: u64,
}

impl World {
    fn new(engines: usize, interval: u64) -> Self {
        let (clock, hand) = Clock::manual(Moment::from_micros(1_000_000));
        let endpoint = |slot: usize| {
            let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], slot as u16 + 1)));
            Arc::new(Endpoint::new(EndpointId { slot: slot as u32, generation: 0 }, spec, Arc::default()))
        };
        let mut world = Self {
            clock,
            hand,
            now: 1_000_000,
            events: BinaryHeap::new(),
            sequence: 0,
            endpoints: (0..engines).map(endpoint).collect(),
            tickets: (0..engines).map(|_| Vec::new()).collect(),
            running: vec![0; engines],
            asked: vec![None; engines],
            interval,
        };
        (0..engines).for_each(|engine| world.after(engine as u64 * 7 * MS, Event::Ask { engine }));
        world
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + delay, self.sequence, event)));
    }

    fn send(&mut self, engine: usize, lasts: u64) {
        self.tickets[engine].push(Ticket::open(Arc::clone(&self.endpoints[engine]), Work::default(), &self.clock));
        self.after(WAY, Event::Arrives { engine, lasts, ours: true });
    }

    /// The endpoint that least-request would choose.
    fn least(&self) -> usize {
        let load = |engine: &usize| self.requests(*engine);
        (0..self.endpoints.len()).min_by(|a, b| load(a).total_cmp(&load(b))).unwrap()
    }

    fn requests(&self, engine: usize) -> f64 {
        self.endpoints[engine].live.requests(self.clock.now(), STALE).0
    }

    fn run_until(&mut self, until: u64) {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= until) {
            let Reverse((at, _, event)) = self.events.pop().unwrap();
            self.advance(at);
            self.happen(event);
        }
        self.advance(until);
    }

    fn advance(&mut self, to: u64) {
        self.now = to;
        self.hand.set(Moment::from_micros(to));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { engine, lasts, ours } => {
                self.running[engine] += 1;
                self.after(lasts, Event::Ends { engine, ours });
            }
            Event::Ends { engine, ours } => {
                self.running[engine] -= 1;
                if ours {
                    self.after(WAY, Event::Freed { engine });
                }
            }
            Event::Freed { engine } => drop(self.tickets[engine].pop()),
            Event::Ask { engine } => {
                self.asked[engine] = Some(self.endpoints[engine].live.ask());
                self.after(WAY, Event::Read { engine });
                self.after(self.interval, Event::Ask { engine });
            }
            Event::Read { engine } => {
                let running = self.running[engine];
                self.after(WAY, Event::Answer { engine, running });
            }
            Event::Answer { engine, running } => {
                let live = &self.endpoints[engine].live;
                let mark = live.mark_since(self.asked[engine].take().unwrap());
                let page = Gauges::default().with(Gauge::Running, f64::from(running)).with(Gauge::Waiting, 0.0);
                live.publish(&page, mark, self.clock.now());
            }
        }
    }
}

#[test]
fn a_burst_between_two_readings_is_spread_evenly() {
    let mut world = World::new(10, 500 * MS);
    world.run_until(1_450_000);
    for _ in 0..1000 {
        world.send(world.least(), 800 * MS);
    }
    assert!(world.tickets.iter().all(|tickets| tickets.len() == 100));
    // All readings come while the burst runs; none of them makes a herd of the next hundred.
    for _ in 0..100 {
        world.run_until(world.now + 8 * MS);
        world.send(world.least(), 10_000 * MS);
    }
    let sent: Vec<_> = world.endpoints.iter().map(|endpoint| endpoint.live.ours.sent()).collect();
    assert!(sent.iter().all(|sent| (109..=111).contains(sent)), "{sent:?}");
}

#[test]
fn under_steady_load_nothing_is_counted_twice_and_nobody_is_forgotten() {
    let mut world = World::new(1, 200 * MS);
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut error, mut samples) = (0.0_f64, 0.0);
    // Five of others stay for the whole run; ours come 1,000 a second and last 5 to 155 ms.
    for _ in 0..5 {
        world.after(0, Event::Arrives { engine: 0, lasts: 1_000_000 * MS, ours: false });
    }
    for step in 0..10_000_u64 {
        world.run_until(1_500_000 + step * MS);
        world.send(0, (5 + rng.u64(..150)) * MS);
        if step > 1000 {
            let truth = f64::from(world.endpoints[0].live.ours.in_flight()) + 5.0;
            error += (world.requests(0) - truth).abs();
            samples += 1.0;
        }
    }
    // The load is about 86 of ours and 5 of others.
    assert!(error / samples < 0.5, "mean error {} requests", error / samples);
}

#[test]
fn what_others_send_is_seen_at_the_next_reading_and_avoided() {
    let mut world = World::new(2, 200 * MS);
    for _ in 0..50 {
        world.after(10 * MS, Event::Arrives { engine: 0, lasts: 5_000 * MS, ours: false });
    }
    world.run_until(1_400_000);
    for _ in 0..50 {
        world.send(world.least(), 1_000 * MS);
    }
    assert_eq!((world.tickets[0].len(), world.tickets[1].len()), (0, 50));
    world.run_until(3_000_000);
    assert!((world.requests(0) - 50.0).abs() < 1e-9 && world.requests(1).abs() < 1e-9);
}
