//! How strategies share out load over time: between two readings, one request after the other, without readings, and
//! among engines of different speed.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Clock, ClockHand, Gauge, Gauges, Moment, Work};
use crate::state::{Endpoint, Ticket};

use super::conformance::{fleet, view};
use super::*;

/// Strategies that go by load, whatever else they go by.
const BY_LOAD: &[&str] = &[
    "active-request",
    "cost",
    "fastest-response",
    "least-busy-time",
    "least-kv-cache",
    "least-latency",
    "least-request",
    "least-tokens",
    "least-utilization",
    "lora-affinity",
    "power-of-two",
    "priority",
    "session-affinity",
    "throughput",
    "usage-based",
];

const WORK: Work = Work { prompt_tokens: 500, output_tokens: 100 };
const BEGIN: Moment = Moment::from_micros(100_000_000);

/// A fleet in the hands of one strategy, in virtual time.
struct Bench {
    router: Arc<dyn Router>,
    fleet: Vec<Arc<Endpoint>>,
    clock: Clock,
    hand: ClockHand,
    decisions: u64,
}

impl Bench {
    fn of(name: &str, size: usize) -> Self {
        let registration = STRATEGIES.iter().find(|registration| registration.name == name).unwrap();
        let router = (registration.build)(&Parameters::default()).unwrap().into_router();
        let (clock, hand) = Clock::manual(BEGIN);
        Self { router, fleet: fleet(size), clock, hand, decisions: 0 }
    }

    /// Sends a request, and books what the exchange books.
    fn send(&mut self) -> (usize, Ticket) {
        self.decisions += 1;
        let asked = Asked { model: "m".into(), work: WORK, ..Asked::default() };
        let request = RequestView { asked: &asked, now: self.clock.now(), ..view(self.decisions) };
        let plan = decide(&*self.router, &request, &self.fleet, 1, &mut Trace::off()).unwrap().unwrap();
        let endpoint = plan.first();
        endpoint.live.measured.tokens(500, 100, request.now);
        let at = self.fleet.iter().position(|other| other.id == endpoint.id).unwrap();
        (at, Ticket::open(Arc::clone(endpoint), WORK, &self.clock))
    }

    fn read(&self, at: usize, page: &Gauges) {
        let live = &self.fleet[at].live;
        live.publish(page, live.mark(), self.clock.now());
    }

    fn wait(&self, millis: u64) {
        self.hand.set(self.clock.now() + Duration::from_millis(millis));
    }
}

/// What an engine tells that has served requests lately: `speed` 1 is 100 ms of prefill and 1 s of decode.
fn page(speed: f64, running: f64, waiting: f64) -> Gauges {
    Gauges::default()
        .with(Gauge::Running, running)
        .with(Gauge::Waiting, waiting)
        .with(Gauge::KvUsage, running * 600.0 / 100_000.0)
        .with(Gauge::KvCapacity, 100_000.0)
        .with(Gauge::PrefillTimeMean, 0.1 / speed)
        .with(Gauge::PromptLengthMean, 500.0)
        .with(Gauge::DecodeTimeMean, 1.0 / speed)
        .with(Gauge::OutputLengthMean, 100.0)
        .with(Gauge::TtftMean, 0.1 / speed)
        .with(Gauge::TtftP95, 0.15 / speed)
}

/// Noise of up to 4 % that stays with an endpoint.
fn speed_of(at: usize) -> f64 {
    1.0 + 0.04 * ((at * 3 % 8) as f64 / 3.5 - 1.0)
}

fn assert_even(name: &str, counts: &[usize], tolerance: f64) {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    for count in counts {
        assert!((*count as f64 - mean).abs() <= tolerance * mean, "{name}: {counts:?}");
    }
}

#[test]
fn a_thousand_decisions_between_two_readings_do_not_herd() {
    for name in BY_LOAD {
        let mut bench = Bench::of(name, 8);
        (0..8).for_each(|at| bench.read(at, &page(speed_of(at), (at % 3) as f64, 0.0)));
        let (mut counts, mut open) = ([0; 8], Vec::new());
        for _ in 0..1000 {
            let (at, ticket) = bench.send();
            counts[at] += 1;
            open.push(ticket);
        }
        assert_even(name, &counts, 0.2);
    }
}

#[test]
fn one_request_at_a_time_does_not_pile_on_one_endpoint() {
    for name in BY_LOAD {
        for is_read in [false, true] {
            let mut bench = Bench::of(name, 8);
            let mut counts = [0; 8];
            for _ in 0..1600 {
                if is_read {
                    (0..8).for_each(|at| bench.read(at, &page(speed_of(at), 0.0, 0.0)));
                }
                let (at, ticket) = bench.send();
                bench.wait(50);
                let measured = &bench.fleet[at].live.measured;
                measured.first_token(Duration::from_millis(50), bench.clock.now());
                measured.answered(bench.clock.now());
                drop(ticket);
                counts[at] += 1;
            }
            assert_even(name, &counts, 0.3);
        }
    }
}

