//! What every registered strategy must hold to. A new one is covered the moment it is listed.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::json;

use crate::domain::{Clock, EndpointId, EndpointSpec, Gauge, Gauges, Moment, StrategySpec, Work};
use crate::index::Chain;
use crate::state::{Endpoint, Ticket};

use super::*;

pub(super) fn view(seed: u64) -> RequestView<'static> {
    static ASKED: LazyLock<Asked> = LazyLock::new(|| Asked { model: "m".into(), ..Asked::default() });
    let now = Moment::from_micros(10_000_000);
    RequestView { asked: &ASKED, adapter_of: None, now, seed, stale_after: Duration::from_secs(5) }
}

pub(super) fn fleet_of(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let endpoint = |(slot, weight): (u32, &u32)| {
        let address = SocketAddr::from(([127, 0, 0, 1], 1000 + slot as u16));
        let spec = EndpointSpec { weight: *weight, ..EndpointSpec::at(address) };
        Arc::new(Endpoint::new(EndpointId { slot, generation: 0 }, spec, Arc::default()))
    };
    (0..).zip(weights).map(endpoint).collect()
}

pub(super) fn fleet(size: usize) -> Vec<Arc<Endpoint>> {
    fleet_of(&vec![1; size])
}

pub(super) fn send(router: &dyn Router, seed: u64, fleet: &[Arc<Endpoint>]) -> Arc<Endpoint> {
    let decided = decide(router, &view(seed), fleet, 1, &mut Trace::off()).unwrap();
    Arc::clone(decided.expect("a strategy without a queue does not wait").first())
}

/// Every registered strategy, and beside them named ones and combinations of all that combine; built anew each time.
fn built() -> Vec<Strategy> {
    built_with_set().1
}

fn built_with_set() -> (StrategySet, Vec<Strategy>) {
    let specs: BTreeMap<String, StrategySpec> = serde_json::from_value(json!({
        "drawn": { "scorers": [{ "use": "least-request" }, { "use": "power-of-two" }], "picker": "weighted-random" },
        "two": { "scorers": [{ "use": "least-request", "weight": 3, "scale": 8 }], "picker": "best-of-two" },
        "own": { "scorers": [{ "use": "prefix-cache-preble", "parameters": { "balance": 2 } }] },
        "turns": { "use": "round-robin", "fallback": ["least-request"] },
    }))
    .unwrap();
    let models = BTreeMap::new();
    let given = Configured { prefix_bytes: 1 << 20, ..Configured::of("least-request", &specs, &models) };
    let set = StrategySet::configured(given).unwrap();
    let combinable: Vec<_> = names().into_iter().filter(|name| set.is_combinable(name)).collect();
    let pairs = combinable.windows(2).map(|pair| format!("{}:3,{}", pair[0], pair[1]));
    let combinations = pairs.chain([combinable.join(",")]).map(|text| set.resolve(&text).unwrap());
    let single = set.names().into_iter().filter_map(|name| set.named(&name).cloned());
    let all = single.chain(combinations).collect();
    (set, all)
}

fn for_each_strategy(test: impl Fn(&str, &dyn Router)) {
    for strategy in built() {
        test(&strategy.name, &*strategy.router);
    }
}

#[test]
fn every_choice_is_a_candidate_and_a_single_one_is_always_chosen() {
    for_each_strategy(|name, router| {
        let all = fleet(20);
        for size in [1, 2, 3, 20] {
            for seed in 0..50 {
                let chosen = send(router, seed, &all[..size]);
                assert!(all[..size].iter().any(|e| e.id == chosen.id), "{name}");
            }
        }
    });
}

#[test]
fn missing_and_lying_gauges_do_no_harm() {
    for_each_strategy(|_, router| {
        let fleet = fleet(4);
        for (endpoint, lie) in fleet.iter().zip([f64::NAN, 1e300, 0.0]) {
            let page = Gauge::ALL.into_iter().fold(Gauges::default(), |page, gauge| page.with(gauge, lie));
            endpoint.live.publish(&page, endpoint.live.mark(), view(0).now);
        }
        for seed in 0..50 {
            send(router, seed, &fleet);
        }
    });
}

