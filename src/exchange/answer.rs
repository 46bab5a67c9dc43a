//! The response: who served, what is booked for it, and what is told to the client.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::ObserveAnswers;
use crate::openai::Usage;
use crate::routing::{Choice, ResponseHeaders};
use crate::state::Endpoint;

use super::UpstreamReport;
use super::choosing;
use super::core::Hold;
use super::machine::{Booking, Exchange, Steering};
use super::upstream::Verdict;
use super::watch::Watch;

/// Header in which a decision is explained.
const EXPLAIN: &str = "x-fairlead-explain";

/// An answer that is under way.
#[derive(Debug)]
pub(super) struct Observed {
    served: Arc<Endpoint>,
    /// Whether the engine answered, rather than failed.
    is_answered: bool,
    /// Reads the body, if anybody wants to know.
    watch: Option<Watch>,
    /// A piece of the body was shown to us.
    is_shown: bool,
    has_first_token: bool,
}

impl Exchange {
    /// Takes the response headers: learns who served, and gives the headers to add for the client.
    pub fn response_head(&mut self, report: UpstreamReport) -> ResponseHeaders {
        let Some(mut booking) = self.booking.take() else { return Vec::new() };
        let now = self.core.clock.now();
        self.answered_at = Some(now);
        self.core.metrics.response(report.status);
        let verdict = report.judge(booking.plan.endpoints(), &self.core.reader);
        if self.steering == Steering::Real {
            self.book_health(&booking, &verdict, report.status);
        }
        if let (Some(served), Some(ticket)) = (&verdict.served, &mut booking.ticket) {
            if served.id != ticket.endpoint().id {
                self.core.metrics.failover();
                served.live.measured.tokens(u64::from(self.asked.work.prompt_tokens), 0, now);
            }
            ticket.rebook(Arc::clone(served));
        }
        let served = Arc::clone(verdict.served.as_ref().unwrap_or(booking.plan.first()));
        let headers = self.client_headers(&served, &booking.choice);
        let is_answered = (200..300).contains(&report.status);
        // Without an answer it is dropped, and so withdrawn.
        let expectation = booking.expectation.take().filter(|_| is_answered);
        booking.answering = expectation.map(|expectation| expectation.come_true(served.id, now));
        // Whole answers begin when they are complete; streams may begin before anything was looked at.
        if let Some(answering) = booking.answering.as_mut().filter(|_| !self.asked.streams) {
            answering.complete(now);
        }
        if let Some(awaited) = booking.awaited.take().filter(|_| is_answered) {
            awaited.answered(served.id);
        }
        let watch = (self.core.policy.observe_answers != ObserveAnswers::Never && is_answered)
            .then(|| Watch::new(report.content));
        if is_answered {
            self.prepare_to_restore(report.content);
        }
        self.observed = Some(Observed { served, is_answered, watch, is_shown: false, has_first_token: false });
        self.booking = Some(booking);
        headers
    }

    /// Books answer and failures where they belong, and puts aside who failed.
    fn book_health(&self, booking: &Booking, verdict: &Verdict, status: u16) {
        let now = self.core.clock.now();
        for (endpoint, failure) in &verdict.failed {
            let jitter = fastrand::Rng::with_seed(self.seed).f64();
            let pause =
                endpoint.live.health.report_failure(*failure, booking.sent, now, self.core.policy.cooldown, jitter);
            self.core.events.endpoint_failed(endpoint, *failure, pause, now);
            endpoint.live.measured.failed(now);
        }
        let Some(served) = &verdict.served else { return };
        if verdict.alive && served.live.health.report_answer(booking.sent) {
            self.core.events.endpoint_back(served, now);
        }
        let has_failed = verdict.failed.iter().any(|(endpoint, _)| endpoint.id == served.id);
        match status {
            _ if has_failed => {}
            500.. => served.live.measured.failed(now),
            _ if verdict.alive => served.live.measured.answered(now),
            _ => {}
        }
    }

    fn client_headers(&self, served: &Endpoint, choice: &Choice) -> ResponseHeaders {
        let mut headers = if self.core.policy.response_headers { self.notes(served, choice) } else { Vec::new() };
        let snapshot = self.core.reader.load();
        if self.core.policy.conformance_hooks {
            headers.push(("x-conformance-test-served-endpoint", Cow::Owned(served.address_text().to_owned())));
        }
        choice.strategy.router.response_headers(&self.view(&snapshot), served, &mut headers);
        if let Some(explanation) = self.explanation.as_ref().filter(|_| self.head.explain && self.core.policy.explain) {
            headers.push((EXPLAIN, Cow::Owned(explanation.to_header())));
        }
        headers
    }

    fn notes(&self, served: &Endpoint, choice: &Choice) -> ResponseHeaders {
        let mut headers = vec![
            ("request-id", Cow::Owned(self.request_id())),
            ("routing-strategy", Cow::Owned(choice.strategy.name.to_string())),
            ("target-pod", Cow::Owned(served.spec.name.clone())),
            ("target-pod-ip", Cow::Owned(served.address_text().to_owned())),
        ];
        headers.extend(choice.profile.as_ref().map(|name| (choosing::PROFILE_HEADER, Cow::Owned(name.to_string()))));
        headers
    }

