//! The external-processing protocol as a pure state machine: a message in, messages out.
//!
//! It knows who may be answered what and when; what the answer is comes from the [`Exchange`]. Rules of the protocol
//! that are easy to break, each seen to kill a stream on a real Envoy: in duplex mode a body is answered with
//! streamed pieces only, in every other mode never; there a message is answered exactly once; duplex headers are
//! answered when the decision is made, buffered ones at once, or the body never comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    CommonResponse, HeaderMutation, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse,
    processing_request::Request, processing_response::Response,
};

use crate::exchange::{BodyOutlook, Completeness, Core, Dispatch, Exchange, LocalReply, RequestHead, Step};
use crate::openai::{ApiError, BodyError};
use crate::routing::Wait;

use super::modes::{BodyMode, Modes};
use super::settings::Settings;
use super::{reading, replies};

/// How much of a `STREAMED` body is waited for. Envoy stops reading from the client at its buffer limit while the
/// headers are unanswered, seen at 64 KiB with a limit of 32 KiB; what comes behind it is not looked at.
const STREAMED_BYTES_MAX: usize = 32 << 10;

/// Whether the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More messages may come.
    Continue,
    /// Send what is due, then end the stream.
    Close,
}

/// How long a phase may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    /// Which phase: two with the same limit are still two.
    phase: u32,
    /// From its beginning.
    pub after: Duration,
}

/// Which answer carries the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Headers,
    Body,
}

/// Where the request direction stands.
#[derive(Debug)]
enum Phase {
    /// Nothing seen yet.
    Start,
    /// The body is being collected.
    Collecting(Carrier),
    /// A decision waits.
    Waiting(Carrier, Wait),
    /// Decided, or none of our business: what comes is sent on.
    Forwarding,
}

/// One stream of the protocol.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the stream, not states of it")]
pub struct Machine {
    pub(super) settings: Arc<Settings>,
    pub(super) exchange: Exchange,
    pub(super) modes: Modes,
    phase: Phase,
    pub(super) out: VecDeque<ProcessingResponse>,
    pub(super) flow: Flow,
    /// Counts the phases entered.
    phases: u32,
    is_begun: bool,
    pub(super) observing: bool,
    has_body: bool,
    /// Body messages of `STREAMED` mode that wait behind the answer to the headers.
    owed: usize,
    /// The request body's last byte was seen; a second announcement of it is ignored (Envoy issue 46237).
    body_ended: bool,
    /// The request ended with trailers, which are answered after the body.
    trailers_due: bool,
}

