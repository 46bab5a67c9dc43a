//! Choosing an endpoint: strategies, and the pieces that most of them are made of.
//!
//! A strategy implements [`Router`]: one synchronous, total function over a non-empty candidate set. Most are a
//! [`Scored`] composition of [`Filter`]s, a [`Scorer`] and a [`Picker`]. Around every strategy the framework
//! ([`decide`]) leaves out endpoints that are put aside and completes the list that Envoy may fall back on.

mod blend;
mod candidates;
mod chain;
mod choice;
mod combined;
#[cfg(test)]
mod conformance;
mod decide;
pub mod describe;
mod filter;
mod grammar;
#[cfg(test)]
mod load_tests;
mod named;
mod picker;
mod prefix;
mod profiles;
mod registration;
mod request;
mod scored;
mod scorers;
mod set;
#[cfg(test)]
mod set_tests;
mod strategies;
mod trace;
mod wait;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use crate::domain::EndpointId;
use crate::state::Endpoint;

pub use blend::Part;
pub use candidates::Candidates;
pub use choice::{Choice, InVain, Wish};
pub use decide::{Plan, decide, least_loaded};
pub use filter::{AdapterRoom, Awake, Filter, NotAside};
pub use grammar::GrammarError;
pub use picker::Picker;
pub use prefix::{Answering, Expectation, Prefixes};
pub use registration::{About, BuildError, Built, Parameter, Parameters, Registration};
pub use request::{AnswerNeeds, Asked, KeptHeaders, Needs, RequestView};
pub use scored::Scored;
pub use scorers::{
    ActiveRequests, BusyTime, ExpectedLatency, FirstToken, Holding, KvCache, Levels, LoraAdapter, OpenRequests,
    OutstandingTokens, Prefer, RecentTokens, Score, Scorer, Scores, Spill, Usage, UsageWeights, Utilization,
};
pub use set::{COMBINATION, ChoiceError, Configured, InvalidStrategies, Strategy, StrategySet, names};
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
    /// This strategy has nothing to go by: another one is to decide.
    Pass(Pass),
}

/// Why a strategy leaves a request to another one, in words for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// What it goes by is missing: the decision counts as degraded.
    Missing(&'static str),
    /// It has no say in such a request, as it should be: a new session has no home yet.
    NoSay(&'static str),
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

    /// A request was sent to an endpoint, by this strategy's choice. What it gives is kept until an engine answered, or dropped with the request.
    fn on_sent(&self, _request: &RequestView<'_>, _endpoint: &Endpoint) -> Option<Expectation> {
        None
    }

    /// Headers for the client, once it is known who serves the request.
    fn response_headers(&self, _request: &RequestView<'_>, _served: &Endpoint, _headers: &mut ResponseHeaders) {}

    /// An endpoint left: drop what is kept for it. Its slot may be given out again.
    fn on_endpoint_removed(&self, _id: EndpointId) {}
}

/// Names and values of headers for the client.
pub type ResponseHeaders = Vec<(&'static str, Cow<'static, str>)>;
