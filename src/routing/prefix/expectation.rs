//! What is expected of an endpoint once a request was sent there, and what came of it.

use std::sync::Arc;

use crate::domain::{EndpointId, Moment};
use crate::index::{Chain, Claim};

use super::prefill::Booked;
use super::{Prefixes, whole};

/// The expectation that an endpoint will prefill a request's prompt and then hold it. Dropped, it is withdrawn: the
/// engine failed, or nobody knows what became of the request.
#[derive(Debug)]
#[must_use = "dropping an expectation withdraws it"]
pub struct Expectation {
    pub(super) prefixes: Arc<Prefixes>,
    pub(super) endpoint: EndpointId,
    pub(super) chain: Chain,
    pub(super) claim: Option<Claim>,
    pub(super) booked: Option<Booked>,
    pub(super) start_pace: f64,
    /// Tokens in a block of the chain.
    pub(super) block_tokens: f64,
    /// Tokens of the prompt that the endpoint was taken to hold.
    pub(in crate::routing) cached_tokens: u64,
}

impl Expectation {
    /// Seconds of prefill that the request was booked with.
    pub(in crate::routing) fn prefill_seconds(&self) -> f64 {
        self.booked.map_or(0.0, Booked::seconds)
    }

    /// An engine answered, so it holds the prefix; not always the one that was expected to.
    pub fn come_true(mut self, served: EndpointId, now: Moment) -> Answering {
        let prefixes = Arc::clone(&self.prefixes);
        let as_expected = served == self.endpoint;
        let cached_tokens = if as_expected {
            self.cached_tokens
        } else {
            whole(f64::from(prefixes.index.blocks(served, &self.chain)) * self.block_tokens)
        };
        if !self.chain.is_empty() {
            prefixes.index.commit(served, &self.chain, now);
        }
        let booked = if as_expected {
            self.claim = None;
            self.booked.take()
        } else {
            None
        };
        Answering { prefixes, served, booked, start_pace: self.start_pace, cached_tokens }
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.prefixes.index.withdraw(self.endpoint, &self.chain, claim);
        }
        if let (Some(booked), Some(prefill)) = (self.booked.take(), self.prefixes.prefill.get(self.endpoint)) {
            prefill.cancel(booked);
        }
    }
}

/// A request that an engine answers. Whoever hears more of it tells; nobody has to.
#[derive(Debug)]
pub struct Answering {
    prefixes: Arc<Prefixes>,
    served: EndpointId,
    /// Until its prefill is known to be over.
    booked: Option<Booked>,
    start_pace: f64,
    cached_tokens: u64,
}

impl Answering {
    /// Tokens of the prompt that the engine was taken to hold before the request came.
    pub fn cached_tokens(&self) -> u64 {
        self.cached_tokens
    }

    /// The first token came just now.
    pub fn first_token(&mut self, now: Moment) {
        if let (Some(booked), Some(prefill)) = (self.booked.take(), self.prefixes.prefill.get(self.served)) {
            prefill.finished(booked, now);
            prefill.learn_from(booked, self.start_pace, now);
        }
    }

    /// The answer is there, so the prefill was over some time ago.
    pub fn complete(&mut self, now: Moment) {
        if let (Some(booked), Some(prefill)) = (self.booked.take(), self.prefixes.prefill.get(self.served)) {
            prefill.finished_before(booked, now);
        }
    }
}
