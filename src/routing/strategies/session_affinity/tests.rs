use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::domain::{Clock, EndpointId, EndpointSpec, Failure, Work};
use crate::routing::conformance::{fleet, view};
use crate::routing::{Asked, Router, Strategy, StrategySet, decide};
use crate::state::{Cooldown, Ticket};

use super::*;

const KEY: &str = "0123456789abcdef";

fn built(value: &Value) -> Scored {
    Scored::new(SessionAffinity::build(&Parameters::new(value.as_object().unwrap().clone())).unwrap())
}

fn keyed() -> Scored {
    built(&json!({ "key": KEY }))
}

fn asking(headers: &[(&str, &str)]) -> Asked {
    let mut asked = Asked { model: "m".into(), ..Asked::default() };
    for (name, value) in headers {
        asked.headers.keep(name, value);
    }
    asked
}

fn ask(router: &dyn Router, asked: &Asked, seed: u64, fleet: &[Arc<Endpoint>]) -> (EndpointId, String) {
    let request = RequestView { asked, ..view(seed) };
    let plan = decide(router, &request, fleet, 1, &mut Trace::off()).unwrap().unwrap();
    let mut headers = Vec::new();
    router.response_headers(&request, plan.first(), &mut headers);
    (plan.first().id, headers[0].1.clone().into_owned())
}

fn load(endpoint: &Arc<Endpoint>, requests: usize) -> Vec<Ticket> {
    (0..requests).map(|_| Ticket::open(Arc::clone(endpoint), Work::default(), &Clock::start())).collect()
}

#[test]
fn a_session_stays_where_it_began_also_at_another_replica() {
    let fleet = fleet(8);
    let (first, id) = ask(&keyed(), &asking(&[]), 1, &fleet);
    for seed in 0..50 {
        let (next, same_id) = ask(&keyed(), &asking(&[("x-session-id", &id)]), seed, &fleet);
        assert_eq!((next, same_id), (first, id.clone()));
    }
}

#[test]
fn new_sessions_spread_and_their_ids_name_their_endpoints() {
    let fleet = fleet(8);
    let router = keyed();
    let ids: HashSet<_> = (0..200).map(|seed| ask(&router, &asking(&[]), seed, &fleet).1).collect();
    assert_eq!(ids.len(), 8);
}

#[test]
fn an_endpoint_that_restarts_under_another_name_is_another() {
    let (before, router) = (fleet(1), keyed());
    let (_, id) = ask(&router, &asking(&[]), 1, &before);
    let spec = EndpointSpec { name: "pod-b".into(), ..before[0].spec.clone() };
    let after = [Arc::new(Endpoint::new(EndpointId { slot: 0, generation: 1 }, spec, Arc::default()))];
    let (_, new_id) = ask(&router, &asking(&[("x-session-id", &id)]), 1, &after);
    assert_ne!(id, new_id);
}

#[test]
fn a_session_whose_endpoint_is_gone_or_aside_moves_and_gets_a_new_id() {
    let (fleet, router) = (fleet(3), keyed());
    let (first, id) = ask(&router, &asking(&[]), 1, &fleet);
    let rest: Vec<_> = fleet.iter().filter(|e| e.id != first).cloned().collect();
    let asked = asking(&[("x-session-id", &id)]);
    let (moved, new_id) = ask(&router, &asked, 1, &rest);
    assert!(moved != first && new_id != id);

    let cooldown = Cooldown { base: Duration::from_secs(1), max: Duration::from_secs(1) };
    let home = fleet.iter().find(|e| e.id == first).unwrap();
    home.live.health.report_failure(Failure::Refused, view(0).now, view(0).now, cooldown, 0.5);
    assert_ne!(ask(&router, &asked, 1, &fleet).0, first);
}

#[test]
fn a_session_leaves_an_overloaded_endpoint() {
    let (fleet, router) = (fleet(4), keyed());
    let (first, id) = ask(&router, &asking(&[]), 1, &fleet);
    let home = fleet.iter().find(|e| e.id == first).unwrap();
    let asked = asking(&[("x-session-id", &id)]);
    let _few = load(home, 3);
    assert_eq!(ask(&router, &asked, 1, &fleet).0, first, "below the slack nobody is overloaded");
    let _many = load(home, 5);
    let (moved, new_id) = ask(&router, &asked, 1, &fleet);
    assert!(moved != first && new_id != id);
}

