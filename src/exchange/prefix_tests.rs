//! That exchanges tell a strategy what it needs to know where prompts are cached.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec, ModelSpec, parse_annotation};
use crate::routing::{self, StrategySet};
use crate::state::{Change, Endpoint, Registry, SourceId};
use crate::telemetry::Metrics;

use super::*;

fn core_of(strategy: &str) -> Arc<Core> {
    core_with(strategy, |_| ())
}

/// Eight endpoints, each with what `more` says of it.
fn core_with(strategy: &str, more: impl Fn(&mut EndpointSpec)) -> Arc<Core> {
    let config = Config::default();
    let mut registry = Registry::new();
    let spec = |port| {
        let mut spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)));
        more(&mut spec);
        spec
    };
    let specs = (1..9).map(spec).collect();
    registry.apply([Change::Replace(SourceId(0), specs)]).1.unwrap();
    let strategies = Arc::new(StrategySet::build(strategy).unwrap());
    Arc::new(Core::new(&config, registry.reader(), strategies, Metrics::new(&routing::names()), Clock::start()))
}

/// A conversation of so many turns about a topic.
fn chat(topic: &str, turns: usize) -> Vec<u8> {
    let text = |turn| format!("turn {turn} about {}", topic.repeat(200));
    let messages: Vec<_> = (0..turns).map(|turn| json!({ "role": "user", "content": text(turn) })).collect();
    json!({ "model": "m", "messages": messages }).to_string().into_bytes()
}

/// Sends a request, and lets whoever was chosen answer with `status`.
fn serve(core: &Arc<Core>, body: Vec<u8>, status: u16) -> SocketAddr {
    let (mut exchange, address) = send(core, body);
    exchange.response_head(report(address, status));
    address
}

fn report(address: SocketAddr, status: u16) -> UpstreamReport {
    UpstreamReport { status, address: Some(address), attempts: Some(1), timed: true, ..Default::default() }
}

/// Sends a request, and tells where.
fn send(core: &Arc<Core>, body: Vec<u8>) -> (Exchange, SocketAddr) {
    let mut exchange = Exchange::new(Arc::clone(core));
    let headers: [(&str, &[u8]); 2] = [(":method", b"POST"), (":path", b"/v1/chat/completions")];
    let head = RequestHead::read(headers.into_iter(), &[]);
    assert!(matches!(exchange.request_head(head, BodyOutlook::Coming), Step::NeedBody));
    assert!(exchange.request_body(body).is_none());
    assert!(matches!(exchange.request_end(Completeness::Whole), Step::Send));
    let address = exchange.dispatch().unwrap().plan.first().spec.address;
    (exchange, address)
}

/// Sends a request whose answer says how many tokens its prompt had, and how many of them were cached.
fn serve_with_usage(core: &Arc<Core>, body: Vec<u8>, tokens: u64, cached: u64) {
    let (mut exchange, address) = send(core, body);
    exchange.response_head(UpstreamReport { content: Content::Json, ..report(address, 200) });
    let details = json!({ "cached_tokens": cached });
    let usage = json!({ "prompt_tokens": tokens, "completion_tokens": 1, "prompt_tokens_details": details });
    exchange.response_held(json!({ "choices": [], "usage": usage }).to_string().as_bytes());
    exchange.response_end();
}

fn metric(core: &Core, name: &str) -> u64 {
    let page = core.metrics.encode();
    let value = page.lines().find_map(|line| line.strip_prefix(&format!("fairlead_prefix_{name}_total "))).unwrap();
    value.parse().unwrap()
}

#[test]
fn conversations_stay_with_the_engine_that_has_them_cached() {
    let core = core_of("prefix-cache");
    let homes = ["apples ", "pears ", "plums "].map(|topic| (topic, serve(&core, chat(topic, 1), 200)));
    for turns in 2..8 {
        for (topic, home) in homes {
            assert_eq!(serve(&core, chat(topic, turns), 200), home, "{topic} {turns}");
        }
    }
}

