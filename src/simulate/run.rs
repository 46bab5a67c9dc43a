//! One run: one workload, one demand, one strategy. Events in the order of their times, and nothing sleeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use fastrand::Rng;

use crate::routing::{InvalidStrategies, Router};

use super::engine::{Engine, Job, Output};
use super::exporter::Exporter;
use super::flights::{Flight, Flights};
use super::measure::{Answer, Summary, Tally};
use super::replica::Replica;
use super::scenario::{Demand, Scenario};
use super::strategy;
use super::traffic::Traffic;

/// Who chooses the engine.
#[derive(Debug, Clone)]
pub enum Chooser {
    /// A strategy by its name, with parameters as JSON behind it or not, or a combination.
    Strategy(String),
    /// A strategy that is not registered: one that is being tried out, or somebody else's.
    Contender {
        /// Name in tables.
        name: &'static str,
        /// Makes one; each replica has its own.
        build: fn() -> Arc<dyn Router>,
    },
    /// One who sees the true state of every engine, cache and queue, and the length of every answer to come, and takes
    /// for each request the engine where it costs least time, that of the others included. It does not plan ahead, but
    /// knows in hindsight how much weight on keeping prompts where their beginnings are would have been best.
    Oracle,
}

impl Chooser {
    /// Name in tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Strategy(name) => name,
            Self::Contender { name, .. } => name,
            Self::Oracle => "(oracle)",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An engine's phase ends, unless that was changed meanwhile.
    Engine(usize),
    /// The next script begins.
    Begin,
    /// A script's next request.
    Continue(u32),
    /// A replica reads an engine's metrics.
    Scrape { replica: usize, engine: usize },
    /// The engines' loads are noted.
    Note,
    /// A fault begins or ends.
    Fault { at: usize, begins: bool },
}

/// Loads are noted this often.
const NOTE_US: u64 = 250_000;
/// Replicas keep their books in order this often: a multiple of the above.
const UPKEEP_US: u64 = 1_000_000;
/// After a failure, a closed loop goes on after this long.
const RETRY_US: u64 = 1_000_000;

/// How many more than those that it holds up at once a prefill weighs for the oracle, apart from none: it delays whoever
/// comes later, and drives others out of the cache.
const ORACLE_WEIGHTS: [f64; 3] = [3.0, 10.0, 30.0];

/// Simulates one run to its last answer. For the oracle it is the best of several.
///
/// # Errors
/// The strategy is not known.
pub fn run(
    scenario: &Scenario,
    traffic: &Traffic,
    demand: Demand,
    chooser: &Chooser,
) -> Result<Summary, InvalidStrategies> {
    let mut best = Run::new(scenario, traffic, demand, chooser, 0.0)?.finish_all();
    for weight in ORACLE_WEIGHTS.into_iter().filter(|_| matches!(chooser, Chooser::Oracle)) {
        let other = Run::new(scenario, traffic, demand, chooser, weight)?.finish_all();
        if other.e2e_ms.mean < best.e2e_ms.mean {
            best = other;
        }
    }
    Ok(best)
}

