//! The endpoint that works the smallest share of its time.

use crate::routing::{About, Built, BusyTime, Registration, Scored};

pub(super) const REGISTRATION: Registration = Registration {
    name: "least-busy-time",
    aliases: &[],
    summary: "the endpoint that was busy for the smallest share of the last minute",
    about: About {
        purpose: "Light traffic of uneven requests: the work goes round instead of returning to whoever is free first.",
        formula: "Lowest busy share × (open requests + 1) / weight. The share is the engine's utilisation if it tells \
                  one, else the part of the last minute in which a request of ours was in flight there; it counts as \
                  5 % at least.",
        missing: "Without the engine's utilisation, our own busy share, which is always known.",
        source: "AIBrix `least-busy-time`, whose input no engine exports; the busy share is our own.",
    },
    parameters: &[],
    build: |parameters| {
        parameters.none()?;
        Ok(Built::Scored(Scored::new(BusyTime)))
    },
};
