//! What surrounds every strategy: who is eligible, and who comes next should the choice fail.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::state::Endpoint;

use super::{
    Awake, Candidates, Decision, Filter, NotAside, OpenRequests, Picker, RequestView, Router, Scorer, Trace, Wait,
};

/// Where a request goes: the chosen endpoint first, then those that Envoy may try if it fails.
#[derive(Debug, Clone)]
pub struct Plan {
    endpoints: SmallVec<[Arc<Endpoint>; 3]>,
}

impl Plan {
    /// The chosen endpoint.
    #[expect(clippy::indexing_slicing, reason = "a plan is made with its first endpoint")]
    pub fn first(&self) -> &Arc<Endpoint> {
        &self.endpoints[0]
    }

    /// All of them, best first.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

/// Asks `router` to choose among `endpoints`, without those that are asleep or put aside unless all are, and completes the
/// plan to `length` endpoints. `None` if there are no endpoints.
pub fn decide(
    router: &dyn Router,
    request: &RequestView<'_>,
    endpoints: &[Arc<Endpoint>],
    length: usize,
    trace: &mut Trace,
) -> Option<Result<Plan, Wait>> {
    let all = Candidates::all(endpoints)?;
    let kept = eligible(request, endpoints);
    let candidates = kept.as_deref().and_then(|kept| all.only(kept)).unwrap_or(all);
    if trace.is_on() && candidates.len() < endpoints.len() {
        let filters: [&dyn Filter; 2] = [&NotAside, &Awake];
        for endpoint in endpoints {
            if let Some(filter) = filters.iter().find(|filter| !filter.keeps(request, endpoint)) {
                trace.left_out(endpoint, filter.name());
            }
        }
    }
    Some(match router.route(request, candidates, trace) {
        Decision::Send(endpoint) => Ok(complete(endpoint, request, endpoints, length)),
        Decision::Wait(wait) => Err(wait),
        Decision::Pass(pass) => {
            trace.passed(pass, "least-request");
            let first = Picker::Best.pick(request, candidates, &OpenRequests);
            Ok(complete(Arc::clone(first), request, endpoints, length))
        }
    })
}

/// The choice of last resort, which needs nothing but our own counts: the least loaded eligible endpoint.
pub fn least_loaded(request: &RequestView<'_>, endpoints: &[Arc<Endpoint>], length: usize) -> Option<Plan> {
    let kept = eligible(request, endpoints);
    let all = Candidates::all(endpoints)?;
    let candidates = kept.as_deref().and_then(|kept| all.only(kept)).unwrap_or(all);
    let first = Picker::Best.pick(request, candidates, &OpenRequests);
    Some(complete(Arc::clone(first), request, endpoints, length))
}

/// Positions of the endpoints that are awake and not put aside; `None` if that is all of them, which is the usual case.
fn eligible(request: &RequestView<'_>, endpoints: &[Arc<Endpoint>]) -> Option<SmallVec<[u32; 64]>> {
    let keeps = |endpoint: &Arc<Endpoint>| NotAside.keeps(request, endpoint) && Awake.keeps(request, endpoint);
    if endpoints.iter().all(keeps) {
        return None;
    }
    Some((0..).zip(endpoints).filter(|(_, endpoint)| keeps(endpoint)).map(|(at, _)| at).collect())
}

/// The chosen endpoint, and behind it the least loaded of the others; one that is put aside comes only when no other
/// is left. One pass, whatever the length.
fn complete(first: Arc<Endpoint>, request: &RequestView<'_>, endpoints: &[Arc<Endpoint>], length: usize) -> Plan {
    let mut others: SmallVec<[(Cost, &Arc<Endpoint>); 8]> = SmallVec::new();
    let room = length.saturating_sub(1);
    if room > 0 {
        // Where the pass begins is drawn, so that ties fall to all alike.
        let (before, after) = endpoints.split_at(request.rng().usize(..endpoints.len().max(1)));
        for endpoint in after.iter().chain(before).filter(|endpoint| endpoint.id != first.id) {
            let cost = cost(request, endpoint);
            if others.len() == room && others.last().is_some_and(|(highest, _)| cost >= *highest) {
                continue;
            }
            others.truncate(room - 1);
            let place = others.iter().position(|(other, _)| cost < *other).unwrap_or(others.len());
            others.insert(place, (cost, endpoint));
        }
    }
    let others = others.into_iter().map(|(_, endpoint)| Arc::clone(endpoint));
    Plan { endpoints: std::iter::once(first).chain(others).collect() }
}

/// Asleep or put aside or not, then the load.
type Cost = (bool, f64);

/// What an endpoint costs as a second choice: its load, and whoever is asleep or put aside comes behind all others.
fn cost(request: &RequestView<'_>, endpoint: &Endpoint) -> Cost {
    let is_out = endpoint.live.health.is_aside(request.now) || !Awake.keeps(request, endpoint);
    (is_out, OpenRequests.score(request, endpoint).value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::domain::{Clock, Failure, Work};
    use crate::routing::StrategySet;
    use crate::routing::conformance::{fleet, view};
    use crate::state::{Cooldown, Ticket};

    use super::*;

    const COOLDOWN: Cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(30) };

    #[derive(Debug)]
    struct Stuck;

    impl Router for Stuck {
        fn route(&self, _: &RequestView<'_>, _: Candidates<'_>, _: &mut Trace) -> Decision {
            Decision::Wait(Wait::new().0)
        }
    }

    #[test]
    fn an_endpoint_put_aside_is_not_chosen_and_comes_last_in_the_list() {
        let fleet = fleet(3);
        let set = StrategySet::build("random").unwrap();
        fleet[1].live.health.report_failure(Failure::Refused, view(0).now, view(0).now, COOLDOWN, 0.5);
        for seed in 0..100 {
            let plan =
                decide(&*set.default_strategy().router, &view(seed), &fleet, 3, &mut Trace::off()).unwrap().unwrap();
            assert_ne!(plan.first().id, fleet[1].id);
            assert_eq!(plan.endpoints()[2].id, fleet[1].id);
        }
    }

    #[test]
    fn an_engine_that_sleeps_is_not_chosen_and_comes_last_in_the_list() {
        use crate::domain::{Gauge, Gauges};
        let fleet = fleet(3);
        let asleep = Gauges::default().with(Gauge::Awake, 0.0).with(Gauge::Running, 0.0);
        fleet[1].live.publish(&asleep, fleet[1].live.mark(), view(0).now);
        let set = StrategySet::build("least-request").unwrap();
        for seed in 0..100 {
            let router = &*set.default_strategy().router;
            let mut trace = Trace::on();
            let plan = decide(router, &view(seed), &fleet, 3, &mut trace).unwrap().unwrap();
            assert_eq!(plan.endpoints().iter().position(|chosen| chosen.id == fleet[1].id), Some(2));
            assert_eq!(trace.into_record().unwrap().left_out, [(fleet[1].id, "awake")]);
        }
    }

    #[test]
    fn when_all_are_aside_somebody_is_chosen_all_the_same() {
        let fleet = fleet(2);
        for endpoint in &fleet {
            endpoint.live.health.report_failure(Failure::Refused, view(0).now, view(0).now, COOLDOWN, 0.5);
        }
        let set = StrategySet::build("least-request").unwrap();
        assert!(decide(&*set.default_strategy().router, &view(1), &fleet, 1, &mut Trace::off()).unwrap().is_ok());
    }

    #[test]
    fn the_list_names_each_endpoint_once_and_is_no_longer_than_the_fleet() {
        let fleet = fleet(2);
        let plan = least_loaded(&view(3), &fleet, 5).unwrap();
        assert_eq!(plan.endpoints().len(), 2);
        assert_ne!(plan.endpoints()[0].id, plan.endpoints()[1].id);
    }

    #[test]
    fn a_stuck_strategy_gives_a_wait_and_the_last_resort_the_least_loaded() {
        let fleet = fleet(3);
        let _busy = [0, 1].map(|at| Ticket::open(Arc::clone(&fleet[at]), Work::default(), &Clock::start()));
        assert!(decide(&Stuck, &view(1), &fleet, 1, &mut Trace::off()).unwrap().is_err());
        assert_eq!(least_loaded(&view(1), &fleet, 1).unwrap().first().id, fleet[2].id);
    }
}
