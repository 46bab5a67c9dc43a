//! What a strategy expects an endpoint to hold, once a request was sent there.

use std::sync::Arc;

use crate::domain::{EndpointId, Moment};
use crate::index::{Chain, Claim, PrefixIndex};

/// The expectation that an endpoint will hold a request's prefix. Dropped, it is withdrawn: the engine failed, or nobody
/// knows what became of the request.
#[derive(Debug)]
#[must_use = "dropping an expectation withdraws it"]
pub struct Expectation {
    index: Arc<PrefixIndex>,
    endpoint: EndpointId,
    chain: Chain,
    claim: Option<Claim>,
}

impl Expectation {
    /// Expects the prefix `chain` at `endpoint`.
    pub fn new(index: Arc<PrefixIndex>, endpoint: EndpointId, chain: Chain, now: Moment) -> Self {
        let claim = Some(index.pend(endpoint, &chain, now));
        Self { index, endpoint, chain, claim }
    }

    /// An engine answered, so it holds the prefix; not always the one that was expected to.
    pub fn come_true(mut self, served: EndpointId, now: Moment) {
        self.index.commit(served, &self.chain, now);
        if served == self.endpoint {
            self.claim = None;
        }
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.index.withdraw(self.endpoint, &self.chain, claim);
        }
    }
}
