//! Choosing an endpoint: strategies, and the pieces that most of them are made of.
//!
//! A strategy implements [`Router`]: one synchronous, total function over a non-empty candidate set. Most are a
//! [`Scored`] composition of [`Filter`]s, a [`Scorer`] and a [`Picker`]. Around every strategy the framework
//! ([`decide`]) leaves out endpoints that are put aside and completes the list that Envoy may fall back on.

mod candidates;
#[cfg(test)]
mod conformance;
mod decide;
mod filter;
mod picker;
mod registration;
mod request;
mod scored;
mod scorers;
mod strategies;
mod trace;
mod wait;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use crate::domain::EndpointId;
use crate::state::{Demand, Endpoint};

pub use candidates::Candidates;
pub use decide::{Plan, decide, least_loaded};
pub use filter::{AdapterRoom, Awake, Filter, NotAside};
pub use picker::Picker;
pub use registration::{About, BuildError, Built, Parameter, Parameters, Registration};
pub use request::{AnswerNeeds, Asked, KeptHeaders, Needs, RequestView};
pub use scored::Scored;
pub use scorers::{
    ActiveRequests, BusyTime, ExpectedLatency, FirstToken, Holding, KvCache, Levels, LoraAdapter, OpenRequests,
    OutstandingTokens, Prefer, RecentTokens, Score, Scorer, Spill, Usage, UsageWeights, Utilization,
};
pub use strategies::STRATEGIES;
pub use trace::{Record, ScoreRecord, Trace};
pub use wait::{Resume, Wait};

/// What a strategy answers.
#[derive(Debug)]
pub enum Decision {
    /// Send the request there.
    Send(Arc<Endpoint>),
    /// Ask again when this is resumed, or take the least loaded endpoint at the deadline.
    Wait(Wait),
    /// This strategy has nothing to go by, for the stated reason: another one is to decide.
    Pass(&'static str),
}

/// A routing strategy.
pub trait Router: Send + Sync + Debug {
    /// What has to be scraped, kept or looked at for it. Asked once.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Chooses one of the candidates, and records why if `trace` is on. Called on the hot path: no I/O, no lock that is
    /// held for long.
    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision;

    /// Headers for the client, once it is known who serves the request.
    fn response_headers(&self, _request: &RequestView<'_>, _served: &Endpoint, _headers: &mut ResponseHeaders) {}

    /// An endpoint left: drop what is kept for it. Its slot may be given out again.
    fn on_endpoint_removed(&self, _id: EndpointId) {}
}

/// Names and values of headers for the client.
pub type ResponseHeaders = Vec<(&'static str, Cow<'static, str>)>;

/// A strategy ready for use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// Its name.
    pub name: Arc<str>,
    /// Its place in [`STRATEGIES`], for arrays of metrics.
    pub index: usize,
    /// The strategy.
    pub router: Arc<dyn Router>,
}

/// The strategies of this process, built once, and which of them is the default.
#[derive(Debug)]
pub struct StrategySet {
    strategies: Vec<Strategy>,
    default: usize,
    demand: Arc<Demand>,
}

/// A strategy name that is not registered.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a strategy; known are {known}", known = names().join(", "))]
pub struct UnknownStrategy(pub String);

/// Names of all registered strategies, in their order.
pub fn names() -> Vec<&'static str> {
    STRATEGIES.iter().map(|registration| registration.name).collect()
}

impl StrategySet {
    /// Builds every registered strategy; `default` serves requests that name none.
    ///
    /// # Errors
    /// If `default` is not registered, or a strategy cannot be built from its defaults.
    pub fn build(default: &str) -> Result<Self, UnknownStrategy> {
        let make = |(index, r): (usize, &Registration)| {
            let built =
                (r.build)(&Parameters::default()).map_err(|error| UnknownStrategy(format!("{}: {error}", r.name)))?;
            Ok(Strategy { name: r.name.into(), index, router: built.into_router() })
        };
        let strategies = STRATEGIES.iter().enumerate().map(make).collect::<Result<Vec<_>, _>>()?;
        let default =
            strategies.iter().position(|s| &*s.name == default).ok_or_else(|| UnknownStrategy(default.to_owned()))?;
        let demand = demand(&strategies, default);
        Ok(Self { strategies, default, demand })
    }

    /// A set of one strategy, which need not be registered.
    #[cfg(test)]
    pub(crate) fn only(router: Arc<dyn Router>) -> Self {
        let strategies = vec![Strategy { name: "only".into(), index: 0, router }];
        let demand = demand(&strategies, 0);
        Self { strategies, default: 0, demand }
    }

    /// The strategy of that name.
    pub fn named(&self, name: &str) -> Option<&Strategy> {
        self.strategies.iter().find(|strategy| &*strategy.name == name)
    }

    /// The default strategy.
    #[expect(clippy::indexing_slicing, reason = "build() found the index in this very vector")]
    pub fn default_strategy(&self) -> &Strategy {
        &self.strategies[self.default]
    }

    /// What serves when a strategy could not decide in time: the least loaded endpoint.
    pub fn last_resort(&self) -> &Strategy {
        self.named("least-request").unwrap_or_else(|| self.default_strategy())
    }

    /// What of it is needed now: what the default strategy needs, and those that requests name.
    pub fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// What all of them need together.
    pub fn needs(&self) -> Needs {
        self.strategies.iter().fold(Needs::default(), |needs, strategy| needs.with(strategy.router.needs()))
    }

    /// Tells every strategy that an endpoint left.
    pub fn on_endpoint_removed(&self, id: EndpointId) {
        for strategy in &self.strategies {
            strategy.router.on_endpoint_removed(id);
        }
    }
}

/// The gauges that `strategies` need once they are used, and that the default one needs always.
fn demand(strategies: &[Strategy], default: usize) -> Arc<Demand> {
    let needs = |strategy: &Strategy| strategy.router.needs().gauges;
    let always = strategies.get(default).map(needs).unwrap_or_default();
    Arc::new(Demand::new(always, strategies.iter().map(needs)))
}
