//! The decision: who may serve, who is chosen, and what is told of it.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::domain::Selector;
use crate::openai::ApiError;
use crate::routing::{self, Choice, ChoiceError, Plan, RequestView, Strategy, Trace};
use crate::state::{Endpoint, Fleet, Snapshot, Ticket};

use super::choosing;
use super::machine::{Booking, Exchange, RETRY_AFTER_S, Steering};
use super::{Explanation, LocalReply, Outcome, Step};

/// What leaves an endpoint out that the gateway does not allow.
const SUBSET_HINT: &str = "subset-hint";
/// What leaves an endpoint out whose labels are not as the client asks.
const LABEL_FILTER: &str = "external-filter";

impl Exchange {
    /// Routes again after a wait.
    pub fn resume(&mut self) -> Step {
        self.looked_up();
        let snapshot = self.core.reader.load();
        self.decide(&snapshot)
    }

    /// The decision deadline passed: takes the least loaded endpoint, which needs nothing but our own counts.
    pub fn give_up_waiting(&mut self) -> Step {
        // A lookup that did not end is no reason to do without the strategy; only one that waits itself is given up.
        let core = Arc::clone(&self.core);
        let snapshot = core.reader.load();
        if self.looked_up() {
            match self.decide(&snapshot) {
                Step::Wait(_) => {}
                step => return step,
            }
        }
        let view = self.view(&snapshot);
        core.metrics.degraded_decision();
        let endpoints = serving(self.fleet(&snapshot), &self.asked.model);
        let matching = match self.matching(endpoints, &mut Trace::off()) {
            Ok(matching) => matching,
            Err(error) => return self.refuse(error),
        };
        match routing::least_loaded(&view, &matching, core.policy.list) {
            Some(plan) => {
                let strategy = core.strategies.last_resort().clone();
                if let Some(explanation) = &mut self.explanation {
                    Arc::make_mut(explanation).give_up(&plan, Arc::clone(&strategy.name));
                }
                self.send(plan, Choice { strategy, profile: None, in_vain: None }, &snapshot)
            }
            None => self.refuse(self.nobody_ready()),
        }
    }

