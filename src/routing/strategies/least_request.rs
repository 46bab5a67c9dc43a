//! Fewest open requests per weight. AIBrix's `least-request`, with other senders' requests counted as well.

use std::sync::Arc;

use crate::routing::{OpenRequests, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-request",
    summary: "the endpoint with the fewest requests open, in proportion to its weight",
    build: || Arc::new(Scored::new(OpenRequests)),
};
