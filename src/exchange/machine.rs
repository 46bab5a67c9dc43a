//! The life of one exchange.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::config::UnknownPaths;
use crate::domain::Moment;
use crate::openai::{self, Api, ApiError, BodyError, Route, models};
use crate::routing::{self, Plan, RequestView, Strategy};
use crate::state::{Endpoint, Snapshot, Ticket};

use super::body::Body;
use super::core::Hold;
use super::{BodyOutlook, Completeness, Core, Dispatch, LocalReply, RequestHead, Step, UpstreamReport};

/// When to come back after a 503 that discovery or a restart will mend.
const RETRY_AFTER_S: u32 = 2;

/// Whether our choice steers the request or is only made to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    /// It steers.
    Real,
    /// The front end only observes: nothing is counted in anywhere.
    Shadow,
}

/// A request that was sent on.
#[derive(Debug)]
struct Booking {
    plan: Plan,
    strategy: &'static str,
    sent: Moment,
    ticket: Option<Ticket>,
}

/// One HTTP exchange. Drop it when the exchange is over, for whatever reason.
#[derive(Debug)]
pub struct Exchange {
    core: Arc<Core>,
    steering: Steering,
    head: RequestHead,
    body: Body,
    streamed: bool,
    seed: u64,
    /// The model of a request whose decision waits.
    waiting_model: Option<Box<str>>,
    booking: Option<Booking>,
    answered_at: Option<Moment>,
    complete: bool,
}

impl Exchange {
    /// An exchange of which nothing is known yet.
    pub fn new(core: Arc<Core>) -> Self {
        let body = Body::new(core.policy.body_bytes_max, core.budget.permit());
        Self {
            seed: core.next_seed(),
            core,
            steering: Steering::Real,
            head: RequestHead::default(),
            body,
            streamed: false,
            waiting_model: None,
            booking: None,
            answered_at: None,
            complete: false,
        }
    }

    /// Makes this an exchange that is only observed.
    pub(crate) fn observe(&mut self) {
        self.steering = Steering::Shadow;
    }

    /// The request headers as far as we keep them.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// Takes the request headers.
    pub fn request_head(&mut self, head: RequestHead, outlook: BodyOutlook) -> Step {
        self.head = head;
        let Some(route) = self.head.route.take() else { return Step::Pass };
        let step = match &route {
            Route::ListModels => self.list_models(),
            Route::GetModel(id) => self.get_model(id),
            Route::Unknown => self.unknown_path(),
            Route::Inference(api) => self.inference_head(*api, outlook),
        };
        self.head.route = Some(route);
        step
    }

    fn unknown_path(&mut self) -> Step {
        let hint = self.head.model_hint.take().filter(|_| self.head.is_upgrade);
        match (hint, self.core.policy.unknown_paths) {
            (Some(model), _) => self.decide_by_headers(&model),
            (None, UnknownPaths::Route) => self.decide_by_headers(""),
            (None, UnknownPaths::NotFound) => {
                self.refuse(ApiError::path_not_found(self.head.path.as_deref().unwrap_or_default()))
            }
            (None, UnknownPaths::Pass) => {
                self.core.metrics.passed_through();
                Step::Pass
            }
        }
    }

    fn decide_by_headers(&mut self, model: &str) -> Step {
        match self.unknown_strategy() {
            Some(error) => self.refuse(error),
            None => self.decide(model),
        }
    }

    fn unknown_strategy(&self) -> Option<ApiError> {
        let name = self.head.strategy.as_deref()?;
        let known = self.core.strategies.named(name).is_some();
        (!known).then(|| ApiError::unknown_strategy(name, routing::names()))
    }

    fn inference_head(&mut self, api: Api, outlook: BodyOutlook) -> Step {
        if let Some(error) = self.unknown_strategy() {
            return self.refuse(error);
        }
        if let Some(encoding) = &self.head.content_encoding {
            return self.refuse(ApiError::unsupported_encoding(encoding));
        }
        if let Some(error) = self.head.content_length.and_then(|length| self.body.reserve(length).err()) {
            return self.refuse(error);
        }
        match outlook {
            BodyOutlook::Coming => Step::NeedBody,
            BodyOutlook::None => self.with_body(api, &[]),
            BodyOutlook::Unseen => {
                let model = self.head.model_hint.take().unwrap_or_default();
                self.decide(&model)
            }
        }
    }

    /// Takes a piece of the request body; an answer means that it is refused.
    pub fn request_body(&mut self, piece: Vec<u8>) -> Option<LocalReply> {
        let error = self.body.push(piece).err()?;
        Some(self.refusal(error))
    }

    /// Bytes of the request body collected so far.
    pub fn body_length(&self) -> usize {
        self.body.length()
    }

