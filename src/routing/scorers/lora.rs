//! Where a LoRA adapter is at hand.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::Endpoint;

/// How near an adapter is to being used at an endpoint, least near first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holding {
    /// Not there, and others take all the room.
    NoRoom,
    /// Not known to be there.
    Unknown,
    /// There is room for one more, or the endpoint is configured with it.
    Room,
    /// Requests for it wait.
    Waiting,
    /// Requests for it run, or none is asked for.
    Running,
}

impl Holding {
    /// How near `request`'s adapter is at `endpoint`, from the engine's last reading and from the configuration.
    pub fn of(request: &RequestView<'_>, endpoint: &Endpoint) -> Self {
        if request.adapter_of.is_none() {
            return Self::Running;
        }
        let adapter = &*request.asked.model;
        let signals = &endpoint.live.signals;
        let told = signals.adapters().filter(|_| signals.is_fresh(request.now, request.stale_after));
        if let Some(adapters) = &told {
            if adapters.running.iter().any(|name| name == adapter) {
                return Self::Running;
            }
            if adapters.waiting.iter().any(|name| name == adapter) {
                return Self::Waiting;
            }
            let held = adapters.waiting.iter().filter(|name| !adapters.running.contains(name)).count();
            let held = (adapters.running.len() + held) as f64;
            match signals.gauge(Gauge::MaxAdapters, request.now, request.stale_after) {
                Some(most) if held >= most => return Self::NoRoom,
                Some(_) => return Self::Room,
                None => {}
            }
        }
        let is_configured = endpoint.spec.models.iter().any(|model| model.adapters.iter().any(|name| name == adapter));
        if is_configured { Self::Room } else { Self::Unknown }
    }
}

/// How near the adapter is, 0 to 1; an endpoint that is full counts as not having it, so that one adapter's burst
/// spreads. 1 for requests that ask for none.
#[derive(Debug, Clone, Copy)]
pub struct LoraAdapter {
    /// Open requests per unit of weight, the new one included, above which an endpoint is full.
    pub limit: f64,
}

impl Scorer for LoraAdapter {
    fn name(&self) -> &'static str {
        "lora-adapter"
    }

    fn unit(&self) -> &'static str {
        "nearness"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Higher
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges().with(GaugeSet::of(&[Gauge::MaxAdapters]))
    }

    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        if request.adapter_of.is_some() && OpenRequests.score(request, endpoint).value > self.limit {
            return Score::of(0.0);
        }
        match Holding::of(request, endpoint) {
            Holding::Running => Score::of(1.0),
            Holding::Waiting => Score::of(0.8),
            Holding::Room => Score::of(0.6),
            Holding::Unknown => Score { value: 0.3, complete: false },
            Holding::NoRoom => Score::of(0.0),
        }
    }
}