    /// The endpoints that the request's route allows: those of its pool, or all.
    pub(super) fn fleet<'s>(&self, snapshot: &'s Snapshot) -> &'s Fleet {
        snapshot.fleet(self.pool.as_deref())
    }

    fn nobody_ready(&self) -> ApiError {
        ApiError::no_ready_endpoints(&self.asked.model, self.pool.as_deref(), RETRY_AFTER_S)
    }

    pub(super) fn view<'a>(&'a self, snapshot: &'a Snapshot) -> RequestView<'a> {
        let stale_after = self.core.policy.stale_after;
        let adapter_of = self.fleet(snapshot).model(&self.asked.model).and_then(|view| view.parent.as_deref());
        RequestView { asked: &self.asked, adapter_of, now: self.core.clock.now(), seed: self.seed, stale_after }
    }

    /// The strategy that the request gets.
    pub(super) fn choice(&self, snapshot: &Snapshot) -> Result<Choice, ChoiceError> {
        let model = self.fleet(snapshot).model(&self.asked.model);
        let adapter_of = model.and_then(|model| model.parent.as_deref());
        let published = model.and_then(|model| model.profiles.as_deref());
        self.core.strategies.choose(self.head.wish(), &self.asked, adapter_of, published)
    }

    /// Chooses among those that serve the model; among all if none is named.
    pub(super) fn decide(&mut self, snapshot: &Snapshot) -> Step {
        let core = Arc::clone(&self.core);
        let started = Instant::now();
        self.take_held(snapshot);
        let chosen = self.chosen.take();
        let view = self.view(snapshot);
        let choice = match chosen.map_or_else(|| self.choice(snapshot), Ok) {
            Ok(choice) => choice,
            Err(error) => return self.refuse(choosing::refusal(error)),
        };
        let strategy = &choice.strategy;
        let kept = self.steering == Steering::Real && core.decisions.is_due(view.now);
        let mut trace = if kept || self.explains() { Trace::on() } else { Trace::off() };
        if let Some(in_vain) = &choice.in_vain {
            trace.in_vain(&in_vain.text, &strategy.name);
            self.tell_in_vain(in_vain);
        }
        let fleet = self.fleet(snapshot);
        let endpoints = serving(fleet, &self.asked.model);
        core.strategies.demand().mark(strategy.index, view.now);
        let decided = self.choose(strategy, &view, fleet, endpoints, &mut trace);
        self.rewriting.tell(&self.asked.model, &mut trace);
        if let Some(told) = &self.told {
            trace.note(|| told.text(&self.asked.held, decided.as_ref().ok().map(|plan| &**plan.first())));
        }
        if let (Ok(_), Steering::Real | Steering::Shadow) = (&decided, self.steering) {
            core.metrics.decision(&core.decision_counters, strategy.index, started.elapsed().as_secs_f64());
            if trace.is_degraded() {
                core.metrics.degraded_decision();
            }
        }
        if trace.is_on() {
            let explanation = Arc::new(self.explanation(&decided, strategy, &view, endpoints, trace));
            if kept {
                core.decisions.keep(Arc::clone(&explanation));
            }
            self.explanation = Some(explanation);
        }
        match decided {
            Ok(plan) => self.send(plan, choice, snapshot),
            Err(step) => step,
        }
    }

    fn choose(
        &self,
        strategy: &Strategy,
        view: &RequestView<'_>,
        fleet: &Fleet,
        endpoints: &[Arc<Endpoint>],
        trace: &mut Trace,
    ) -> Result<Plan, Step> {
        let model = &*self.asked.model;
        let matching = self.matching(endpoints, trace).map_err(|error| self.refuse(error))?;
        match routing::decide(&*strategy.router, view, &matching, self.core.policy.list, trace) {
            None if fleet.endpoints().is_empty() || fleet.was_served(model) => Err(self.refuse(self.nobody_ready())),
            None => Err(self.refuse(ApiError::model_not_found(model))),
            Some(Err(wait)) => Err(Step::Wait(wait)),
            Some(Ok(plan)) => Ok(plan),
        }
    }

    /// The endpoints with labels that the client asks for. A filter of the client's is a condition, not a preference: it
    /// holds for the whole list, and where nobody meets it, the request is refused.
    #[expect(clippy::result_large_err, reason = "made once, when a request is refused")]
    fn matching<'e>(&self, endpoints: &'e [Arc<Endpoint>], trace: &mut Trace) -> Result<Matching<'e>, ApiError> {
        let Some(filter) = self.head.label_filter.as_deref() else { return self.allowed(endpoints, trace) };
        let selector = Selector::parse(filter).map_err(|error| ApiError::bad_label_filter(&error.to_string()))?;
        let (kept, dropped): (Few, Few) =
            endpoints.iter().cloned().partition(|endpoint| selector.matches(&endpoint.spec.labels));
        dropped.iter().for_each(|endpoint| trace.left_out(endpoint, LABEL_FILTER));
        if kept.is_empty() && !endpoints.is_empty() {
            return Err(ApiError::nobody_matches(&self.asked.model, filter));
        }
        Ok(match self.allowed(&kept, trace)? {
            Matching::All(_) => Matching::Some(kept),
            Matching::Some(allowed) => Matching::Some(allowed),
        })
    }

    /// The endpoints that the gateway allows.
    #[expect(clippy::result_large_err, reason = "made once, when a request is refused")]
    fn allowed<'e>(&self, endpoints: &'e [Arc<Endpoint>], trace: &mut Trace) -> Result<Matching<'e>, ApiError> {
        let Some(subset) = &self.subset else { return Ok(Matching::All(endpoints)) };
        let (kept, dropped): (Few, Few) =
            endpoints.iter().cloned().partition(|endpoint| subset.contains(endpoint.spec.address));
        dropped.iter().for_each(|endpoint| trace.left_out(endpoint, SUBSET_HINT));
        if kept.is_empty() && !endpoints.is_empty() {
            return Err(ApiError::nobody_allowed(&self.asked.model, RETRY_AFTER_S));
        }
        Ok(Matching::Some(kept))
    }

    fn send(&mut self, plan: Plan, choice: Choice, snapshot: &Snapshot) -> Step {
        let sent = self.core.clock.now();
        let ticket = (self.steering == Steering::Real).then(|| {
            let live = &plan.first().live;
            live.health.begin_trial(sent, self.core.policy.cooldown.base);
            live.measured.tokens(u64::from(self.asked.work.prompt_tokens), 0, sent);
            Ticket::open(Arc::clone(plan.first()), self.asked.work, &self.core.clock)
        });
        let expectation =
            ticket.as_ref().and_then(|_| choice.strategy.router.on_sent(&self.view(snapshot), plan.first()));
        let awaited = ticket.as_ref().and_then(|_| self.await_told(plan.first()));
        self.booking = Some(Booking { plan, choice, sent, ticket, expectation, awaited, answering: None });
        Step::Send
    }

    /// Whether somebody wants to know why.
    fn explains(&self) -> bool {
        self.steering == Steering::Dry || (self.head.explain && self.core.policy.explain)
    }

    fn explanation(
        &self,
        decided: &Result<Plan, Step>,
        strategy: &Strategy,
        view: &RequestView<'_>,
        endpoints: &[Arc<Endpoint>],
        trace: Trace,
    ) -> Explanation {
        let mut explanation = Explanation { strategy: Arc::clone(&strategy.name), ..self.undecided() };
        let record = trace.into_record().unwrap_or_default();
        explanation.describe(decided.as_ref().ok(), endpoints, &record, view.now);
        explanation.conclude(decided.as_ref().err().unwrap_or(&Step::Send));
        explanation
    }

    /// What there is to say of a request before its decision.
    pub(super) fn undecided(&self) -> Explanation {
        Explanation {
            request_id: Explanation::shortened(&self.request_id()),
            model: Explanation::shortened(&self.asked.model),
            pool: self.pool.as_deref().map(Explanation::shortened),
            seed: format!("{:016x}", self.seed).into(),
            at_ms: self.core.clock.now().as_micros() / 1000,
            ..Explanation::default()
        }
    }
}