    /// All of the body is there, or as much as will be shown.
    pub fn request_end(&mut self, completeness: Completeness) -> Step {
        let Some(Route::Inference(api)) = self.head.route else { return Step::Pass };
        self.with_pieces(|exchange, body| match completeness {
            Completeness::Whole => exchange.with_body(api, body),
            Completeness::Cut => exchange.with_cut_body(api, body),
        })
    }

    /// Lends the body while `self` is at work on it.
    fn with_pieces<T>(&mut self, work: impl FnOnce(&mut Self, &[u8]) -> T) -> T {
        let pieces = self.body.take();
        let joined = match pieces.as_slice() {
            [] => Cow::Borrowed(&[][..]),
            [only] => Cow::Borrowed(only.as_slice()),
            several => Cow::Owned(several.concat()),
        };
        let done = work(self, &joined);
        drop(joined);
        self.body.put_back(pieces);
        done
    }

    fn with_body(&mut self, api: Api, body: &[u8]) -> Step {
        let content_type = self.head.content_type.take();
        let read = openai::head::read(api, content_type.as_deref(), body);
        match read.and_then(|head| required_model(api, &head).map(|model| (model, head.stream))) {
            Err(error) => self.refuse(ApiError::from(error)),
            Ok((model, stream)) => {
                self.streamed = stream;
                self.decide(&model)
            }
        }
    }

    fn with_cut_body(&mut self, api: Api, beginning: &[u8]) -> Step {
        let hint = self.head.model_hint.take().unwrap_or_default();
        let Some(cut) = openai::head::read_cut(api, self.head.content_type.as_deref(), beginning) else {
            return self.decide(&hint);
        };
        if let Some(fault) = cut.fault {
            return self.refuse(ApiError::from(fault));
        }
        self.streamed = cut.head.stream;
        self.decide(cut.head.model.as_deref().unwrap_or(&hint))
    }

    /// Routes again after a wait.
    pub fn resume(&mut self) -> Step {
        let model = self.waiting_model.take().unwrap_or_default();
        self.decide(&model)
    }

    /// The decision deadline passed: takes the least loaded endpoint, which needs nothing but our own counts.
    pub fn give_up_waiting(&mut self) -> Step {
        let model = self.waiting_model.take().unwrap_or_default();
        let snapshot = self.core.reader.load();
        let view = self.view(&model);
        self.core.metrics.degraded_decision();
        match routing::least_loaded(&view, serving(&snapshot, &model), self.core.policy.list) {
            Some(plan) => self.send(plan, "least-request"),
            None => self.refuse(ApiError::no_ready_endpoints(&model, RETRY_AFTER_S)),
        }
    }

