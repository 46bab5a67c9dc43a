//! Dropping candidates.

use std::fmt::Debug;

use crate::state::Endpoint;

use super::{Holding, RequestView};

/// Keeps or drops one candidate at a time. Where filters leave nobody, they are passed over: a filter states a
/// preference, never a reason to refuse a request.
pub trait Filter: Send + Sync + Debug {
    /// Name in explanations.
    fn name(&self) -> &'static str;

    /// Whether the candidate stays.
    fn keeps(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> bool;
}

/// Drops endpoints whose engine says that it sleeps.
#[derive(Debug, Clone, Copy)]
pub struct Awake;

impl Filter for Awake {
    fn name(&self) -> &'static str {
        "awake"
    }

    fn keeps(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> bool {
        endpoint.live.is_awake(request.now, request.stale_after)
    }
}

/// Drops endpoints that are put aside because they failed lately.
#[derive(Debug, Clone, Copy)]
pub struct NotAside;

impl Filter for NotAside {
    fn name(&self) -> &'static str {
        "not-aside"
    }

    fn keeps(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> bool {
        !endpoint.live.health.is_aside(request.now)
    }
}

/// Drops endpoints that neither hold the request's adapter nor have room for it.
#[derive(Debug, Clone, Copy)]
pub struct AdapterRoom;

impl Filter for AdapterRoom {
    fn name(&self) -> &'static str {
        "adapter-room"
    }

    fn keeps(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> bool {
        !Holding::is_shut_out(request, endpoint)
    }
}