struct Run<'a> {
    scenario: &'a Scenario,
    engines: Vec<Engine>,
    exporters: Vec<Exporter>,
    is_up: Vec<bool>,
    /// When the newest event of each engine is due.
    due: Vec<u64>,
    /// None for the oracle.
    replicas: Vec<Replica>,
    oracle_weight: f64,
    supply: super::traffic::Supply,
    closed: bool,
    flights: Flights,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    choices: Rng,
    sent: u64,
    /// Time of the first request after the warm-up, and of the last.
    window: (u64, u64),
    /// Number of the first request after the warm-up.
    warm: u64,
    tally: Tally,
    outputs: Vec<Output>,
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        traffic: &Traffic,
        demand: Demand,
        chooser: &Chooser,
        oracle_weight: f64,
    ) -> Result<Self, InvalidStrategies> {
        let count = scenario.engines.len();
        let mut replicas = Vec::new();
        for _ in 0..scenario.replicas {
            let (router, prefixes) = match chooser {
                Chooser::Oracle => break,
                Chooser::Strategy(text) => strategy::router(text).map(|(router, prefixes)| (router, Some(prefixes)))?,
                Chooser::Contender { build, .. } => (build(), None),
            };
            replicas.push(Replica::new(count, router, prefixes));
        }
        let mut tally = Tally::default();
        tally.expect(scenario.requests as usize);
        let mut run = Self {
            scenario,
            engines: scenario.engines.iter().map(|spec| Engine::new(*spec, scenario.block_tokens)).collect(),
            exporters: scenario.engines.iter().map(|_| Exporter::default()).collect(),
            is_up: vec![true; count],
            due: vec![u64::MAX; count],
            replicas,
            oracle_weight,
            supply: traffic.supply(demand, scenario),
            closed: matches!(demand, Demand::Concurrency(_)),
            flights: Flights::default(),
            events: BinaryHeap::new(),
            order: 0,
            choices: Rng::with_seed(scenario.seed ^ 0x5eed_c401),
            sent: 0,
            window: (0, 0),
            warm: super::engine::whole(scenario.requests as f64 * scenario.warm_up),
            tally,
            outputs: Vec::new(),
        };
        run.schedule_all(demand);
        Ok(run)
    }

    fn schedule_all(&mut self, demand: Demand) {
        match demand {
            Demand::Rate(_) => {
                if let Some(at) = self.supply.next_time() {
                    self.schedule(at, Event::Begin);
                }
            }
            // Not all at the same moment, as nobody's users are.
            Demand::Concurrency(count) => {
                for _ in 0..count {
                    let at = self.choices.u64(..1_000_000);
                    self.schedule(at, Event::Begin);
                }
            }
        }
        self.schedule(NOTE_US, Event::Note);
        for (at, fault) in self.scenario.faults.iter().enumerate() {
            if fault.engine < self.engines.len() {
                self.schedule(fault.from_us, Event::Fault { at, begins: true });
                self.schedule(fault.until_us, Event::Fault { at, begins: false });
            }
        }
        for replica in 0..self.replicas.len() {
            for engine in 0..self.engines.len() {
                let at = self.choices.u64(..self.scenario.scrape_us.max(1));
                self.schedule(at, Event::Scrape { replica, engine });
            }
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn finish_all(mut self) -> Summary {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Engine(at) => self.advance(at, now),
                Event::Begin => self.begin(now),
                Event::Continue(key) => self.send(key, now),
                Event::Scrape { replica, engine } => self.scrape(replica, engine, now),
                Event::Note => {
                    self.tally.add_loads(self.engines.iter().map(Engine::load));
                    if now % UPKEEP_US == 0 {
                        self.replicas.iter().for_each(|replica| replica.keep_order(now));
                    }
                    self.again(now + NOTE_US, Event::Note);
                }
                Event::Fault { at, begins } => self.fault(at, begins, now),
            }
        }
        let preemptions = self.engines.iter().map(|engine| engine.counters().preemptions).sum();
        self.tally.summary(self.sent, self.window, self.scenario.slo, preemptions)
    }

    /// Schedules what goes on for as long as requests are to come.
    fn again(&mut self, at: u64, event: Event) {
        if self.is_sending() && !(self.flights.is_empty() && self.events.is_empty()) {
            self.schedule(at, event);
        }
    }

    fn is_sending(&self) -> bool {
        self.sent < self.scenario.requests
    }

    fn begin(&mut self, now: u64) {
        if !self.is_sending() {
            return;
        }
        let Some(script) = self.supply.next_script() else { return };
        let key = self.flights.add(Flight::new(script));
        self.send(key, now);
        if !self.closed
            && let Some(at) = self.supply.next_time()
        {
            self.schedule(at, Event::Begin);
        }
    }

    /// Sends a flight's next request.
    fn send(&mut self, key: u32, now: u64) {
        if !self.is_sending() {
            self.flights.remove(key);
            return;
        }
        self.sent += 1;
        if self.sent == self.warm + 1 {
            self.window.0 = now;
        }
        self.window.1 = now;
        let seed = self.choices.u64(..);
        let flight = self.flights.at(key);
        flight.start(now, seed);
        let job = flight.job(key);
        if !self.engines.iter().any(|engine| engine.can_serve(&job)) {
            self.tally.refused += 1;
            return self.end_script(key, now, 0);
        }
        let chosen = if self.replicas.is_empty() { self.best(&job, now) } else { self.choose(key, &job, seed, now) };
        let Some((at, expected)) = chosen else {
            self.tally.failed += 1;
            return self.end_script(key, now, RETRY_US);
        };
        let Some(engine) = self.engines.get_mut(at) else { return };
        if !engine.can_serve(&job) {
            self.flights.at(key).booking = None;
            self.tally.refused += 1;
            return self.end_script(key, now, 0);
        }
        engine.submit(job, expected, now);
        self.flights.at(key).engine = at;
        self.follow(at);
    }

    /// A strategy's choice.
    fn choose(&mut self, key: u32, job: &Job, seed: u64, now: u64) -> Option<(usize, u64)> {
        let at = if self.replicas.len() == 1 { 0 } else { self.choices.usize(..self.replicas.len()) };
        let replica = self.replicas.get(at)?;
        let flight = self.flights.at(key);
        if replica.needs_prefix() {
            flight.hash_prompt(self.scenario.block_tokens);
        }
        let plan = replica.decide(&flight.asked, seed, now)?;
        let is_up = |engine: usize| self.is_up.get(engine).copied().unwrap_or(false);
        let (engine, booking) = replica.send(&plan, &flight.asked, seed, is_up)?;
        (flight.replica, flight.booking) = (at, Some(booking));
        Some((engine, job.prompt_tokens))
    }

    /// The oracle's choice.
    fn best(&mut self, job: &Job, now: u64) -> Option<(usize, u64)> {
        let start = self.choices.usize(..self.engines.len());
        let mut best: Option<(f64, usize, u64)> = None;
        for at in (start..self.engines.len()).chain(0..start) {
            let Some(engine) = self.engines.get(at) else { continue };
            if !self.is_up.get(at).copied().unwrap_or(false) || !engine.can_serve(job) {
                continue;
            }
            let (cost, expected) = engine.cost_of(job, self.oracle_weight, now);
            if best.is_none_or(|(lowest, ..)| cost < lowest) {
                best = Some((cost, at, expected));
            }
        }
        best.map(|(_, at, expected)| (at, expected))
    }

    /// Schedules the end of an engine's phase, if that is news.
    fn follow(&mut self, at: usize) {
        let due = self.engines.get(at).and_then(Engine::due).unwrap_or(u64::MAX);
        if let Some(known) = self.due.get_mut(at)
            && *known != due
        {
            *known = due;
            if due != u64::MAX {
                self.schedule(due, Event::Engine(at));
            }
        }
    }

    fn advance(&mut self, at: usize, now: u64) {
        // An event of a phase that was cut short meanwhile finds another time here.
        let Some(engine) = self.engines.get_mut(at).filter(|engine| engine.due() == Some(now)) else { return };
        let mut outputs = std::mem::take(&mut self.outputs);
        engine.advance(now, &mut outputs);
        self.follow(at);
        if !outputs.is_empty() {
            self.replicas.iter().for_each(|replica| replica.set_time(now));
        }
        for output in outputs.drain(..) {
            match output {
                Output::FirstToken { key, cached, queue_us } => {
                    let flight = self.flights.at(key);
                    flight.first_token(now, cached);
                    if let Some(exporter) = self.exporters.get_mut(at) {
                        exporter.first_token(now - flight.sent_us, queue_us, flight.turn().prompt_tokens);
                    }
                }
                Output::Finished { key } => self.finish(key, now),
            }
        }
        self.outputs = outputs;
    }

    fn finish(&mut self, key: u32, now: u64) {
        let flight = self.flights.at(key);
        let turn = flight.turn();
        if let Some(booking) = flight.booking.take() {
            booking.finished(turn.output_tokens, now);
        }
        if let Some(exporter) = self.exporters.get_mut(flight.engine) {
            exporter.finished(now - flight.first_us, turn.output_tokens);
        }
        self.tally.add(Answer {
            arrived_us: flight.sent_us,
            first_us: flight.first_us,
            finished_us: now,
            prompt_tokens: turn.prompt_tokens,
            cached_tokens: flight.cached,
            output_tokens: turn.output_tokens,
            tenant: flight.tenant(),
        });
        match flight.next_turn() {
            Some(pause) => self.schedule(now + pause, Event::Continue(key)),
            None => self.end_script(key, now, 0),
        }
    }

    fn end_script(&mut self, key: u32, now: u64, pause: u64) {
        self.flights.remove(key);
        if self.closed && self.is_sending() {
            self.schedule(now + pause, Event::Begin);
        }
    }

    fn scrape(&mut self, replica: usize, at: usize, now: u64) {
        if let (Some(replica), Some(engine), Some(exporter), Some(true)) =
            (self.replicas.get_mut(replica), self.engines.get(at), self.exporters.get_mut(at), self.is_up.get(at))
        {
            let gauges = exporter.gauges(&engine.status(now), now);
            replica.publish(at, &gauges, engine, exporter.restarts, now);
        }
        self.again(now + self.scenario.scrape_us, Event::Scrape { replica, engine: at });
    }

    fn fault(&mut self, at: usize, begins: bool, now: u64) {
        self.replicas.iter().for_each(|replica| replica.set_time(now));
        let Some(fault) = self.scenario.faults.get(at) else { return };
        let (Some(engine), Some(up)) = (self.engines.get_mut(fault.engine), self.is_up.get_mut(fault.engine)) else {
            return;
        };
        match fault.speed {
            Some(speed) => engine.set_speed(if begins { speed } else { 1.0 }),
            None => *up = !begins,
        }
        if begins && fault.speed.is_none() {
            let lost = engine.restart();
            if let Some(exporter) = self.exporters.get_mut(fault.engine) {
                exporter.restarts += 1;
            }
            self.follow(fault.engine);
            for key in lost {
                let flight = self.flights.at(key);
                if let Some(booking) = flight.booking.take() {
                    booking.broke(flight.seed, now);
                }
                self.tally.failed += 1;
                self.end_script(key, now, RETRY_US);
            }
        }
    }
}