#[test]
fn endpoints_without_metrics_are_neither_shunned_nor_flooded() {
    for name in BY_LOAD {
        let mut bench = Bench::of(name, 8);
        (0..4).for_each(|at| bench.read(at, &page(speed_of(at), 0.0, 0.0)));
        let (mut counts, mut open) = ([0; 8], Vec::new());
        for _ in 0..1000 {
            let (at, ticket) = bench.send();
            counts[at] += 1;
            open.push(ticket);
        }
        let silent = counts[4..].iter().sum::<usize>();
        assert!((350..=650).contains(&silent), "{name}: {counts:?}");
    }
}

#[test]
fn a_prompt_of_a_hundred_thousand_tokens_does_not_count_as_one() {
    let mut bench = Bench::of("least-tokens", 2);
    let huge = Work { prompt_tokens: 100_000, output_tokens: 100 };
    let mut ticket = Ticket::open(Arc::clone(&bench.fleet[0]), huge, &bench.clock);
    let open: Vec<_> = (0..100).map(|_| bench.send()).collect();
    assert!(open.iter().all(|(at, _)| *at == 1));
    ticket.first_token();
    assert_eq!(bench.send().0, 0, "once prefilled, only its output counts");
}

#[test]
fn cheap_and_first_endpoints_are_filled_before_the_next() {
    for name in ["cost", "priority"] {
        let mut bench = Bench::of(name, 3);
        for (at, level) in [(0, 2), (1, 0), (2, 1)] {
            let spec = &bench.fleet[at].spec;
            let spec =
                crate::domain::EndpointSpec { cost: f64::from(level), tier: Some(level.to_string()), ..spec.clone() };
            bench.fleet[at] = Arc::new(Endpoint::new(bench.fleet[at].id, spec, Arc::default()));
        }
        let open: Vec<_> = (0..90).map(|_| bench.send()).collect();
        let count = |range: std::ops::Range<usize>, at| open[range].iter().filter(|(to, _)| *to == at).count();
        assert_eq!((count(0..16, 1), count(16..32, 2), count(32..48, 0)), (16, 16, 16), "{name}");
        assert_eq!([0, 1, 2].map(|at| count(0..90, at)), [30; 3], "{name}: all are full, so all share");
    }
}

/// An engine that works on four requests at full speed each, and on more at the speed of four shared among them.
struct Engine {
    speed: f64,
    /// Seconds of work left, and the request's place.
    open: Vec<(f64, Ticket)>,
}

impl Engine {
    const PARALLEL: f64 = 4.0;

    fn work(&mut self, seconds: f64) -> usize {
        let each = seconds * self.speed * (Self::PARALLEL / self.open.len() as f64).min(1.0);
        let before = self.open.len();
        self.open.iter_mut().for_each(|(left, _)| *left -= each);
        self.open.retain(|(left, _)| *left > 0.0);
        before - self.open.len()
    }
}

/// Sixty-four clients, each of which asks again as soon as it is answered, at eight engines of which two are half as
/// fast. How many requests each engine finished in five minutes.
fn closed_loop(name: &str) -> Vec<usize> {
    let mut bench = Bench::of(name, 8);
    let mut rng = fastrand::Rng::with_seed(7);
    let speed = |at| if at < 2 { 0.5 } else { 1.0 };
    let mut engines: Vec<_> = (0..8).map(|at| Engine { speed: speed(at), open: Vec::new() }).collect();
    let (mut finished, mut asking) = (vec![0; 8], 64);
    for step in 0..6000 {
        if step % 20 == 0 {
            for (at, engine) in engines.iter().enumerate() {
                let open = engine.open.len() as f64;
                let slowdown = (open / Engine::PARALLEL).max(1.0);
                bench.read(at, &page(engine.speed / slowdown, open, 0.0));
            }
        }
        for _ in 0..std::mem::take(&mut asking) {
            let (at, ticket) = bench.send();
            engines[at].open.push((0.5 + rng.f64(), ticket));
        }
        for (at, engine) in engines.iter_mut().enumerate() {
            let done = engine.work(0.05);
            (0..done).for_each(|_| bench.fleet[at].live.measured.answered(bench.clock.now()));
            finished[at] += done;
            asking += done;
        }
        bench.wait(50);
    }
    finished
}

#[test]
fn endpoints_that_are_half_as_fast_get_about_half() {
    let share = |name| {
        let finished = closed_loop(name);
        let mean = |part: &[usize]| part.iter().sum::<usize>() as f64 / part.len() as f64;
        mean(&finished[..2]) / mean(&finished[2..])
    };
    for name in [
        "active-request",
        "fastest-response",
        "least-busy-time",
        "least-kv-cache",
        "least-latency",
        "least-request",
        "least-tokens",
        "least-utilization",
        "power-of-two",
        "usage-based",
    ] {
        let share = share(name);
        assert!((0.35..=0.65).contains(&share), "{name}: {share:.2}");
    }
    assert!(share("random") > 0.8, "random does not see it, or the test proves nothing");
}
