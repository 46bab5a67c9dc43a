//! Counting requests in and out by ownership.

use std::sync::Arc;

use crate::domain::{Clock, Work};

use super::Endpoint;

/// A request's place at an endpoint: counted in when made, counted out when dropped, wherever that happens.
#[derive(Debug)]
#[must_use = "dropping a ticket ends the request's place at the endpoint"]
pub struct Ticket {
    endpoint: Arc<Endpoint>,
    work: Work,
    /// The first token was seen, so the prompt no longer waits for prefill.
    prefilled: bool,
    clock: Clock,
}

impl Ticket {
    /// Counts a request of this size in at `endpoint`.
    pub fn open(endpoint: Arc<Endpoint>, work: Work, clock: &Clock) -> Self {
        endpoint.live.enter(work, clock.now());
        Self { endpoint, work, prefilled: false, clock: clock.clone() }
    }

    /// Where the request is counted.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What it is counted as.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Its first token came: nothing of its prompt is left to prefill.
    pub fn first_token(&mut self) {
        if !std::mem::replace(&mut self.prefilled, true) {
            self.endpoint.live.ours.prefilled(self.work);
        }
    }

    /// Moves the request to the endpoint that really serves it, after a retry by the proxy.
    pub fn rebook(&mut self, endpoint: Arc<Endpoint>) {
        if !Arc::ptr_eq(&self.endpoint.live, &endpoint.live) {
            *self = Self::open(endpoint, self.work, &self.clock);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.endpoint.live.leave(self.work, self.prefilled, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::domain::{EndpointId, EndpointSpec};

    use super::*;

    const WORK: Work = Work { prompt_tokens: 100, output_tokens: 10 };

    fn endpoint(port: u16) -> Arc<Endpoint> {
        let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Endpoint::new(EndpointId { slot: 0, generation: 0 }, spec, Arc::default()))
    }

    #[test]
    fn a_dropped_ticket_frees_its_place() {
        let a = endpoint(1);
        let mut ticket = Ticket::open(Arc::clone(&a), WORK, &Clock::start());
        assert_eq!((a.live.ours.in_flight(), a.live.ours.prefill_tokens()), (1, 100));
        ticket.first_token();
        ticket.first_token();
        assert_eq!((a.live.ours.prefill_tokens(), a.live.ours.tokens()), (0, 110));
        drop(ticket);
        assert_eq!((a.live.ours.in_flight(), a.live.ours.prefill_tokens(), a.live.ours.tokens()), (0, 0, 0));
    }

    #[test]
    fn a_rebooked_ticket_counts_at_one_endpoint_only() {
        let (a, b) = (endpoint(1), endpoint(2));
        let mut ticket = Ticket::open(Arc::clone(&a), WORK, &Clock::start());
        ticket.rebook(Arc::clone(&b));
        ticket.rebook(Arc::clone(&b));
        assert_eq!((a.live.ours.in_flight(), b.live.ours.in_flight(), b.live.ours.sent()), (0, 1, 1));
        assert_eq!((a.live.ours.tokens(), b.live.ours.tokens()), (0, 110));
        drop(ticket);
        assert_eq!(b.live.ours.in_flight(), 0);
    }
}