impl Explanation {
    /// The wait took too long, and the least loaded was taken.
    fn give_up(&mut self, plan: &Plan, strategy: Arc<str>) {
        self.notes.push(format!("\"{}\" waited too long: the least loaded is taken", self.strategy));
        self.strategy = strategy;
        self.chosen = plan.endpoints().iter().map(|endpoint| endpoint.address_text().into()).collect();
        self.conclude(&Step::Send);
    }

    /// Adds what comes of the request.
    pub(super) fn conclude(&mut self, step: &Step) {
        self.outcome = match step {
            Step::Send => Outcome::Sent,
            Step::Wait(_) => Outcome::Waits,
            Step::Answer(_) => Outcome::Answered,
            Step::Pass | Step::NeedBody => Outcome::Passed,
        };
        if let Step::Answer(LocalReply { status, reason, body, .. }) = step {
            self.answer = serde_json::from_slice(body).ok().map(|body| super::Answer { status: *status, reason, body });
        }
    }
}

/// Some endpoints.
type Few = SmallVec<[Arc<Endpoint>; 16]>;

/// The endpoints that the client's filter and the gateway leave.
enum Matching<'a> {
    All(&'a [Arc<Endpoint>]),
    Some(Few),
}

impl std::ops::Deref for Matching<'_> {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::All(all) => all,
            Self::Some(some) => some,
        }
    }
}

fn serving<'a>(fleet: &'a Fleet, model: &str) -> &'a [Arc<Endpoint>] {
    if model.is_empty() { fleet.endpoints() } else { fleet.serving(model) }
}
