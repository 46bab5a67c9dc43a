//! One Fairlead: the production registry, snapshot, strategies and tickets, on virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{EndpointSpec, Failure, Gauge, Moment};
use crate::routing::{self, Plan, RequestView, StrategySet, UnknownStrategy};
use crate::state::{Change, Cooldown, Endpoint, Reader, Registry, SourceId, Ticket};

use super::engine::Status;

/// As many endpoints as Envoy may try.
const PLAN_LENGTH: usize = 3;
/// Production's default.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// Production's default.
const COOLDOWN: Cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// A simulation's time 0 on the clock: no moment is the epoch, which means "never".
const BEGIN: Duration = Duration::from_secs(1);

/// The moment of a simulated time.
pub(super) fn moment(us: u64) -> Moment {
    Moment::EPOCH + BEGIN + Duration::from_micros(us)
}

/// One copy of Fairlead.
#[derive(Debug)]
pub(super) struct Replica {
    reader: Reader,
    strategies: StrategySet,
}

/// A request as a router sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) seed: u64,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Booking {
    ticket: Ticket,
    sent: Moment,
}

impl Replica {
    /// A copy that routes to `engines` engines by the strategy of that name.
    pub(super) fn new(engines: usize, strategy: &str) -> Result<Self, UnknownStrategy> {
        let mut registry = Registry::new();
        let specs = (0..engines).map(|at| EndpointSpec::at(address(at))).collect();
        // More engines than slots are left out, and never chosen.
        let (_, _) = registry.apply([Change::Replace(SourceId(0), specs)]);
        Ok(Self { reader: registry.reader(), strategies: StrategySet::build(strategy)? })
    }

    /// Chooses engines for a request, best first.
    pub(super) fn decide(&self, request: &Request<'_>, now: u64) -> Option<Plan> {
        let snapshot = self.reader.load();
        let view = RequestView {
            model: request.model,
            now: moment(now),
            seed: request.seed,
            stale_after: STALE_AFTER,
        };
        let strategy = self.strategies.default_strategy();
        match routing::decide(&*strategy.router, &view, snapshot.endpoints(), PLAN_LENGTH)? {
            Ok(plan) => Some(plan),
            Err(_wait) => routing::least_loaded(&view, snapshot.endpoints(), PLAN_LENGTH),
        }
    }

    /// Sends a request to the first of `plan` whose engine `is_up`. Those before it failed.
    pub(super) fn send(&self, plan: &Plan, seed: u64, now: u64, is_up: impl Fn(usize) -> bool) -> Option<(usize, Booking)> {
        let now = moment(now);
        for endpoint in plan.endpoints() {
            endpoint.live.begin_trial(now, COOLDOWN.base);
            if is_up(engine_of(endpoint)) {
                let booking = Booking { ticket: Ticket::open(Arc::clone(endpoint)), sent: now };
                return Some((engine_of(endpoint), booking));
            }
            endpoint.live.report_failure(Failure::Refused, now, now, COOLDOWN, jitter(seed));
        }
        None
    }

    /// Reads an engine's metrics.
    pub(super) fn scrape(&self, engine: usize, status: &Status, now: u64) {
        if let Some(endpoint) = self.reader.load().at(address(engine)) {
            let mut values = [None; Gauge::ALL.len()];
            let told = [
                (Gauge::Running, status.running as f64),
                (Gauge::Waiting, status.waiting as f64),
                (Gauge::KvUsage, status.kv_usage),
            ];
            for (gauge, value) in told {
                if let Some(cell) = values.get_mut(gauge as usize) {
                    *cell = Some(value);
                }
            }
            endpoint.live.set_gauges(values, moment(now));
        }
    }
}

impl Booking {
    /// The first token came.
    pub(super) fn first_token(&mut self) {
        self.ticket.endpoint().live.report_answer(self.sent);
    }

    /// The answer broke off.
    pub(super) fn broke(self, seed: u64, now: u64) {
        let live = &self.ticket.endpoint().live;
        live.report_failure(Failure::Reset, self.sent, moment(now), COOLDOWN, jitter(seed));
    }
}

fn jitter(seed: u64) -> f64 {
    fastrand::Rng::with_seed(seed).f64()
}

const FIRST_ADDRESS: u32 = 0x0a00_0001;

fn address(engine: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(FIRST_ADDRESS + engine as u32), 8000))
}

fn engine_of(endpoint: &Endpoint) -> usize {
    match endpoint.spec.address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - FIRST_ADDRESS) as usize,
        IpAddr::V6(_) => usize::MAX,
    }
}