impl Machine {
    /// A stream on which nothing was said.
    pub fn new(core: Arc<Core>, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            exchange: Exchange::new(core),
            modes: Modes::ASSUMED,
            phase: Phase::Start,
            out: VecDeque::new(),
            flow: Flow::Continue,
            phases: 0,
            is_begun: false,
            observing: false,
            has_body: false,
            owed: 0,
            body_ended: false,
            trailers_due: false,
        }
    }

    /// The next message to send, if one is due.
    pub fn next_reply(&mut self) -> Option<ProcessingResponse> {
        let reply = self.out.pop_front();
        if reply.is_none() && matches!(self.phase, Phase::Forwarding) {
            self.exchange.release_body();
        }
        reply
    }

    /// Whether the stream goes on once all replies are sent.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// What the decision waits for, if it does.
    pub fn waiting(&self) -> Option<&Wait> {
        match &self.phase {
            Phase::Waiting(_, wait) => Some(wait),
            _ => None,
        }
    }

    /// The time limit of the present phase, if it has one of ours; it runs from the phase's beginning.
    pub fn time_limit(&self) -> Option<TimeLimit> {
        let after = match &self.phase {
            Phase::Waiting(..) => self.settings.decision_timeout,
            // In the other modes Envoy collects the body, under its own limits.
            Phase::Collecting(Carrier::Headers) => self.settings.body_timeout,
            _ => return None,
        };
        Some(TimeLimit { phase: self.phases, after })
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phases += 1;
    }

    /// The wait is over: decides again.
    pub fn resume(&mut self) {
        if let &Phase::Waiting(carrier, _) = &self.phase {
            let step = self.exchange.resume();
            self.deliver(step, carrier);
        }
    }

    /// The time limit passed.
    pub fn time_out(&mut self) {
        match &self.phase {
            &Phase::Waiting(carrier, _) => {
                let step = self.exchange.give_up_waiting();
                self.deliver(step, carrier);
            }
            Phase::Collecting(_) => self.refuse(ApiError::body_timeout(self.settings.body_timeout.as_millis())),
            _ => {}
        }
    }

    /// A message came that is larger than we take.
    pub fn unreadable_message(&self) {
        self.exchange.protocol_fault("message_too_large");
    }

    /// Keeps the request to a pool; the first that is named holds.
    pub fn route_to_pool(&mut self, pool: &str) {
        self.exchange.route_to_pool(pool);
    }

    /// Takes one message.
    pub fn on_message(&mut self, mut message: ProcessingRequest) {
        self.read_protocol(&message);
        if let Some(pool) = reading::pool(&message) {
            self.route_to_pool(pool);
        }
        if let Some(subset) = reading::subset(&message) {
            self.exchange.restrict(subset);
        }
        match message.request.take() {
            Some(Request::RequestHeaders(headers)) => self.request_headers(&headers),
            Some(Request::RequestBody(body)) => self.request_body(body),
            Some(Request::RequestTrailers(_)) => self.request_trailers(),
            Some(Request::ResponseHeaders(headers)) => self.response_headers(&message, &headers),
            Some(Request::ResponseBody(body)) => self.response_body(body),
            Some(Request::ResponseTrailers(_)) => self.response_trailers(),
            None => {}
        }
        if self.observing {
            self.out.clear();
        }
    }

    /// The first message tells how the stream is configured; it should be the request headers.
    fn read_protocol(&mut self, message: &ProcessingRequest) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        self.modes = Modes::read(message.protocol_config.as_ref());
        self.observing = message.observability_mode;
        if self.observing {
            self.exchange.observe();
        }
        if !matches!(message.request, Some(Request::RequestHeaders(_))) {
            self.exchange.protocol_fault("no_request_headers");
        }
    }

    fn request_headers(&mut self, headers: &HttpHeaders) {
        if !matches!(self.phase, Phase::Start) {
            self.exchange.protocol_fault("repeated_request_headers");
            return self.push(replies::request_headers(CommonResponse::default()));
        }
        let head = RequestHead::read(reading::headers(headers.headers.as_ref()), self.exchange.kept_headers());
        self.has_body = !headers.end_of_stream;
        self.body_ended = headers.end_of_stream;
        let outlook = match self.modes.request {
            _ if headers.end_of_stream => BodyOutlook::None,
            // A client that upgrades sends nothing before it has an answer: waiting would be for ever.
            _ if head.is_upgrade => BodyOutlook::Unseen,
            BodyMode::None => BodyOutlook::Unseen,
            BodyMode::Streamed if !self.modes.body_before_answer => BodyOutlook::Unseen,
            _ => BodyOutlook::Coming,
        };
        if matches!(self.modes.request, BodyMode::Buffered | BodyMode::BufferedPartial | BodyMode::Duplex) {
            self.exchange.allow_rewrite();
        }
        match self.exchange.request_head(head, outlook) {
            Step::NeedBody => self.collect(),
            step => self.deliver(step, Carrier::Headers),
        }
    }

    /// Answers the headers now or later, as the mode wants it, and waits for the body.
    fn collect(&mut self) {
        if matches!(self.modes.request, BodyMode::Buffered | BodyMode::BufferedPartial) {
            let mut mutation = HeaderMutation::default();
            replies::remove(&mut mutation, &self.exchange.head().forged);
            let mut reply = replies::message(replies::request_headers(replies::common(mutation, false)));
            reply.mode_override = self.hold_stream();
            self.out.push_back(reply);
            self.enter(Phase::Collecting(Carrier::Body));
        } else {
            self.enter(Phase::Collecting(Carrier::Headers));
        }
    }

    fn request_body(&mut self, body: HttpBody) {
        let had_ended = self.body_ended;
        self.body_ended |= body.end_of_stream;
        match (&self.phase, self.modes.request) {
            (_, BodyMode::Duplex) if had_ended => {}
            (&Phase::Collecting(carrier), _) => self.collect_body(body, carrier),
            (Phase::Waiting(..), BodyMode::Duplex) => {
                if let Some(refusal) = self.exchange.request_body(body.body) {
                    self.answer(refusal);
                }
            }
            (Phase::Waiting(..), _) => self.owed += 1,
            (_, BodyMode::Duplex) => self.send_pieces(vec![body.body], body.end_of_stream),
            _ => self.push(replies::request_body(CommonResponse::default())),
        }
    }

    fn collect_body(&mut self, body: HttpBody, carrier: Carrier) {
        if let Some(refusal) = self.exchange.request_body(body.body) {
            return self.answer(refusal);
        }
        self.owed += usize::from(self.modes.request == BodyMode::Streamed);
        let step = match self.modes.request {
            BodyMode::Duplex | BodyMode::Streamed if body.end_of_stream => {
                self.exchange.request_end(Completeness::Whole)
            }
            BodyMode::Duplex => return,
            BodyMode::Streamed if self.exchange.body_length() < STREAMED_BYTES_MAX => return,
            BodyMode::Streamed => self.exchange.request_end(Completeness::Cut),
            BodyMode::BufferedPartial if !body.end_of_stream => self.exchange.request_end(Completeness::Cut),
            // Buffered: one message is all of it, also when trailers follow and the flag is not set.
            _ => self.exchange.request_end(Completeness::Whole),
        };
        self.deliver(step, carrier);
    }

    fn request_trailers(&mut self) {
        self.body_ended = true;
        match &self.phase {
            Phase::Collecting(Carrier::Headers) => {
                self.trailers_due = true;
                let step = self.exchange.request_end(Completeness::Whole);
                self.deliver(step, Carrier::Headers);
            }
            // A body without a byte comes without a body message, and no answer is left that could carry a decision.
            Phase::Collecting(Carrier::Body) => self.refuse(BodyError::Empty.into()),
            Phase::Waiting(..) => self.trailers_due = true,
            _ => self.push(replies::request_trailers()),
        }
    }

    /// Carries out a step: the decision and, behind it, whatever was held back.
    fn deliver(&mut self, step: Step, carrier: Carrier) {
        let is_sent = match step {
            Step::Answer(reply) => return self.answer(reply),
            Step::Wait(wait) => return self.enter(Phase::Waiting(carrier, wait)),
            Step::Send => true,
            Step::Pass | Step::NeedBody => false,
        };
        self.enter(Phase::Forwarding);
        let rewritten = (carrier == Carrier::Body).then(|| self.exchange.take_rewritten()).flatten();
        let mut reply = self.decision(carrier, rewritten);
        if carrier == Carrier::Headers && self.settings.mode_override {
            reply.mode_override = match is_sent {
                // A body that comes only after the answer would be buffered for ever.
                true if self.exchange.head().is_upgrade => self.modes.hold_stream(BodyMode::None),
                true => self.hold_stream(),
                false => self.modes.let_pass(),
            };
        }
        self.out.push_back(reply);
        self.release_held();
    }

    /// Asks for our stream to be kept open, if it has shown that somebody must.
    fn hold_stream(&self) -> Option<ProcessingMode> {
        let asks = self.settings.mode_override && self.exchange.asks_to_hold();
        asks.then(|| self.modes.hold_stream(self.modes.request)).flatten()
    }

    /// The answer that carries the decision, and the new body where it has to be another one.
    fn decision(&self, carrier: Carrier, rewritten: Option<Vec<u8>>) -> ProcessingResponse {
        let dispatch = self.exchange.dispatch();
        let list = dispatch.map(Dispatch::list);
        let mut mutation = match (dispatch, &list) {
            (Some(dispatch), Some(list)) => replies::destination(&self.settings, dispatch, list),
            _ => HeaderMutation::default(),
        };
        let forged = &self.exchange.head().forged;
        if carrier == Carrier::Headers {
            replies::remove(&mut mutation, forged);
        }
        let clears = self.settings.clear_route_cache && (dispatch.is_some() || !forged.is_empty());
        if let (Some(body), BodyMode::Buffered) = (&rewritten, self.modes.request) {
            // In the other modes Envoy has removed it.
            mutation.set_headers.push(replies::set("content-length", body.len().to_string()));
        }
        let mut common = replies::common(mutation, clears);
        common.body_mutation = rewritten.map(replies::whole_body);
        let mut reply = replies::message(match carrier {
            Carrier::Headers => replies::request_headers(common),
            Carrier::Body => replies::request_body(common),
        });
        reply.dynamic_metadata = list.filter(|_| self.settings.metadata).map(replies::metadata);
        reply
    }

    /// Sends what waited behind the answer to the headers.
    fn release_held(&mut self) {
        let body = self.exchange.take_body();
        let ends_here = self.body_ended && !self.trailers_due;
        if self.modes.request == BodyMode::Duplex {
            if !body.is_empty() || (self.has_body && ends_here) {
                self.send_pieces(body, ends_here);
            }
        } else {
            for _ in 0..std::mem::take(&mut self.owed) {
                self.push(replies::request_body(CommonResponse::default()));
            }
        }
        if std::mem::take(&mut self.trailers_due) {
            self.push(replies::request_trailers());
        }
    }

    fn send_pieces(&mut self, body: Vec<Vec<u8>>, is_last: bool) {
        let pieces = replies::pieces(body);
        let last = pieces.len().saturating_sub(1);
        for (at, piece) in pieces.into_iter().enumerate() {
            self.push(replies::request_body(replies::streamed(piece, is_last && at == last)));
        }
    }

    fn refuse(&mut self, error: ApiError) {
        let reply = self.exchange.refusal(error);
        self.answer(reply);
    }

    fn answer(&mut self, reply: LocalReply) {
        self.enter(Phase::Forwarding);
        self.out.push_back(replies::immediate(reply));
        self.flow = Flow::Close;
    }

    pub(super) fn push(&mut self, response: Response) {
        self.out.push_back(replies::message(response));
    }
}
