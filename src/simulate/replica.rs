//! One Fairlead: the production registry, snapshot, strategies and tickets, on virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Clock, ClockHand, EndpointSpec, Failure, Gauges, Moment, Work};
use crate::routing::{self, AnswerNeeds, Answering, Asked, Needs, Plan, Prefixes, RequestView, Router, Trace};
use crate::state::{Adapters, Change, Cooldown, Endpoint, Reader, Registry, SourceId, Ticket};

use super::engine::Engine;

/// As many endpoints as Envoy may try.
const PLAN_LENGTH: usize = 3;
/// Production's default.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// Production's default.
const COOLDOWN: Cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// Production's default: routers do not know how long an answer will be.
const OUTPUT_TOKENS: u32 = 256;
/// A simulation's time 0 on the clock: no moment is the epoch, which means "never".
const BEGIN: Duration = Duration::from_secs(1);

/// The moment of a simulated time.
pub(super) fn moment(us: u64) -> Moment {
    Moment::EPOCH + BEGIN + Duration::from_micros(us)
}

/// The base model's name.
const MODEL: &str = "model";

/// One copy of Fairlead.
#[derive(Debug)]
pub(super) struct Replica {
    reader: Reader,
    router: Arc<dyn Router>,
    /// What it knows of prefixes, to be kept in order.
    prefixes: Option<Arc<Prefixes>>,
    needs: Needs,
    /// How often each engine began anew, as far as was seen.
    restarts: Vec<u64>,
    clock: Clock,
    hand: ClockHand,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Booking {
    ticket: Ticket,
    answering: Option<Answering>,
    sent: Moment,
    shown: AnswerNeeds,
}

/// What a router reads of a request. Clients name the session of a conversation.
pub(super) fn asked(prompt_tokens: u64, adapter: Option<u16>, session: Option<u64>) -> Asked {
    let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
    let work = Work { prompt_tokens, output_tokens: OUTPUT_TOKENS };
    let model = adapter.map_or_else(|| MODEL.to_owned(), adapter_name).into();
    let session_id = session.map(|session| format!("session-{session:x}").into());
    let prompt_bytes = prompt_tokens.saturating_mul(4);
    Asked { model, work, prompt_bytes, streams: true, session_id, ..Asked::default() }
}

fn adapter_name(adapter: u16) -> String {
    format!("adapter-{adapter}")
}

impl Replica {
    /// A copy that routes to `engines` engines.
    pub(super) fn new(engines: usize, router: Arc<dyn Router>, prefixes: Option<Arc<Prefixes>>) -> Self {
        let mut registry = Registry::new();
        let specs = (0..engines).map(|at| EndpointSpec::at(address(at))).collect();
        // More engines than slots are left out, and never chosen.
        let (_, _) = registry.apply([Change::Replace(SourceId(0), specs)]);
        let (clock, hand) = Clock::manual(moment(0));
        let needs = router.needs();
        Self { reader: registry.reader(), router, prefixes, needs, restarts: vec![0; engines], clock, hand }
    }

    /// Whether the strategy wants prompts as chains of hashes.
    pub(super) fn needs_prefix(&self) -> bool {
        self.needs.prefix
    }

    /// Chooses engines for a request, best first.
    pub(super) fn decide(&self, asked: &Asked, seed: u64, now: u64) -> Option<Plan> {
        self.hand.set(moment(now));
        let snapshot = self.reader.load();
        let view = self.view(asked, seed);
        match routing::decide(&*self.router, &view, snapshot.endpoints(), PLAN_LENGTH, &mut Trace::off())? {
            Ok(plan) => Some(plan),
            Err(_wait) => routing::least_loaded(&view, snapshot.endpoints(), PLAN_LENGTH),
        }
    }