#[test]
fn equal_endpoints_share_the_load_evenly() {
    for_each_strategy(|name, router| {
        let fleet = fleet(8);
        let mut counts: HashMap<EndpointId, u32> = HashMap::new();
        for seed in 0..8000 {
            *counts.entry(send(router, seed, &fleet).id).or_default() += 1;
        }
        for endpoint in &fleet {
            let count = counts.get(&endpoint.id).copied().unwrap_or(0);
            assert!((850..=1150).contains(&count), "{name} sent {count} of 8000 to one of 8");
        }
    });
}

#[test]
fn the_same_seeds_give_the_same_choices() {
    let fleet = fleet(5);
    let run = |strategy: Strategy| (0..100).map(|seed| send(&*strategy.router, seed, &fleet).id).collect::<Vec<_>>();
    for (one, other) in built().into_iter().zip(built()) {
        let name = Arc::clone(&one.name);
        assert_eq!(run(one), run(other), "{name}");
    }
}

/// One of a few prompts of ten blocks.
fn prompt(which: u64) -> Asked {
    let hashes: Vec<u64> = (0..10).map(|at| (which << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let work = Work { prompt_tokens: 640, output_tokens: 100 };
    Asked { work, prefix: Chain::of_hashes(&hashes), ..view(0).asked.clone() }
}

#[test]
fn a_removed_endpoint_leaves_nothing_to_the_next_in_its_slot() {
    let (set, strategies) = built_with_set();
    for (place, Strategy { name, router, .. }) in strategies.into_iter().enumerate() {
        // Each gets slots of its own: what is known of prefixes is everybody's.
        let mut fleet = fleet(2 * place + 2).split_off(2 * place);
        let prompts: Vec<_> = (0..20).map(prompt).collect();
        let request = |at: usize, seconds: u64| RequestView {
            asked: &prompts[at],
            now: view(0).now + Duration::from_secs(seconds),
            ..view(at as u64)
        };
        // All goes to one endpoint; of the last two one is still being answered when it leaves, and one is not.
        let mut expected: Vec<_> = (0..20)
            .map(|at| {
                router.route(&request(at, 0), Candidates::all(&fleet[..1]).unwrap(), &mut Trace::off());
                router.on_sent(&request(at, 0), &fleet[0])
            })
            .collect();
        let unanswered = expected.pop().flatten();
        let late = expected.into_iter().flatten().map(|it| it.come_true(fleet[0].id, request(0, 0).now)).last();
        set.on_endpoint_removed(fleet[0].id);
        let id = EndpointId { generation: 1, ..fleet[0].id };
        fleet[0] = Arc::new(Endpoint::new(id, fleet[0].spec.clone(), Arc::default()));

        // Both get the same to do, and then news of what is over comes.
        let new = prompt(100);
        let later = RequestView { asked: &new, ..request(0, 100) };
        let _work: Vec<_> = fleet.iter().map(|endpoint| router.on_sent(&later, endpoint)).collect();
        drop(unanswered);
        if let Some(mut answering) = late {
            answering.first_token(later.now);
        }
        let chosen = |seed: u64| {
            let request = RequestView { seed, ..request(seed as usize % 19, 100) };
            decide(&*router, &request, &fleet, 1, &mut Trace::off()).unwrap().unwrap().first().id
        };
        let count = (0..200).filter(|seed| chosen(*seed) == id).count();
        assert!((70..=130).contains(&count), "{name}: {count} of 200");
    }
}

#[test]
fn load_aware_strategies_avoid_the_busy_endpoint() {
    for name in ["least-request", "power-of-two", "least-request:2,power-of-two"] {
        let set = StrategySet::build(name).unwrap();
        let fleet = fleet(2);
        let _busy: Vec<_> =
            (0..5).map(|_| Ticket::open(Arc::clone(&fleet[0]), Work::default(), &Clock::start())).collect();
        for seed in 0..50 {
            assert_eq!(send(&*set.default_strategy().router, seed, &fleet).id, fleet[1].id, "{name}");
        }
    }
}

#[test]
fn names_are_unique_and_an_unknown_one_lists_them() {
    let mut sorted = names();
    sorted.dedup();
    assert_eq!(sorted.len(), STRATEGIES.len());
    let error = StrategySet::build("fastest").unwrap_err().to_string();
    assert!(error.contains("\"fastest\"") && error.contains("round-robin"), "{error}");
}

#[test]
fn no_alias_is_a_name_or_another_alias() {
    let aliases = STRATEGIES.iter().flat_map(|registration| registration.aliases.iter().map(|(alias, _)| *alias));
    let mut all: Vec<_> = names().into_iter().chain(aliases).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}
