//! The less loaded of two endpoints drawn at random: nearly as even as looking at all, and no herd when several
//! replicas see the same numbers.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.

use std::sync::Arc;

use crate::routing::{OpenRequests, Picker, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "power-of-two",
    summary: "the less loaded of two endpoints drawn at random",
    build: || Arc::new(Scored::new(OpenRequests).picked_by(Picker::BestOfTwo)),
};