#[test]
fn a_prompt_is_hashed_only_for_a_strategy_that_goes_by_it() {
    for (strategy, is_hashed) in [("prefix-cache", true), ("least-request", false)] {
        let core = core_of(strategy);
        let mut exchange = Exchange::new(core);
        let headers: [(&str, &[u8]); 2] = [(":method", b"POST"), (":path", b"/v1/chat/completions")];
        exchange.request_head(RequestHead::read(headers.into_iter(), &[]), BodyOutlook::Coming);
        assert!(exchange.request_body(chat("apples ", 1)).is_none());
        assert!(matches!(exchange.request_end(Completeness::Whole), Step::Send));
        assert_eq!(!exchange.asked.prefix.is_empty(), is_hashed, "{strategy}");
    }
}

#[test]
fn a_prompt_is_hashed_for_a_strategy_that_the_endpoints_profiles_choose() {
    let profiles = parse_annotation(r#"{"profiles":{"default":{"routingStrategy":"prefix-cache"}}}"#).unwrap();
    let profiles = Arc::new(profiles);
    let core = core_with("random", |spec| {
        spec.models = vec![ModelSpec { name: "m".into(), adapters: Vec::new() }];
        spec.profiles = Some(Arc::clone(&profiles));
    });
    let (exchange, _) = send(&core, chat("apples ", 2));
    assert_eq!(exchange.dispatch().unwrap().strategy, "prefix-cache");
    assert!(!exchange.asked.prefix.is_empty());
    drop(exchange);
    let home = serve(&core, chat("apples ", 2), 200);
    (0..8).for_each(|_| assert_eq!(serve(&core, chat("apples ", 2), 200), home));
}

#[test]
fn an_engine_that_failed_is_not_taken_to_have_the_prompt() {
    let core = core_of("prefix-cache");
    let first = serve(&core, chat("apples ", 3), 500);
    let explained = explain(&core, "/v1/chat/completions", None, &[], chat("apples ", 3));
    assert!(explained.notes.iter().any(|note| note.contains("0 at most anywhere")), "{first} {:?}", explained.notes);
}

#[test]
fn what_was_expected_is_held_against_what_the_engine_reports() {
    let core = core_of("prefix-cache");
    let body = chat("apples ", 4);
    let tokens = (body.len() / 4) as u64;
    serve_with_usage(&core, body.clone(), tokens, 0);
    assert_eq!(["answers", "expected_tokens", "error_tokens"].map(|name| metric(&core, name)), [1, 0, 0]);
    // The engine says less than we thought, for it had to make room.
    serve_with_usage(&core, body, tokens, 200);
    let expected = metric(&core, "expected_tokens");
    assert!(expected > tokens * 8 / 10 && expected <= tokens, "{expected} of {tokens}");
    let names = ["answers", "prompt_tokens", "reported_tokens", "error_tokens"];
    assert_eq!(names.map(|name| metric(&core, name)), [2, 2 * tokens, 200, expected - 200]);
}

#[test]
fn the_length_of_prompts_in_tokens_is_learned_for_each_model() {
    let core = core_of("prefix-cache");
    let estimate = |core: &Arc<Core>| send(core, chat("pears ", 4)).0.asked.work.prompt_tokens;
    let before = estimate(&core);
    // Two bytes a token.
    (0..20).for_each(|_| serve_with_usage(&core, chat("pears ", 4), 2 * u64::from(before), 0));
    let after = estimate(&core);
    assert!(after > before * 19 / 10 && after <= before * 2 + 1, "{before} {after}");
}

#[test]
fn a_prompt_that_was_estimated_too_long_is_charged_as_its_engine_counts_it() {
    let core = core_of("throughput");
    serve_with_usage(&core, chat("pears ", 4), 10, 0);
    let (snapshot, now) = (core.reader.load(), core.clock.now());
    let charged = |endpoint: &Arc<Endpoint>| endpoint.live.measured.outcomes(now).prompt_tokens;
    assert_eq!(snapshot.fleet(None).endpoints().iter().map(charged).sum::<u64>(), 10);
}
