//! The life of one exchange.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::UnknownPaths;
use crate::domain::Moment;
use crate::index::Awaited;
use crate::openai::{self, Api, ApiError, Route, models};
use crate::routing::{Answering, Asked, Choice, Expectation, Plan};
use crate::state::Ticket;

use super::answer::Observed;
use super::body::Body;
use super::choosing;
use super::rewrite::Rewriting;
use super::told::Told;
use super::{BodyOutlook, Completeness, Core, Dispatch, Explanation, LocalReply, RequestHead, Step, Subset};

/// When to come back after a 503 that discovery or a restart will mend.
pub(super) const RETRY_AFTER_S: u32 = 2;

/// Whether our choice steers the request or is only made to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    /// It steers.
    Real,
    /// The front end only observes: nothing is counted in anywhere.
    Shadow,
    /// Nobody sent it; it is only to be explained.
    Dry,
}

/// A request that was sent on.
#[derive(Debug)]
pub(super) struct Booking {
    pub(super) plan: Plan,
    pub(super) choice: Choice,
    pub(super) sent: Moment,
    pub(super) ticket: Option<Ticket>,
    /// What its strategy expects of it.
    pub(super) expectation: Option<Expectation>,
    /// What became of that, once an engine answers.
    pub(super) answering: Option<Answering>,
    /// What its engine will tell of it.
    pub(super) awaited: Option<Awaited>,
}

/// One HTTP exchange. Drop it when the exchange is over, for whatever reason.
#[derive(Debug)]
pub struct Exchange {
    pub(super) core: Arc<Core>,
    pub(super) steering: Steering,
    pub(super) head: RequestHead,
    pub(super) body: Body,
    pub(super) rewriting: Rewriting,
    /// The pool that its route names.
    pub(super) pool: Option<Box<str>>,
    /// The part of the fleet that the gateway allows; all of it if it does not say.
    pub(super) subset: Option<Subset>,
    pub(super) asked: Asked,
    pub(super) seed: u64,
    /// The strategy that will decide, where it had to be known before the decision.
    pub(super) chosen: Option<Choice>,
    /// What is looked up of the prompt.
    pub(super) told: Option<Told>,
    pub(super) booking: Option<Booking>,
    pub(super) explanation: Option<Arc<Explanation>>,
    pub(super) observed: Option<Observed>,
    pub(super) answered_at: Option<Moment>,
    pub(super) complete: bool,
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
            rewriting: Rewriting::default(),
            pool: None,
            subset: None,
            asked: Asked::default(),
            chosen: None,
            told: None,
            booking: None,
            explanation: None,
            observed: None,
            answered_at: None,
            complete: false,
        }
    }

    /// Makes this an exchange that is only observed.
    pub(crate) fn observe(&mut self) {
        self.steering = Steering::Shadow;
    }

    /// The request headers that strategies need.
    pub fn kept_headers(&self) -> &[Box<str>] {
        &self.core.kept_headers
    }

    /// The request headers as far as we keep them.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// Keeps the choice to a part of the fleet; the first that is named holds.
    pub fn restrict(&mut self, subset: Subset) {
        self.subset.get_or_insert(subset);
    }

    /// Keeps the request to a pool, its models and its policies; the first that is named holds.
    pub fn route_to_pool(&mut self, pool: &str) {
        self.pool.get_or_insert_with(|| pool.into());
    }

    /// Takes the request headers.
    pub fn request_head(&mut self, head: RequestHead, outlook: BodyOutlook) -> Step {
        self.head = head;
        if let Some(selection) = self.head.test_selection.as_deref().filter(|_| self.core.policy.conformance_hooks) {
            self.subset = Some(Subset::read([selection]));
        }
        let Some(route) = self.head.route.take() else { return Step::Pass };
        let step = match &route {
            Route::ListModels | Route::GetModel(_) if self.engines_know_models() => self.decide_by_headers(""),
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
                if self.steering != Steering::Dry {
                    self.core.metrics.passed_through();
                }
                Step::Pass
            }
        }
    }

    fn decide_by_headers(&mut self, model: &str) -> Step {
        match self.unknown_strategy() {
            Some(error) => self.refuse(error),
            None => self.decide_for(model),
        }
    }

    fn unknown_strategy(&self) -> Option<ApiError> {
        let wish = self.head.wish();
        wish.strategy?;
        let has_locks = self.fleet(&self.core.reader.load()).has_locks();
        self.core.strategies.check_wish(wish, has_locks).err().map(choosing::refusal)
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
                self.decide_for(&model)
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
        match read.and_then(|head| head.require_model(api).map(|()| head)) {
            Err(error) => self.refuse(ApiError::from(error)),
            Ok(head) => {
                let snapshot = self.core.reader.load();
                let is_form = content_type.is_some_and(|content_type| content_type.starts_with("multipart/"));
                let rewritten = self.rewrite_model(&head, body, is_form);
                let model = rewritten.as_deref().or(head.model.as_deref()).unwrap_or_default();
                if let Err(error) = self.ask(&head, model, &snapshot) {
                    return self.refuse(*error);
                }
                if let Some(key) = self.ask_prefix(&head, &snapshot)
                    && let Some(step) = self.look_up(api, &head, body, key)
                {
                    return step;
                }
                self.decide(&snapshot)
            }
        }
    }

    fn with_cut_body(&mut self, api: Api, beginning: &[u8]) -> Step {
        let hint = self.head.model_hint.take().unwrap_or_default();
        let Some(cut) = openai::head::read_cut(api, self.head.content_type.as_deref(), beginning) else {
            return self.decide_for(&hint);
        };
        if let Some(fault) = cut.fault {
            return self.refuse(ApiError::from(fault));
        }
        let snapshot = self.core.reader.load();
        let model = cut.head.model.as_deref().unwrap_or(&hint);
        if let Err(error) = self.ask(&cut.head, model, &snapshot) {
            return self.refuse(*error);
        }
        self.decide(&snapshot)
    }

    /// The decision, once it is made.
    pub fn dispatch(&self) -> Option<Dispatch<'_>> {
        self.booking.as_ref().map(|booking| Dispatch { plan: &booking.plan, strategy: &booking.choice.strategy.name })
    }

    /// The front end holds nothing of the body any longer.
    pub fn release_body(&mut self) {
        self.body.release();
    }

    /// Nobody told us what the engines serve, and they may be asked.
    fn engines_know_models(&self) -> bool {
        let snapshot = self.core.reader.load();
        let asks = self.core.policy.unknown_paths == UnknownPaths::Route;
        let fleet = self.fleet(&snapshot);
        asks && !fleet.endpoints().is_empty() && fleet.models().next().is_none()
    }

    fn list_models(&self) -> Step {
        let snapshot = self.core.reader.load();
        let mut views: Vec<_> = self.fleet(&snapshot).models().collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Step::Answer(LocalReply::ok(models::list(views.into_iter().map(card)), "models"))
    }

    fn get_model(&self, id: &str) -> Step {
        match self.fleet(&self.core.reader.load()).model(id) {
            Some(view) => Step::Answer(LocalReply::ok(models::card(card(view)), "models")),
            None => self.refuse(ApiError::model_not_found(id)),
        }
    }

    pub(super) fn refuse(&self, error: ApiError) -> Step {
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
        if self.steering != Steering::Dry {
            self.core.metrics.refusal(error.reason);
        }
        error.into()
    }
}

fn card(view: &crate::state::ModelView) -> models::ModelCard<'_> {
    models::ModelCard { id: &view.name, parent: view.parent.as_deref(), created: 0 }
}