    fn view<'a>(&self, asked: &'a Asked, seed: u64) -> RequestView<'a> {
        let adapter_of = (*asked.model != *MODEL).then_some(MODEL);
        RequestView { asked, adapter_of, now: self.clock.now(), seed, stale_after: STALE_AFTER }
    }

    /// Sends a request to the first of `plan` whose engine `is_up`. Those before it failed.
    pub(super) fn send(
        &self,
        plan: &Plan,
        asked: &Asked,
        seed: u64,
        is_up: impl Fn(usize) -> bool,
    ) -> Option<(usize, Booking)> {
        let now = self.clock.now();
        plan.first().live.health.begin_trial(now, COOLDOWN.base);
        let expectation = self.router.on_sent(&self.view(asked, seed), plan.first());
        for endpoint in plan.endpoints() {
            if is_up(engine_of(endpoint)) {
                let ticket = Ticket::open(Arc::clone(endpoint), asked.work, &self.clock);
                // Engines answer with headers at once, before the prefill.
                endpoint.live.health.report_answer(now);
                endpoint.live.measured.answered(now);
                endpoint.live.measured.tokens(u64::from(asked.work.prompt_tokens), 0, now);
                let answering = expectation.map(|expectation| expectation.come_true(endpoint.id, now));
                let booking = Booking { ticket, answering, sent: now, shown: self.needs.answers };
                return Some((engine_of(endpoint), booking));
            }
            endpoint.live.measured.failed(now);
            endpoint.live.health.report_failure(Failure::Refused, now, now, COOLDOWN, jitter(seed));
        }
        None
    }

    /// Sets the clock, which the end of a ticket reads.
    pub(super) fn set_time(&self, now: u64) {
        self.hand.set(moment(now));
    }

    /// Does what production does every second on the side.
    pub(super) fn keep_order(&self, now: u64) {
        if let Some(prefixes) = self.prefixes.as_ref().filter(|_| self.needs.prefix) {
            prefixes.upkeep(self.reader.load().endpoints(), moment(now));
        }
    }

    /// Reads the metrics of an engine, which began anew so many times.
    pub(super) fn publish(&mut self, at: usize, gauges: &Gauges, engine: &Engine, restarts: u64, now: u64) {
        if let Some(endpoint) = self.reader.load().at(address(at)) {
            if self.restarts.get_mut(at).is_some_and(|seen| std::mem::replace(seen, restarts) != restarts) {
                endpoint.live.note_restart();
            }
            endpoint.live.publish(gauges, endpoint.live.mark(), moment(now));
            let (running, waiting) = engine.adapters();
            let names = |adapters: Vec<u16>| adapters.into_iter().map(adapter_name).collect();
            let adapters = Adapters { running: names(running), waiting: names(waiting) };
            endpoint.live.signals.set_adapters(Some(adapters));
        }
    }
}

impl Booking {
    /// The first token came. It is seen only if the strategy has the answer shown, as in production.
    pub(super) fn first_token(&mut self, now: u64) {
        if self.shown.first_token || self.shown.usage {
            let now = moment(now);
            self.ticket.endpoint().live.measured.first_token(self.sent.until(now), now);
            self.ticket.first_token();
            if let Some(answering) = &mut self.answering {
                answering.first_token(now);
            }
        }
    }

    /// The last token came. How many there were is known only if the strategy has the answer shown.
    pub(super) fn finished(mut self, output_tokens: u64, now: u64) {
        self.complete(now);
        let is_counted = self.shown.first_token || self.shown.usage;
        let output = if is_counted { output_tokens } else { u64::from(self.ticket.work().output_tokens) };
        self.ticket.endpoint().live.measured.tokens(0, output, moment(now));
    }

    fn complete(&mut self, now: u64) {
        if let Some(answering) = &mut self.answering {
            answering.complete(moment(now));
        }
    }

    /// The answer broke off.
    pub(super) fn broke(mut self, seed: u64, now: u64) {
        self.complete(now);
        let live = &self.ticket.endpoint().live;
        live.measured.failed(moment(now));
        live.health.report_failure(Failure::Reset, self.sent, moment(now), COOLDOWN, jitter(seed));
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
