//! The less loaded of two endpoints drawn at random: nearly as even as looking at all, and no herd when several
//! replicas see the same numbers.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.

use crate::routing::{About, Built, OpenRequests, Picker, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "power-of-two",
    summary: "the less loaded of two endpoints drawn at random",
    aliases: &[],
    about: About {
        purpose: "Several replicas of Fairlead in front of one fleet: no herd when all see the same numbers.",
        formula: "The lower (open requests + 1) / weight of two endpoints drawn at random.",
        missing: "Without a fresh reading of the engine, our own requests in flight alone.",
        source: "AIBrix `power-of-two`; Mitzenmacher, 2001.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Scored(Scored::new(OpenRequests).picked_by(Picker::BestOfTwo)))
    },
};
