//! Where a LoRA adapter is at hand.

use crate::domain::{Gauge, GaugeSet};
use crate::routing::{OpenRequests, Prefer, RequestView, Score, Scorer};
use crate::state::{Endpoint, Presence};

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
        if let Some(holding) = Self::by_engine(request, endpoint) {
            return holding;
        }
        let adapter = &*request.asked.model;
        let is_configured = endpoint.spec.models.iter().any(|model| model.adapters.iter().any(|name| name == adapter));
        if is_configured { Self::Room } else { Self::Unknown }
    }

    /// Whether other adapters take all the room for `request`'s at `endpoint`, which only the engine can know.
    pub fn is_shut_out(request: &RequestView<'_>, endpoint: &Endpoint) -> bool {
        let signals = &endpoint.live.signals;
        let most = || signals.fresh(request.now, request.stale_after)?.gauge(Gauge::MaxAdapters);
        // Whether there is room is seen faster than who has it.
        request.adapter_of.is_some()
            && signals.adapters_held().zip(most()).is_some_and(|(held, most)| f64::from(held) >= most)
            && Self::by_engine(request, endpoint) == Some(Self::NoRoom)
    }

    fn by_engine(request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Self> {
        let signals = &endpoint.live.signals;
        let reading = signals.fresh(request.now, request.stale_after)?;
        let (presence, held) = signals.adapter(&request.asked.model)?;
        match presence {
            Presence::Running => Some(Self::Running),
            Presence::Waiting => Some(Self::Waiting),
            Presence::Absent => {
                let most = reading.gauge(Gauge::MaxAdapters)?;
                Some(if f64::from(held) >= most { Self::NoRoom } else { Self::Room })
            }
        }
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
        let holding = Holding::of(request, endpoint);
        let is_full = || OpenRequests.score(request, endpoint).value > self.limit;
        if holding > Holding::NoRoom && request.adapter_of.is_some() && is_full() {
            return Score::of(0.0);
        }
        match holding {
            Holding::Running => Score::of(1.0),
            Holding::Waiting => Score::of(0.8),
            Holding::Room => Score::of(0.6),
            Holding::Unknown => Score { value: 0.3, complete: false },
            Holding::NoRoom => Score::of(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::{Clock, EndpointSpec, Gauges, ModelSpec, Work};
    use crate::routing::conformance::{fleet, view};
    use crate::routing::{Asked, Candidates, Configured, Decision, Parameters, STRATEGIES, StrategySet, Trace, decide};
    use crate::state::{Adapters, Ticket};

    use super::Holding::{NoRoom, Room, Running, Unknown, Waiting};
    use super::*;

    fn tells(endpoint: &Endpoint, running: &[&str], waiting: &[&str], most: Option<f64>) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        endpoint.live.signals.set_adapters(Some(Adapters { running: names(running), waiting: names(waiting) }));
        let mut page = Gauges::default().with(Gauge::Running, 0.0);
        page.set(Gauge::MaxAdapters, most);
        endpoint.live.publish(&page, endpoint.live.mark(), view(0).now);
    }

    fn configured(endpoint: &Endpoint) -> Arc<Endpoint> {
        let models = vec![ModelSpec { name: "base".into(), adapters: vec!["lora".into()] }];
        let spec = EndpointSpec { models, ..endpoint.spec.clone() };
        Arc::new(Endpoint::new(endpoint.id, spec, Arc::clone(&endpoint.live)))
    }

    #[test]
    fn endpoints_with_the_adapter_come_first_then_those_with_room() {
        let mut fleet = fleet(6);
        tells(&fleet[0], &["lora"], &[], Some(1.0));
        tells(&fleet[1], &["a"], &["lora"], Some(1.0));
        tells(&fleet[2], &["a"], &["a"], Some(2.0));
        tells(&fleet[3], &["a"], &["b"], Some(2.0));
        fleet[4] = configured(&fleet[4]);
        let asked = Asked { model: "lora".into(), ..Asked::default() };
        let request = RequestView { asked: &asked, adapter_of: Some("base"), ..view(1) };
        let holding: Vec<_> = fleet.iter().map(|endpoint| Holding::of(&request, endpoint)).collect();
        assert_eq!(holding, [Running, Waiting, Room, NoRoom, Room, Unknown]);

        let lora = STRATEGIES.iter().find(|registration| registration.name == "lora-affinity").unwrap();
        let router = (lora.build)(&Parameters::default()).unwrap().into_router();
        let (mut order, mut open) = (Vec::new(), Vec::new());
        for _ in 0..80 {
            let Decision::Send(to) = router.route(&request, Candidates::all(&fleet).unwrap(), &mut Trace::off()) else {
                panic!("it always decides")
            };
            order.push(to.id.slot);
            open.push(Ticket::open(to, Work::default(), &Clock::start()));
        }
        assert!(order[..16].iter().all(|slot| *slot == 0) && order[16..32].iter().all(|slot| *slot == 1), "{order:?}");
        assert!(order[32..64].iter().all(|slot| [2, 4].contains(slot)) && !order.contains(&3), "{order:?}");
    }

    #[test]
    fn filters_hold_also_where_the_scorers_have_nothing_to_go_by() {
        let fleet = fleet(2);
        tells(&fleet[0], &["a"], &[], Some(1.0));
        tells(&fleet[1], &["lora"], &[], Some(1.0));
        let _busy = Ticket::open(Arc::clone(&fleet[1]), Work::default(), &Clock::start());
        let spec =
            r#"{"mix":{"filters":["lora-affinity"],"scorers":[{"use":"least-kv-cache"}],"fallback":["random"]}}"#;
        let (specs, models) = (serde_json::from_str(spec).unwrap(), std::collections::BTreeMap::new());
        let set = StrategySet::configured(Configured::of("mix", &specs, &models)).unwrap();
        let asked = Asked { model: "lora".into(), ..Asked::default() };
        for seed in 0..20 {
            let request = RequestView { asked: &asked, adapter_of: Some("base"), ..view(seed) };
            let mut trace = Trace::off();
            let plan = decide(&*set.default_strategy().router, &request, &fleet, 1, &mut trace).unwrap().unwrap();
            assert_eq!((plan.first().id, trace.is_degraded()), (fleet[1].id, true));
        }
    }

    #[test]
    fn a_request_without_an_adapter_goes_by_the_open_requests() {
        let fleet = fleet(2);
        tells(&fleet[0], &["a"], &[], Some(1.0));
        assert_eq!(Holding::of(&view(1), &fleet[0]), Holding::of(&view(1), &fleet[1]));
    }
}
