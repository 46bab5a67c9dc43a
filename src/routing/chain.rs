//! Strategies in turn: where one has nothing to go by, the next decides.

use std::sync::Arc;

use crate::domain::EndpointId;
use crate::state::Endpoint;

use super::{Candidates, Decision, Expectation, Needs, RequestView, ResponseHeaders, Router, Strategy, Trace};

/// A strategy and those that decide in its place. Behind the last of them the framework takes the least loaded.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) first: Arc<dyn Router>,
    /// Each is somebody else's as well: what it keeps is not ours to clear.
    pub(super) rest: Vec<Strategy>,
}

impl Router for Chain {
    fn needs(&self) -> Needs {
        self.rest.iter().fold(self.first.needs(), |needs, next| needs.with(next.router.needs()))
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let mut decision = self.first.route(request, candidates, trace);
        for next in &self.rest {
            let Decision::Pass(pass) = decision else { break };
            trace.passed(pass, &next.name);
            decision = next.router.route(request, candidates, trace);
        }
        decision
    }

    fn on_sent(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Option<Expectation> {
        // Whoever decided: what the one that goes by prefixes expects is to be found by the next request.
        let rest = self.rest.iter().map(|next| &next.router);
        [&self.first].into_iter().chain(rest).find_map(|router| router.on_sent(request, endpoint))
    }

    fn response_headers(&self, request: &RequestView<'_>, served: &Endpoint, headers: &mut ResponseHeaders) {
        // Whoever decided: a session begins with the answer of the first request, which its strategy may have passed on.
        let rest = self.rest.iter().map(|next| &next.router);
        [&self.first].into_iter().chain(rest).for_each(|router| router.response_headers(request, served, headers));
    }

    fn on_endpoint_removed(&self, id: EndpointId) {
        self.first.on_endpoint_removed(id);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{Clock, Work};
    use crate::routing::conformance::{fleet, view};
    use crate::routing::{Pass, StrategySet, decide};
    use crate::state::Ticket;

    use super::*;

    #[derive(Debug)]
    struct Clueless(&'static str);

    impl Router for Clueless {
        fn route(&self, _: &RequestView<'_>, _: Candidates<'_>, _: &mut Trace) -> Decision {
            Decision::Pass(Pass::Missing(self.0))
        }
    }

    fn named(name: &str, router: Arc<dyn Router>) -> Strategy {
        Strategy::new(name.into(), 0, router)
    }

    #[test]
    fn each_that_has_nothing_to_go_by_hands_on_and_it_is_written_down() {
        let fleet = fleet(3);
        let _busy = [0, 1].map(|at| Ticket::open(Arc::clone(&fleet[at]), Work::default(), &Clock::start()));
        let least = StrategySet::build("least-request").unwrap().default_strategy().clone();
        let rest = vec![named("second", Arc::new(Clueless("no key"))), least];
        let chain = Chain { first: Arc::new(Clueless("no session")), rest };
        let mut trace = Trace::on();
        let plan = decide(&chain, &view(1), &fleet, 1, &mut trace).unwrap().unwrap();
        assert_eq!(plan.first().id, fleet[2].id);
        assert!(trace.is_degraded());
        let notes = trace.into_record().unwrap().notes;
        assert_eq!(notes, ["no session: second decides", "no key: least-request decides"]);
    }

    #[test]
    fn behind_the_last_the_least_loaded_is_taken_and_who_decides_at_once_is_not_degraded() {
        let fleet = fleet(2);
        let chain = Chain { first: Arc::new(Clueless("no session")), rest: Vec::new() };
        let mut trace = Trace::off();
        assert!(decide(&chain, &view(1), &fleet, 1, &mut trace).unwrap().is_ok());
        assert!(trace.is_degraded());
        let least = StrategySet::build("least-request").unwrap().default_strategy().clone();
        let chain = Chain { first: Arc::clone(&least.router), rest: vec![least] };
        let mut trace = Trace::off();
        assert!(decide(&chain, &view(1), &fleet, 1, &mut trace).unwrap().is_ok());
        assert!(!trace.is_degraded());
    }
}