#[test]
fn forged_ids_are_refused() {
    let (fleet, router) = (fleet(8), keyed());
    let (_, forged) = ask(&built(&json!({ "key": "another secret ..." })), &asking(&[]), 1, &fleet);
    for id in [forged.as_str(), "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "", "not base64"] {
        let asked = asking(&[("x-session-id", id)]);
        let chosen: HashSet<_> = (0..200).map(|seed| ask(&router, &asked, seed, &fleet).0).collect();
        assert_eq!(chosen.len(), 8, "{id} is as good as no id");
    }
}

#[test]
fn an_id_of_aibrix_is_accepted_if_it_is_a_candidates_and_that_is_allowed() {
    let fleet = fleet(8);
    let asked = |address: &str| asking(&[("x-session-id", STANDARD.encode(address).as_str())]);
    let home = asked(fleet[5].address_text());
    let chosen = |router: &Scored, asked: &Asked| -> HashSet<_> {
        (0..200).map(|seed| ask(router, asked, seed, &fleet).0).collect()
    };
    assert_eq!(chosen(&keyed(), &home), HashSet::from([fleet[5].id]));
    assert_eq!(chosen(&keyed(), &asked("127.0.0.1:22")).len(), 8);
    assert_eq!(chosen(&built(&json!({ "accept_addresses": false })), &home).len(), 8);
    let (_, id) = ask(&keyed(), &home, 1, &fleet);
    assert_eq!(plain_address(&id), None, "what is issued is opaque");
}

#[test]
fn a_session_key_decides_alike_everywhere_and_an_id_goes_before_it() {
    let fleet = fleet(8);
    let by_key = |router: &Scored, key: &str| ask(router, &asking(&[("x-aibrix-session-key", key)]), 1, &fleet);
    let (home, id) = by_key(&keyed(), "agent-session-42");
    for _ in 0..5 {
        assert_eq!(by_key(&built(&json!({})), "agent-session-42").0, home);
    }
    let homes: HashSet<_> = (0..200).map(|key| by_key(&keyed(), &format!("k{key}")).0).collect();
    assert_eq!(homes.len(), 8);
    let other = (0..100).map(|key| format!("k{key}")).find(|key| by_key(&keyed(), key).0 != home).unwrap();
    let both = asking(&[("x-session-id", &id), ("x-aibrix-session-key", &other)]);
    assert_eq!(ask(&keyed(), &both, 1, &fleet).0, home);
}

#[test]
fn a_session_key_is_found_in_the_configured_header_cookie_or_body_field() {
    let router = built(&json!({ "keys": ["header:X-User-Id", "cookie:sid", "body:user"] }));
    assert_eq!(router.needs().headers, ["x-session-id".into(), "x-user-id".into(), "cookie".into()]);
    let fleet = fleet(8);
    let home = ask(&router, &asking(&[("x-user-id", "anna")]), 1, &fleet).0;
    for seed in 0..20 {
        assert_eq!(ask(&router, &asking(&[("cookie", "sid=anna")]), seed, &fleet).0, home);
        let asked = Asked { user: Some("anna".into()), ..asking(&[("x-aibrix-session-key", "ignored")]) };
        assert_eq!(ask(&router, &asked, seed, &fleet).0, home);
    }
}

#[test]
fn a_faulty_setting_is_told() {
    let fault = |value: Value| {
        SessionAffinity::build(&Parameters::new(value.as_object().unwrap().clone())).unwrap_err().to_string()
    };
    assert!(fault(json!({ "key": "short" })).contains("16"));
    assert!(fault(json!({ "key": KEY, "key_file": "x" })).contains("exclude"));
    assert!(fault(json!({ "key_file": "/nonexistent" })).contains("/nonexistent"));
    assert!(fault(json!({ "keys": ["query:x"] })).contains("query:x"));
    assert!(fault(json!({ "bound": 0.5 })).contains("bound"));
}

fn combined(text: &str) -> Strategy {
    StrategySet::build("random").unwrap().resolve(text).unwrap()
}

fn homes(router: &dyn Router, asked: &Asked, fleet: &[Arc<Endpoint>]) -> HashSet<EndpointId> {
    (0..200).map(|seed| ask(router, asked, seed, fleet).0).collect()
}

