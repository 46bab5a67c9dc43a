//! A request whose route names a pool gets nothing from outside of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec, ModelSpec};
use crate::routing::{self, StrategySet};
use crate::state::{Change, Policies, PolicyBook, Registry, Rewrite, SourceId};
use crate::telemetry::Metrics;

use super::*;

/// A port, the pools and the models of an endpoint.
type Engine<'a> = (u16, &'a [&'a str], &'a [&'a str]);

/// In `a`: 1 and 2; in `b`: 2 and 3. Model `m` is in both, `n` in `b` alone.
const ENGINES: &[Engine<'_>] =
    &[(1, &["a"], &["m"]), (2, &["a", "b"], &["m"]), (3, &["b", "b"], &["m", "n"]), (4, &[], &["m"])];

fn specs(engines: &[Engine<'_>]) -> Change {
    let model = |name: &&str| ModelSpec { name: (*name).to_owned(), adapters: Vec::new() };
    let spec = |(port, pools, models): &Engine<'_>| EndpointSpec {
        pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
        models: models.iter().map(model).collect(),
        ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], *port)))
    };
    Change::Replace(SourceId(0), engines.iter().map(spec).collect())
}

fn fleet() -> (Registry, Arc<Core>) {
    let mut registry = Registry::new();
    registry.apply([specs(ENGINES)]).1.unwrap();
    let strategies = Arc::new(StrategySet::build("random").unwrap());
    let metrics = Metrics::new(&routing::names());
    let core = Core::new(&Config::default(), registry.reader(), strategies, metrics, Clock::start());
    (registry, Arc::new(core))
}

/// A request for `model` through a route to `pool`, as far as its decision.
fn send(core: &Arc<Core>, pool: Option<&str>, model: &str) -> (Exchange, Step) {
    let mut exchange = Exchange::new(Arc::clone(core));
    exchange.allow_rewrite();
    for pool in pool.into_iter().chain(pool.map(|_| "too-late")) {
        exchange.route_to_pool(pool);
    }
    let head = [(":method", &b"POST"[..]), (":path", b"/v1/chat/completions")];
    exchange.request_head(RequestHead::read(head.into_iter(), &[]), BodyOutlook::Coming);
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    assert!(exchange.request_body(body.into_bytes()).is_none());
    let step = exchange.request_end(Completeness::Whole);
    (exchange, step)
}

/// The ports that requests go to, or how they are refused.
fn outcome(core: &Arc<Core>, pool: Option<&str>, model: &str) -> Result<Vec<u16>, (u16, &'static str)> {
    let mut ports = Vec::new();
    for _ in 0..64 {
        let (exchange, step) = send(core, pool, model);
        match step {
            Step::Send => ports.push(exchange.dispatch().unwrap().plan.first().spec.address.port()),
            Step::Answer(reply) => return Err((reply.status, reply.reason)),
            _ => unreachable!("nothing waits here"),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

#[test]
fn requests_stay_in_the_pool_that_their_route_names() {
    let (_registry, core) = fleet();
    assert_eq!(outcome(&core, Some("a"), "m"), Ok(vec![1, 2]));
    assert_eq!(outcome(&core, Some("b"), "m"), Ok(vec![2, 3]));
    assert_eq!(outcome(&core, None, "m"), Ok(vec![1, 2, 3, 4]), "no pool, no limit");
}

#[test]
fn a_model_that_only_another_pool_has_is_unknown() {
    let (_registry, core) = fleet();
    assert_eq!(outcome(&core, Some("b"), "n"), Ok(vec![3]));
    assert_eq!(outcome(&core, Some("a"), "n"), Err((404, "model_not_found")));
}

#[test]
fn a_pool_that_is_empty_or_that_nobody_knows_is_not_ready() {
    let (mut registry, core) = fleet();
    for pool in ["c", "", "A"] {
        assert_eq!(outcome(&core, Some(pool), "m"), Err((503, "no_ready_endpoints")), "{pool}");
    }
    registry.apply([specs(&ENGINES[2..])]).1.unwrap();
    assert_eq!(outcome(&core, Some("a"), "m"), Err((503, "no_ready_endpoints")));
}

#[test]
fn a_model_whose_engines_left_the_pool_is_missed_there_and_not_elsewhere() {
    let (mut registry, core) = fleet();
    registry.apply([specs(&ENGINES[..2])]).1.unwrap();
    assert_eq!(outcome(&core, Some("b"), "n"), Err((503, "no_ready_endpoints")));
    assert_eq!(outcome(&core, Some("a"), "n"), Err((404, "model_not_found")));
}

#[test]
fn only_the_models_of_the_pool_are_listed() {
    let (_registry, core) = fleet();
    for (pool, listed) in [(Some("a"), 1), (Some("b"), 2), (None, 2), (Some("c"), 0)] {
        let mut exchange = Exchange::new(Arc::clone(&core));
        exchange.pool = pool.map(Into::into);
        let head = [(":method", &b"GET"[..]), (":path", b"/v1/models")];
        let Step::Answer(reply) = exchange.request_head(RequestHead::read(head.into_iter(), &[]), BodyOutlook::None)
        else {
            unreachable!("a list is an answer")
        };
        let list: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(list["data"].as_array().unwrap().len(), listed, "{pool:?}");
    }
}

#[test]
fn only_the_policies_of_the_pool_hold() {
    let (_registry, core) = fleet();
    let rule = |to: &str| Rewrite { models: vec!["m".into()], targets: vec![(to.into(), 1)] };
    let policies = Policies { rewrites: vec![rule("n")], ..Policies::default() };
    core.policies.publish(PolicyBook::new(Policies::default(), [("b".into(), policies)].into()));
    assert_eq!(&*send(&core, Some("b"), "m").0.asked.model, "n");
    assert_eq!(&*send(&core, Some("a"), "m").0.asked.model, "m");
    assert_eq!(&*send(&core, None, "m").0.asked.model, "m");
}

#[test]
fn a_rewritten_request_is_measured_as_one_for_the_model_that_serves_it() {
    let (_registry, core) = fleet();
    let rule = Rewrite { models: vec!["public".into()], targets: vec![("n".into(), 1)] };
    core.policies.publish(PolicyBook::new(Policies { rewrites: vec![rule], ..Policies::default() }, [].into()));
    (0..40).for_each(|_| core.token_sizes.learn("n", 2000, 1000));
    let size = |model| send(&core, None, model).0.asked.bytes_per_token;
    assert!(size("n") < 2.2 && (size("public") - size("n")).abs() < 1e-9);
}

#[test]
fn a_dry_run_rewrites_the_model_as_a_request_does_and_says_so() {
    let (_registry, core) = fleet();
    let rule = Rewrite { models: vec!["public".into()], targets: vec![("n".into(), 1)] };
    let policies = Policies { rewrites: vec![rule], ..Policies::default() };
    core.policies.publish(PolicyBook::new(policies, [].into()));
    let body = br#"{"model":"public","messages":[]}"#;
    let explained = explain(&core, "/v1/chat/completions", None, &[], body.to_vec());
    assert_eq!((explained.chosen.len(), &*explained.model), (1, "n"));
    assert_eq!(explained.notes, [r#"the model "public" is rewritten to "n""#]);
}

#[test]
fn a_dry_run_keeps_to_the_pool_too() {
    let (_registry, core) = fleet();
    let body = r#"{"model":"n","messages":[]}"#;
    let chosen = |pool| explain(&core, "/v1/chat/completions", pool, &[], body.into()).chosen.len();
    assert_eq!((chosen(Some("b")), chosen(Some("a"))), (1, 0));
}
