//! That exchanges go by what engines tell of their caches, and by the text where they tell nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::config::Config;
use crate::domain::{Clock, EndpointId, EndpointSpec};
use crate::index::{HeldIndex, Row, StoredBlock, Tier, TokenPrompt};
use crate::lookup::Worker;
use crate::routing::{self, StrategySet};
use crate::state::{Change, Policies, PolicyBook, Registry, Rewrite, SourceId};
use crate::telemetry::Metrics;

use super::*;

struct Fleet {
    core: Arc<Core>,
    worker: Worker,
    rows: Vec<Row>,
    addresses: Vec<SocketAddr>,
}

/// Endpoints whose engines tell all that they hold: nothing, to begin with.
fn fleet() -> Fleet {
    let config = Config::default();
    let mut registry = Registry::new();
    let specs = (1..9).map(|port| EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
    registry.apply([Change::Replace(SourceId(0), specs)]).1.unwrap();
    let (reader, clock) = (registry.reader(), Clock::start());
    let index = HeldIndex::new(16 << 20, Duration::from_secs(10));
    let (lookup, worker) = Worker::new(Arc::clone(&index), &config, &reader, &clock).unwrap();
    let ids: Vec<(EndpointId, SocketAddr)> =
        reader.load().endpoints().iter().map(|endpoint| (endpoint.id, endpoint.spec.address)).collect();
    let open = |(id, _): &(EndpointId, SocketAddr)| {
        let mut row = index.open(*id).unwrap();
        row.set_block_tokens(16);
        row.set_complete(true);
        row
    };
    let strategies = Arc::new(StrategySet::build("prefix-cache").unwrap());
    let core = Core::new(&config, reader, strategies, Metrics::new(&routing::names()), clock);
    let core = Arc::new(core.looking_up(Some(lookup)));
    let rows = ids.iter().map(open).collect();
    Fleet { core, worker, rows, addresses: ids.iter().map(|(_, address)| *address).collect() }
}

fn tokens(from: u32) -> Vec<u32> {
    (from..from + 800).collect()
}

fn begin(core: &Arc<Core>, path: &[u8], body: &serde_json::Value) -> (Exchange, Step) {
    let mut exchange = Exchange::new(Arc::clone(core));
    exchange.allow_rewrite();
    let headers: [(&str, &[u8]); 2] = [(":method", b"POST"), (":path", path)];
    exchange.request_head(RequestHead::read(headers.into_iter(), &[]), BodyOutlook::Coming);
    assert!(exchange.request_body(body.to_string().into_bytes()).is_none());
    let step = exchange.request_end(Completeness::Whole);
    (exchange, step)
}

fn serve(core: &Arc<Core>, tokens: &[u32], status: u16) -> SocketAddr {
    let (mut exchange, step) = begin(core, b"/v1/completions", &json!({ "model": "m", "prompt": tokens }));
    assert!(matches!(step, Step::Send));
    let address = exchange.dispatch().unwrap().plan.first().spec.address;
    let report =
        UpstreamReport { status, address: Some(address), attempts: Some(1), timed: true, ..Default::default() };
    exchange.response_head(report);
    address
}

fn store(row: &mut Row, tokens: &[u32]) {
    let chain = TokenPrompt { tokens, adapter: None, salt: None }.chain(16, 1000);
    let blocks: Vec<_> = chain.hashes().iter().map(|hash| StoredBlock { key: *hash, hash: *hash }).collect();
    row.store(None, &blocks, Tier::Device).unwrap();
}

#[test]
fn token_ids_are_asked_for_with_the_name_of_the_model_that_serves() {
    let mut fleet = fleet();
    let rule = Rewrite { models: vec!["public".into()], targets: vec![("m".into(), 1)] };
    let policies = Policies { rewrites: vec![rule], ..Policies::default() };
    fleet.core.policies.publish(PolicyBook::new(policies, [].into()));
    let body =
        json!({ "model": "public", "messages": [{ "role": "user", "content": "once upon a time ".repeat(99) }] });
    let (_exchange, step) = begin(&fleet.core, b"/v1/chat/completions", &body);
    assert!(matches!(step, Step::Wait(_)));
    let asked: serde_json::Value = serde_json::from_slice(&fleet.worker.next_body().unwrap()).unwrap();
    assert_eq!((&asked["model"], &asked["messages"]), (&json!("m"), &body["messages"]));
}

#[test]
fn a_prompt_goes_where_its_engine_tells_that_it_is_cached() {
    let mut fleet = fleet();
    for (at, from) in [(5, 0), (2, 10_000), (7, 20_000)] {
        store(&mut fleet.rows[at], &tokens(from));
        let longer: Vec<u32> = tokens(from).into_iter().chain(0..100).collect();
        assert_eq!(serve(&fleet.core, &longer, 200), fleet.addresses[at]);
    }
    let body = json!({ "model": "m", "prompt": tokens(10_000) }).to_string().into_bytes();
    let explained = explain(&fleet.core, "/v1/completions", None, &[], body);
    let note = "the prompt is token ids: of 800 tokens cached there: 784, at most anywhere: 784";
    assert!(explained.notes.iter().any(|said| said == note), "{:?}", explained.notes);
}

#[test]
fn what_an_engine_lost_is_not_believed_any_longer() {
    let mut fleet = fleet();
    let home = serve(&fleet.core, &tokens(0), 200);
    let at = fleet.addresses.iter().position(|address| *address == home).unwrap();
    store(&mut fleet.rows[at], &tokens(0));
    fleet.rows[at].clear();
    let other = (at + 1) % 8;
    store(&mut fleet.rows[other], &tokens(0));
    assert_eq!(serve(&fleet.core, &tokens(0), 200), fleet.addresses[other]);
}

#[test]
fn equal_prompts_go_together_before_any_engine_tells_of_them() {
    let fleet = fleet();
    let home = serve(&fleet.core, &tokens(0), 200);
    (0..5).for_each(|_| assert_eq!(serve(&fleet.core, &tokens(0), 200), home));
    let failed = serve(&fleet.core, &tokens(50_000), 500);
    let body = json!({ "model": "m", "prompt": tokens(50_000) }).to_string().into_bytes();
    let explained = explain(&fleet.core, "/v1/completions", None, &[], body);
    assert!(explained.notes.iter().any(|note| note.ends_with("at most anywhere: 0")), "{failed} {:?}", explained.notes);
}

#[test]
fn a_lookup_that_does_not_end_is_done_without() {
    let fleet = fleet();
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "apples ".repeat(200) }] });
    let (mut exchange, step) = begin(&fleet.core, b"/v1/chat/completions", &chat);
    assert!(matches!(step, Step::Wait(_)), "{step:?}");
    assert!(matches!(exchange.give_up_waiting(), Step::Send));
    assert_eq!(exchange.dispatch().unwrap().strategy, "prefix-cache");
    // The worker is gone, and with it every question.
    let (mut exchange, step) = begin(&fleet.core, b"/v1/chat/completions", &chat);
    assert!(matches!(step, Step::Wait(_)));
    drop(fleet.worker);
    assert!(matches!(exchange.resume(), Step::Send));
    let (_, step) = begin(&fleet.core, b"/v1/chat/completions", &chat);
    assert!(matches!(step, Step::Send), "nobody is asked");
}

#[test]
fn a_dry_run_does_not_wait() {
    let fleet = fleet();
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "apples ".repeat(200) }] });
    let explained = explain(&fleet.core, "/v1/chat/completions", None, &[], chat.to_string().into_bytes());
    assert!(explained.notes.iter().any(|note| note.contains("guessed by the text")), "{:?}", explained.notes);
}