    pub(super) fn request_id(&self) -> String {
        self.head.request_id.as_deref().map_or_else(|| format!("{:016x}", self.seed), str::to_owned)
    }

    /// Whether the answer's body has to be asked for: it names a model that was rewritten, or the strategy measures
    /// answers and this is one to be measured. Known once the response headers were taken.
    pub fn wants_response_body(&self) -> bool {
        self.restores_model() || self.measures_answer()
    }

    fn measures_answer(&self) -> bool {
        let (Some(booking), Some(observed)) = (&self.booking, &self.observed) else { return false };
        let is_streamed = match observed.watch {
            Some(Watch::Events(_)) => true,
            Some(Watch::Json { .. }) => false,
            Some(Watch::Opaque) | None => return false,
        };
        match self.core.policy.observe_answers {
            _ if self.steering != Steering::Real => false,
            ObserveAnswers::Never => false,
            ObserveAnswers::Always => true,
            ObserveAnswers::Auto => {
                let needs = booking.choice.strategy.needs.answers;
                // A first token can be told from the rest only where they come one by one.
                needs.usage || (needs.first_token && is_streamed)
            }
        }
    }

    /// Takes a piece of the response body, as it passes.
    pub fn response_piece(&mut self, piece: &[u8]) {
        self.see(piece, true);
    }

    /// Takes a response body that was held back until it was whole, or a first part of it: no time can be told from it.
    pub fn response_held(&mut self, body: &[u8]) {
        self.see(body, false);
    }

    fn see(&mut self, piece: &[u8], is_timely: bool) {
        self.core.metrics.response_piece();
        let Some(observed) = &mut self.observed else { return };
        let Some(watch) = &mut observed.watch else { return };
        observed.is_shown = true;
        let has_output = watch.feed(piece);
        if !has_output || !is_timely || observed.has_first_token || self.steering != Steering::Real {
            return;
        }
        observed.has_first_token = true;
        let now = self.core.clock.now();
        if let Some(booking) = &mut self.booking {
            observed.served.live.measured.first_token(booking.sent.until(now), now);
            if let Some(ticket) = &mut booking.ticket {
                ticket.first_token();
            }
            if let Some(answering) = &mut booking.answering {
                answering.first_token(now);
            }
        }
    }

    /// The last of the response was seen: the exchange is complete and its place is free.
    pub fn response_end(&mut self) {
        self.complete = true;
        self.book_tokens();
        if let Some(booking) = &mut self.booking {
            booking.ticket = None;
        }
    }

    /// Books the tokens of an answer that is over: as the engine counted them, else as they were seen to pass, else as
    /// they were expected.
    fn book_tokens(&mut self) {
        let Some(observed) = self.observed.take() else { return };
        let answering = self.booking.as_mut().and_then(|booking| booking.answering.take());
        let now = self.core.clock.now();
        let cached = answering.map(|mut answering| {
            answering.complete(now);
            answering.cached_tokens()
        });
        if !observed.is_answered || self.steering != Steering::Real {
            return;
        }
        let sent = self.asked.work;
        let (prompt_sent, expected) = (u64::from(sent.prompt_tokens), u64::from(sent.output_tokens));
        let learned = observed.watch.filter(|_| observed.is_shown).map(Watch::finish);
        if let Some(usage) = learned.and_then(|learned| learned.usage) {
            self.learn_from(usage, cached);
        }
        let (prompt, output) = match learned.map(|learned| (learned.usage, learned.outputs)) {
            Some((Some(usage), _)) => (usage.prompt_tokens, usage.completion_tokens),
            Some((None, outputs)) if outputs > 0 => (prompt_sent, outputs),
            _ => (prompt_sent, expected),
        };
        let more = prompt.saturating_sub(prompt_sent);
        observed.served.live.measured.tokens(more, output, now);
    }

    /// Holds what we expected of a prompt against what the engine counted.
    fn learn_from(&self, usage: Usage, expected: Option<u64>) {
        let snapshot = self.core.reader.load();
        let base = self.view(&snapshot).adapter_of.unwrap_or(&self.asked.model);
        if self.asked.media == 0 {
            self.core.token_sizes.learn(base, u64::from(self.asked.prompt_bytes), usage.prompt_tokens);
        }
        if let (Some(expected), Some(reported)) = (expected, usage.cached_tokens) {
            self.core.metrics.prefix_reported(usage.prompt_tokens, expected.min(usage.prompt_tokens), reported);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.book_tokens();
        let Some(booking) = self.booking.as_ref().filter(|_| self.steering == Steering::Real) else { return };
        let last_heard = match self.answered_at {
            None => {
                self.core.metrics.aborted();
                booking.sent
            }
            Some(answered_at) if self.asked.streams && !self.complete => answered_at,
            Some(_) => return,
        };
        match self.core.note_end(last_heard, self.core.clock.now()) {
            Hold::Unsuspicious => {}
            Hold::AskFromNow => self.core.events.streams_not_held(),
            Hold::Refused => self.core.events.early_stream_end(),
        }
    }
}