    fn view<'a>(&self, model: &'a str) -> RequestView<'a> {
        let stale_after = self.core.policy.stale_after;
        RequestView { model, now: self.core.clock.now(), seed: self.seed, stale_after }
    }

    /// Chooses among those that serve `model`; among all if it is empty.
    fn decide(&mut self, model: &str) -> Step {
        let core = Arc::clone(&self.core);
        let started = Instant::now();
        let snapshot = core.reader.load();
        let strategy = self.strategy(&core);
        let view = self.view(model);
        match routing::decide(&*strategy.router, &view, serving(&snapshot, model), core.policy.list) {
            None if snapshot.endpoints().is_empty() || snapshot.was_served(model) => {
                self.refuse(ApiError::no_ready_endpoints(model, RETRY_AFTER_S))
            }
            None => self.refuse(ApiError::model_not_found(model)),
            Some(Err(wait)) => {
                self.waiting_model = Some(model.into());
                Step::Wait(wait)
            }
            Some(Ok(plan)) => {
                core.metrics.decision(strategy.index, started.elapsed().as_secs_f64());
                self.send(plan, strategy.name)
            }
        }
    }

    fn strategy<'c>(&self, core: &'c Core) -> &'c Strategy {
        let named = self.head.strategy.as_deref().and_then(|name| core.strategies.named(name));
        named.unwrap_or_else(|| core.strategies.default_strategy())
    }

    fn send(&mut self, plan: Plan, strategy: &'static str) -> Step {
        let sent = self.core.clock.now();
        let ticket = (self.steering == Steering::Real).then(|| {
            plan.first().live.begin_trial(sent, self.core.policy.cooldown.base);
            Ticket::open(Arc::clone(plan.first()))
        });
        self.booking = Some(Booking { plan, strategy, sent, ticket });
        Step::Send
    }

    /// The decision, once it is made.
    pub fn dispatch(&self) -> Option<Dispatch<'_>> {
        self.booking.as_ref().map(|booking| Dispatch { plan: &booking.plan, strategy: booking.strategy })
    }

    /// The body's pieces as they came, for a front end that has to send them back.
    pub fn take_body(&mut self) -> Vec<Vec<u8>> {
        self.body.take()
    }

    /// The front end holds nothing of the body any longer.
    pub fn release_body(&mut self) {
        self.body.release();
    }

    /// Takes the response headers: learns who served, and gives the headers to add for the client.
    pub fn response_head(&mut self, report: UpstreamReport) -> Vec<(&'static str, Cow<'static, str>)> {
        let Some(mut booking) = self.booking.take() else { return Vec::new() };
        let now = self.core.clock.now();
        self.answered_at = Some(now);
        self.core.metrics.response(report.status);
        let verdict = report.judge(booking.plan.endpoints(), &self.core.reader);
        if self.steering == Steering::Real {
            for (endpoint, failure) in &verdict.failed {
                let jitter = fastrand::Rng::with_seed(self.seed).f64();
                let pause =
                    endpoint.live.report_failure(*failure, booking.sent, now, self.core.policy.cooldown, jitter);
                self.core.events.endpoint_failed(endpoint, *failure, pause, now);
            }
            if let Some(served) = verdict.served.as_ref().filter(|_| verdict.alive)
                && served.live.report_answer(booking.sent)
            {
                self.core.events.endpoint_back(served, now);
            }
        }
        if let (Some(served), Some(ticket)) = (&verdict.served, &mut booking.ticket) {
            if served.id != ticket.endpoint().id {
                self.core.metrics.failover();
            }
            ticket.rebook(Arc::clone(served));
        }
        let served = verdict.served.as_ref().unwrap_or(booking.plan.first());
        let headers = if self.core.policy.response_headers { self.notes(served, booking.strategy) } else { Vec::new() };
        self.booking = Some(booking);
        headers
    }

    fn notes(&self, served: &Endpoint, strategy: &'static str) -> Vec<(&'static str, Cow<'static, str>)> {
        let id = self.head.request_id.as_deref().map_or_else(|| format!("{:016x}", self.seed), str::to_owned);
        vec![
            ("request-id", Cow::Owned(id)),
            ("routing-strategy", Cow::Borrowed(strategy)),
            ("target-pod", Cow::Owned(served.spec.name.clone())),
            ("target-pod-ip", Cow::Owned(served.address_text().to_owned())),
        ]
    }

    /// The last of the response was seen: the exchange is complete and its place is free.
    pub fn response_end(&mut self) {
        self.complete = true;
        if let Some(booking) = &mut self.booking {
            booking.ticket = None;
        }
    }

    fn list_models(&self) -> Step {
        let snapshot = self.core.reader.load();
        let mut views: Vec<_> = snapshot.models().collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Step::Answer(LocalReply::ok(models::list(views.into_iter().map(card)), "models"))
    }

    fn get_model(&self, id: &str) -> Step {
        match self.core.reader.load().model(id) {
            Some(view) => Step::Answer(LocalReply::ok(models::card(card(view)), "models")),
            None => self.refuse(ApiError::model_not_found(id)),
        }
    }

    fn refuse(&self, error: ApiError) -> Step {
        Step::Answer(self.refusal(error))
    }

    /// Whether the proxy has to be asked to keep our stream open to the end of the exchange.
    pub fn asks_to_hold(&self) -> bool {
        self.core.asks_to_hold()
    }

    /// Counts something that the proxy should not have said.
    pub fn protocol_fault(&self, kind: &'static str) {
        self.core.metrics.protocol_fault(kind);
    }

    /// Counts a refusal and makes its answer.
    pub fn refusal(&self, error: ApiError) -> LocalReply {
        self.core.metrics.refusal(error.reason);
        error.into()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(booking) = self.booking.as_ref().filter(|_| self.steering == Steering::Real) else { return };
        let last_heard = match self.answered_at {
            None => {
                self.core.metrics.aborted();
                booking.sent
            }
            Some(answered_at) if self.streamed && !self.complete => answered_at,
            Some(_) => return,
        };
        match self.core.note_end(last_heard, self.core.clock.now()) {
            Hold::Unsuspicious => {}
            Hold::AskFromNow => self.core.events.streams_not_held(),
            Hold::Refused => self.core.events.early_stream_end(),
        }
    }
}

fn serving<'a>(snapshot: &'a Snapshot, model: &str) -> &'a [Arc<Endpoint>] {
    if model.is_empty() { snapshot.endpoints() } else { snapshot.serving(model) }
}

/// The model that a request names; empty for the engine-specific call that names none.
fn required_model<'a>(api: Api, head: &openai::Head<'a>) -> Result<Cow<'a, str>, BodyError> {
    match (&head.model, api) {
        (Some(model), _) if !model.is_empty() => Ok(model.clone()),
        (None, Api::Generate) => Ok(Cow::Borrowed("")),
        _ => Err(BodyError::MissingModel),
    }
}

fn card(view: &crate::state::ModelView) -> models::ModelCard<'_> {
    models::ModelCard { id: &view.name, parent: view.parent.as_deref(), created: 0 }
}
