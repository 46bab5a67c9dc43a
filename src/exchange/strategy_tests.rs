//! What is counted and told where a strategy does not decide by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec, ModelSpec, parse_annotation};
use crate::routing::{self, StrategySet};
use crate::state::{Change, Registry, SourceId};
use crate::telemetry::Metrics;

use super::*;

/// Two engines that tell nothing, in the hands of one strategy.
fn core_of(strategy: &str) -> Arc<Core> {
    core_with(strategy, None)
}

/// The same, whose endpoints come with profiles.
fn core_with(strategy: &str, profiles: Option<&str>) -> Arc<Core> {
    let mut registry = Registry::new();
    let profiles = profiles.map(|text| Arc::new(parse_annotation(text).unwrap()));
    let spec = |port| EndpointSpec {
        models: vec![ModelSpec { name: "m".into(), adapters: Vec::new() }],
        profiles: profiles.clone(),
        ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    registry.apply([Change::Replace(SourceId(0), vec![spec(1), spec(2)])]).1.unwrap();
    let strategies = Arc::new(StrategySet::build(strategy).unwrap());
    let metrics = Metrics::new(&routing::names());
    Arc::new(Core::new(&Config::default(), registry.reader(), strategies, metrics, Clock::start()))
}

const PATH: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// Sends a request as far as its decision.
fn send(core: &Arc<Core>, header: Option<&str>) -> (Exchange, Step) {
    let mut exchange = Exchange::new(Arc::clone(core));
    let wish = header.map(|text| ("routing-strategy", text.as_bytes()));
    let head = [(":method", &b"POST"[..]), (":path", PATH.as_bytes())].into_iter().chain(wish);
    let step = exchange.request_head(RequestHead::read(head, &[]), BodyOutlook::Coming);
    if let Step::Answer(_) = step {
        return (exchange, step);
    }
    assert!(exchange.request_body(BODY.to_vec()).is_none());
    let step = exchange.request_end(Completeness::Whole);
    (exchange, step)
}

fn degraded(core: &Core) -> String {
    let page = core.metrics.encode();
    page.lines().find_map(|line| line.strip_prefix("fairlead_degraded_decisions_total ")).unwrap().to_owned()
}

#[test]
fn a_decision_without_what_its_strategy_goes_by_is_counted_and_told() {
    for (strategy, count) in [("least-kv-cache", "1"), ("least-kv-cache,least-latency", "1"), ("least-request", "0")] {
        let core = core_of(strategy);
        let (_exchange, step) = send(&core, None);
        assert!(matches!(step, Step::Send), "{strategy}");
        assert_eq!(degraded(&core), count, "{strategy}");
        let notes = explain(&core, PATH, None, &[], BODY.to_vec()).notes;
        let told = notes.iter().any(|note| note == "no endpoint tells what it goes by: least-request decides");
        assert_eq!(told, count == "1", "{strategy}: {notes:?}");
    }
}

#[test]
fn a_new_session_is_nothing_to_count() {
    let core = core_of("session-affinity");
    let (_exchange, step) = send(&core, None);
    assert!(matches!(step, Step::Send));
    assert_eq!(degraded(&core), "0");
    let notes = explain(&core, PATH, None, &[], BODY.to_vec()).notes;
    assert_eq!(notes, ["a new session: no endpoint is its home", "without a home: least-request decides"]);
}

#[test]
fn a_strategy_in_profiles_that_there_is_not_is_no_fault_of_the_clients() {
    let locked = r#"{"lockedRoutingStrategy":"pd","profiles":{"a":{}}}"#;
    let profiled = r#"{"profiles":{"default":{"routingStrategy":"pd"}}}"#;
    for profiles in [locked, profiled] {
        let core = core_with("least-request", Some(profiles));
        let (exchange, step) = send(&core, None);
        assert!(matches!(step, Step::Send), "{profiles}");
        assert_eq!(exchange.dispatch().unwrap().strategy, "least-request");
        assert_eq!(degraded(&core), "1");
        let notes = explain(&core, PATH, None, &[], BODY.to_vec()).notes;
        assert_eq!(notes, ["the model's profiles say \"pd\", which is no strategy: least-request decides"]);
        let (_exchange, step) = send(&core, Some("fastest"));
        assert_eq!(matches!(step, Step::Send), profiles == locked, "the client's own text is its own fault");
    }
}