#[test]
fn in_a_combination_the_heavier_of_session_and_load_decides() {
    let fleet = fleet(3);
    let (sticky, light) = (combined("session-affinity:2,least-request"), combined("session-affinity,least-request:2"));
    for strategy in [sticky, light] {
        let (first, id) = ask(&*strategy.router, &asking(&[]), 1, &fleet);
        let home = fleet.iter().find(|e| e.id == first).unwrap();
        let asked = asking(&[("x-session-id", &id)]);
        assert_eq!(homes(&*strategy.router, &asked, &fleet), HashSet::from([first]), "{}", strategy.name);
        let _few = load(home, 2);
        let stays = strategy.name.starts_with("session-affinity:2");
        assert_eq!(homes(&*strategy.router, &asked, &fleet).contains(&first), stays, "{}", strategy.name);
        let (served, new_id) = ask(&*strategy.router, &asked, 1, &fleet);
        assert_eq!(new_id == id, served == first, "the id names who served, whoever decided");
    }
}

#[test]
fn in_a_combination_a_session_without_a_home_leaves_it_to_the_others() {
    let fleet = fleet(4);
    let strategy = combined("session-affinity:1000000,least-request");
    let _busy: Vec<_> = fleet.iter().skip(1).map(|endpoint| load(endpoint, 1)).collect();
    let gone = STANDARD.encode("127.0.0.1:22");
    for headers in [&[][..], &[("x-session-id", gone.as_str())], &[("x-session-id", "forged")]] {
        assert_eq!(homes(&*strategy.router, &asking(headers), &fleet), HashSet::from([fleet[0].id]));
    }
    // An overloaded home is none.
    let asked = asking(&[("x-session-id", STANDARD.encode(fleet[1].address_text()).as_str())]);
    assert_eq!(homes(&*strategy.router, &asked, &fleet), HashSet::from([fleet[1].id]));
    let _many = load(&fleet[1], 8);
    assert_eq!(homes(&*strategy.router, &asked, &fleet), HashSet::from([fleet[0].id]));
}

#[test]
fn in_a_combination_a_key_counts_as_well_and_its_headers_are_kept() {
    let fleet = fleet(8);
    let strategy = combined("least-request,session-affinity:2");
    assert!(
        ["x-session-id", "x-aibrix-session-key"].iter().all(|name| strategy.needs.headers.contains(&(*name).into()))
    );
    let asked = asking(&[("x-aibrix-session-key", "agent-session-42")]);
    let alone = ask(&keyed(), &asked, 1, &fleet).0;
    assert_eq!(homes(&*strategy.router, &asked, &fleet), HashSet::from([alone]));
}

#[test]
fn an_explanation_says_where_the_session_belongs() {
    let (fleet, router) = (fleet(2), keyed());
    let (first, id) = ask(&router, &asking(&[]), 1, &fleet);
    let asked = asking(&[("x-session-id", &id)]);
    let mut trace = Trace::on();
    decide(&router, &RequestView { asked: &asked, ..view(1) }, &fleet, 1, &mut trace).unwrap().unwrap();
    let record = trace.into_record().unwrap();
    assert_eq!(record.notes, ["the session's id names its home"]);
    let homes: Vec<_> = record.scores.iter().filter(|score| score.score == Score::of(1.0)).collect();
    assert_eq!(homes.iter().map(|score| score.endpoint).collect::<Vec<_>>(), [first]);
}

#[test]
fn the_key_that_all_share_is_taken_unless_a_strategy_has_its_own() {
    let fleet = fleet(8);
    let file = std::env::temp_dir().join(format!("fairlead-session-key-{}", std::process::id()));
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let with_file = |own: &Value| {
        let parameters = Parameters::new(own.as_object().unwrap().clone()).with_session_key_file(Some(&file));
        Scored::new(SessionAffinity::build(&parameters).unwrap())
    };
    let id = |router: Scored| ask(&router, &asking(&[]), 1, &fleet).1;
    assert_eq!(id(with_file(&json!({}))), id(keyed()));
    assert_ne!(id(with_file(&json!({ "key": "another secret ..." }))), id(keyed()));
    std::fs::remove_file(&file).unwrap();
}
