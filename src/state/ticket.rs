//! Counting requests in and out by ownership.

use std::sync::Arc;

use super::Endpoint;

/// A request's place at an endpoint: counted in when made, counted out when dropped, wherever that happens.
#[derive(Debug)]
#[must_use = "dropping a ticket ends the request's place at the endpoint"]
pub struct Ticket {
    endpoint: Arc<Endpoint>,
}

impl Ticket {
    /// Counts a request in at `endpoint`.
    pub fn open(endpoint: Arc<Endpoint>) -> Self {
        endpoint.live.enter();
        Self { endpoint }
    }

    /// Where the request is counted.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Moves the request to the endpoint that really serves it, after a retry by the proxy.
    pub fn rebook(&mut self, endpoint: Arc<Endpoint>) {
        if !Arc::ptr_eq(&self.endpoint.live, &endpoint.live) {
            *self = Self::open(endpoint);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.endpoint.live.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::domain::{EndpointId, EndpointSpec};

    use super::*;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Endpoint::new(EndpointId { slot: 0, generation: 0 }, spec, Arc::default()))
    }

    #[test]
    fn a_dropped_ticket_frees_its_place() {
        let a = endpoint(1);
        let ticket = Ticket::open(Arc::clone(&a));
        assert_eq!(a.live.in_flight(), 1);
        drop(ticket);
        assert_eq!(a.live.in_flight(), 0);
    }

    #[test]
    fn a_rebooked_ticket_counts_at_one_endpoint_only() {
        let (a, b) = (endpoint(1), endpoint(2));
        let mut ticket = Ticket::open(Arc::clone(&a));
        ticket.rebook(Arc::clone(&b));
        ticket.rebook(Arc::clone(&b));
        assert_eq!((a.live.in_flight(), b.live.in_flight(), b.live.sent()), (0, 1, 1));
        drop(ticket);
        assert_eq!(b.live.in_flight(), 0);
    }
}
