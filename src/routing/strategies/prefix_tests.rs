//! What the strategies that go by prefixes have in common, and where they differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::{Clock, Gauge, Gauges, Moment, Work};
use crate::index::Chain;
use crate::routing::conformance::{fleet, fleet_of, view};
use crate::routing::prefix::{Answering, Expectation, Prefixes};
use crate::routing::{
    Asked, Candidates, Configured, Decision, Parameters, RequestView, Router, ScoreRecord, StrategySet, Trace, decide,
};
use crate::state::{Endpoint, Ticket};

use super::STRATEGIES;

const BY_PREFIX: [&str; 3] = ["prefix-cache", "prefix-cache-preble", "token-load"];
/// Tokens in a block; at the usual rate, 4 ms of prefill.
const BLOCK: u32 = 64;

/// A fleet in the hands of one strategy.
struct Rig {
    router: Arc<dyn Router>,
    prefixes: Arc<Prefixes>,
    fleet: Vec<Arc<Endpoint>>,
}

/// A prompt of so many blocks; those of the same letter begin alike.
fn asked(prompt: u64, blocks: u32) -> Asked {
    branch(prompt, blocks, prompt, 0)
}

/// A prompt that begins as `prompt` does and goes on as `other` does.
fn branch(prompt: u64, blocks: u32, other: u64, more: u32) -> Asked {
    let hash = |at: u32| {
        let whose = if at < blocks { prompt } else { other | 1 << 20 };
        (whose << 32 | u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hashes: Vec<u64> = (0..blocks + more).map(hash).collect();
    let work = Work { prompt_tokens: (blocks + more) * BLOCK, output_tokens: 0 };
    Asked { work, prefix: Chain::of_hashes(&hashes), ..Asked::default() }
}

fn at(millis: u64) -> Moment {
    Moment::from_micros(10_000_000 + millis * 1000)
}

impl Rig {
    fn new(name: &str, parameters: &Value, size: usize) -> Self {
        let prefixes = Arc::new(Prefixes::new(4 << 20));
        let registration = STRATEGIES.iter().find(|known| known.name == name).unwrap();
        let parameters = Parameters::new(parameters.as_object().unwrap().clone()).sharing(&prefixes);
        let router = (registration.build)(&parameters).unwrap().into_router();
        Self { router, prefixes, fleet: fleet(size) }
    }

    fn view(asked: &Asked, millis: u64, seed: u64) -> RequestView<'_> {
        RequestView { asked, now: at(millis), ..view(seed) }
    }

    /// Where a prompt would go.
    fn choice(&self, asked: &Asked, millis: u64, seed: u64) -> usize {
        let request = Self::view(asked, millis, seed);
        match self.router.route(&request, Candidates::all(&self.fleet).unwrap(), &mut Trace::off()) {
            Decision::Send(chosen) => self.fleet.iter().position(|endpoint| endpoint.id == chosen.id).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends it to an endpoint, whichever would be chosen.
    fn send_to(&self, to: usize, asked: &Asked, millis: u64) -> Expectation {
        self.router.on_sent(&Self::view(asked, millis, 1), &self.fleet[to]).unwrap()
    }

    /// The same, and lets it begin to answer.
    fn serve_at(&self, to: usize, asked: &Asked, millis: u64) -> Answering {
        self.send_to(to, asked, millis).come_true(self.fleet[to].id, at(millis))
    }

    /// Routes and serves.
    fn serve(&self, asked: &Asked, millis: u64, seed: u64) -> usize {
        let to = self.choice(asked, millis, seed);
        drop(self.serve_at(to, asked, millis));
        to
    }
}

#[test]
fn cold_prompts_of_a_moment_do_not_herd_to_whoever_holds_least() {
    for name in BY_PREFIX {
        let rig = Rig::new(name, &json!({}), 8);
        // All but one hold something; that one is the smallest tree.
        (0..7).for_each(|to| drop(rig.serve_at(to, &asked(to as u64, 50), 0)));
        let mut counts = [0; 8];
        (0..64).for_each(|n| counts[rig.serve(&asked(100 + n, 50), 300_000, n)] += 1);
        assert!(counts.iter().all(|count| (4..=12).contains(count)), "{name}: {counts:?}");
    }
}

#[test]
fn an_endpoint_of_three_times_the_weight_gets_three_times_the_requests() {
    for name in ["prefix-cache", "token-load"] {
        let rig = Rig { fleet: fleet_of(&[1, 3]), ..Rig::new(name, &json!({}), 0) };
        let open = |at: usize| Ticket::open(Arc::clone(&rig.fleet[at]), Work::default(), &Clock::start());
        let (mut counts, mut tickets) = ([0; 2], Vec::new());
        for n in 0..80 {
            let to = rig.serve(&asked(n, 10), n * 1000, n);
            counts[to] += 1;
            tickets.push(open(to));
        }
        assert!((18..=22).contains(&counts[0]), "{name}: {counts:?}");
    }
}

#[test]
fn a_conversation_stays_where_it_began_and_the_next_one_begins_elsewhere() {
    for name in BY_PREFIX {
        let rig = Rig::new(name, &json!({}), 4);
        let homes = [1, 2, 3].map(|talk| rig.serve(&asked(talk, 20), talk, talk));
        let mut distinct = homes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 3, "{name}");
        for turn in 1..20_u64 {
            for (talk, home) in (1..).zip(homes) {
                let seed = turn * 10 + talk;
                assert_eq!(rig.serve(&asked(talk, 20 + 2 * turn as u32), turn * 1000, seed), home, "{name}");
            }
        }
    }
}

#[test]
fn two_models_with_fleets_of_their_own_do_not_wipe_each_other() {
    for name in BY_PREFIX {
        let mut rig = Rig::new(name, &json!({}), 6);
        let mut others = rig.fleet.split_off(4);
        let model = |rig: &mut Rig, others: &mut Vec<_>| std::mem::swap(&mut rig.fleet, others);
        let first = rig.serve(&asked(1, 30), 0, 1);
        model(&mut rig, &mut others);
        let second = rig.serve(&asked(2, 30), 1, 2);
        for turn in 1..10_u64 {
            model(&mut rig, &mut others);
            assert_eq!(rig.serve(&asked(1, 30 + turn as u32), turn * 1000, turn), first, "{name}");
            model(&mut rig, &mut others);
            assert_eq!(rig.serve(&asked(2, 30 + turn as u32), turn * 1000, turn), second, "{name}");
        }
    }
}

#[test]
fn what_is_sent_by_one_strategy_is_found_by_another() {
    let set = StrategySet::build("token-load").unwrap();
    let fleet = fleet(8);
    let prompt = asked(1, 100);
    let request = RequestView { asked: &prompt, ..view(1) };
    let expectation = set.default_strategy().router.on_sent(&request, &fleet[3]);
    assert!(expectation.is_some());
    let request = RequestView { now: request.now + Duration::from_secs(1), ..request };
    for text in ["prefix-cache", "prefix-cache-preble", "prefix-cache:2,least-request:1", "prefix-cache-preble:1"] {
        let router = set.resolve(text).unwrap().router;
        let choice = router.route(&request, Candidates::all(&fleet).unwrap(), &mut Trace::off());
        assert!(matches!(choice, Decision::Send(chosen) if chosen.id.slot == 3), "{text}");
    }
    set.on_endpoint_removed(fleet[3].id);
    assert_eq!(set.prefixes().stats().held, 0);
}

#[test]
fn a_combination_learns_where_prompts_went_and_weighs_match_against_load() {
    let set = StrategySet::build("least-request").unwrap();
    let fleet = fleet(4);
    let prompt = asked(1, 20);
    let request = RequestView { asked: &prompt, ..view(1) };
    let chosen = |text: &str, seed: u64| {
        let strategy = set.resolve(text).unwrap();
        assert!(strategy.needs.prefix, "{text}");
        let request = RequestView { seed, ..request };
        match strategy.router.route(&request, Candidates::all(&fleet).unwrap(), &mut Trace::off()) {
            Decision::Send(chosen) => chosen.id.slot,
            other => panic!("{other:?}"),
        }
    };
    let combination = set.resolve("least-request:1,prefix-cache:2").unwrap();
    drop(combination.router.on_sent(&request, &fleet[2]).unwrap().come_true(fleet[2].id, request.now));
    let busy = Ticket::open(Arc::clone(&fleet[2]), Work::default(), &Clock::start());
    for seed in 0..20 {
        assert_eq!(chosen("prefix-cache:2,least-request:1", seed), 2);
        assert_ne!(chosen("prefix-cache:1,least-request:2", seed), 2);
    }
    drop(busy);
    assert_eq!(chosen("prefix-cache:1,least-request:2", 1), 2);
}

#[test]
fn the_order_of_names_in_a_combination_does_not_matter_to_what_is_learned() {
    let prompt = asked(1, 100);
    let request = RequestView { asked: &prompt, ..view(1) };
    let costs = ["prefix-cache:1,prefix-cache-preble:1", "prefix-cache-preble:1,prefix-cache:1"].map(|text| {
        let (set, fleet) = (StrategySet::build("random").unwrap(), fleet(2));
        let router = set.resolve(text).unwrap().router;
        let expectation = router.on_sent(&request, &fleet[0]).unwrap();
        assert_eq!(fleet[0].live.measured.expected_hits(request.now), Some(0.0), "it is booked once");
        drop(expectation.come_true(fleet[0].id, request.now));
        let mut trace = Trace::on();
        let later = RequestView { now: request.now + Duration::from_secs(30), ..request };
        router.route(&later, Candidates::all(&fleet).unwrap(), &mut trace);
        let scores = trace.into_record().unwrap().scores;
        let cost = |score: &&ScoreRecord| score.scorer == "preble-cost" && score.endpoint == fleet[0].id;
        scores.iter().find(cost).unwrap().score.value
    });
    assert!(costs[0] > 0.3 && (costs[0] - costs[1]).abs() < 1e-9, "{costs:?}");
}

#[test]
fn what_a_fallback_sends_is_found_again() {
    let specs = json!({ "sticky": { "use": "session-affinity", "fallback": ["prefix-cache"] } });
    let (specs, models) = (serde_json::from_value(specs).unwrap(), BTreeMap::new());
    let set = StrategySet::configured(Configured::of("sticky", &specs, &models)).unwrap();
    let (fleet, prompt) = (fleet(8), asked(1, 20));
    let chosen = |seed| {
        let request = RequestView { asked: &prompt, ..view(seed) };
        let router = &set.default_strategy().router;
        let plan = decide(&**router, &request, &fleet, 1, &mut Trace::off()).unwrap().unwrap();
        let expectation = router.on_sent(&request, plan.first()).unwrap();
        drop(expectation.come_true(plan.first().id, request.now));
        plan.first().id
    };
    let home = chosen(1);
    (2..20).for_each(|seed| assert_eq!(chosen(seed), home));
}

#[test]
fn token_load_holds_to_the_cache_until_that_endpoint_is_saturated() {
    let rig = Rig::new("token-load", &json!({ "saturation": 1 }), 4);
    drop(rig.serve_at(2, &asked(1, 100), 0));
    // 10,000 tokens ahead are 0.6 s.
    let _some = rig.send_to(2, &asked(2, 156), 1000);
    (0..20).for_each(|seed| assert_eq!(rig.choice(&asked(1, 110), 1000, seed), 2));
    let _more = rig.send_to(2, &asked(3, 156), 1000);
    (0..20).for_each(|seed| assert_ne!(rig.choice(&asked(1, 110), 1000, seed), 2));
    assert_eq!(rig.choice(&asked(1, 110), 1500, 1), 2, "time has passed");
    let always = Rig::new("token-load", &json!({ "saturation": 0 }), 4);
    drop(always.serve_at(2, &asked(1, 100), 0));
    let _much = always.send_to(2, &asked(2, 10_000), 1000);
    assert_eq!(always.choice(&asked(1, 110), 1000, 1), 2);
}

#[test]
fn token_load_shares_out_a_prefix_among_those_that_hold_it() {
    let rig = Rig::new("token-load", &json!({}), 4);
    for to in [1, 3] {
        drop(rig.serve_at(to, &asked(1, 100), 0));
    }
    let mut counts = [0; 4];
    (0..40).for_each(|n| counts[rig.serve(&branch(1, 100, n + 10, 10), 20_000, n)] += 1);
    assert_eq!(counts, [0, 20, 0, 20]);
    // Little in common is no reason to stay.
    let stray = rig.serve(&branch(1, 10, 99, 90), 20_000, 1);
    assert!(stray == 0 || stray == 2);
}

#[test]
fn a_first_token_says_that_a_prompt_is_prefilled() {
    for name in ["token-load", "prefix-cache"] {
        let rig = Rig::new(name, &json!({ "measure": true }), 2);
        assert!(rig.router.needs().answers.first_token);
        let mut long = rig.serve_at(0, &asked(1, 2000), 0);
        let _short = rig.serve_at(1, &asked(2, 500), 0);
        assert_eq!(rig.choice(&asked(3, 10), 100, 1), 1, "{name}");
        long.first_token(at(100));
        long.first_token(at(200));
        assert_eq!(rig.choice(&asked(3, 10), 100, 1), 0, "{name}");
    }
}

#[test]
fn an_engine_that_is_slow_by_its_own_word_gets_less() {
    for name in ["token-load", "prefix-cache"] {
        let rig = Rig::new(name, &json!({}), 2);
        // 100,000 and 1,000 tokens a second.
        for (endpoint, seconds) in rig.fleet.iter().zip([0.04, 4.0]) {
            let told = Gauges::default().with(Gauge::PromptLengthMean, 4000.0).with(Gauge::PrefillTimeMean, seconds);
            endpoint.live.publish(&told.with(Gauge::PrefixHitRate, 0.0), endpoint.live.mark(), at(0));
        }
        // What it takes to learn.
        let mut millis = 0;
        for n in 0..400 {
            for to in [0, 1] {
                drop(rig.serve_at(to, &asked(n, 60), 0));
            }
        }
        let mut counts = [0; 2];
        for n in 0..110 {
            millis += 2;
            let request = Rig::view(&asked(1000 + n, 60), 1_000_000 + millis, n).now;
            for endpoint in &rig.fleet {
                assert!(!endpoint.live.signals.is_fresh(request, Duration::from_secs(5)));
            }
            counts[rig.serve(&asked(1000 + n, 60), 1_000_000 + millis, n)] += 1;
        }
        assert!(counts[1] <= 4, "{name}: {counts:?}");
    }
}

#[test]
fn an_engine_that_began_anew_is_not_taken_to_hold_anything() {
    let rig = Rig::new("prefix-cache", &json!({}), 2);
    drop(rig.serve_at(1, &asked(1, 50), 0));
    rig.fleet[1].live.note_restart();
    rig.prefixes.upkeep(&rig.fleet, at(1));
    assert_eq!(rig.prefixes.stats().held, 0);
    drop(rig.serve_at(1, &asked(1, 50), 2));
    rig.prefixes.upkeep(&rig.fleet, at(3));
    assert_eq!(rig.prefixes.stats().held, 50);
}

#[test]
fn an_answer_knows_what_its_engine_was_taken_to_hold() {
    let rig = Rig::new("prefix-cache", &json!({}), 3);
    assert_eq!(rig.serve_at(0, &asked(1, 50), 0).cached_tokens(), 0);
    assert_eq!(rig.serve_at(0, &asked(1, 60), 0).cached_tokens(), 50 * 64);
    drop(rig.serve_at(2, &asked(1, 20), 0));
    // Sent to one, served by another.
    let answering = rig.send_to(0, &asked(1, 60), 1).come_true(rig.fleet[2].id, at(1));
    assert_eq!(answering.cached_tokens(), 20 * 64);
    // The size of a token follows the prompt's own.
    let mut dense = asked(1, 60);
    (dense.prompt_bytes, dense.work.prompt_tokens) = (60 * 256, 60 * 128);
    assert_eq!(rig.serve_at(0, &dense, 2).cached_tokens(), 60 * 128);
}

#[test]
fn preble_exploits_what_is_mostly_cached_and_explores_what_is_not() {
    let rig = Rig::new("prefix-cache-preble", &json!({}), 4);
    drop(rig.serve_at(2, &asked(1, 100), 0));
    drop(rig.serve_at(3, &asked(1, 60), 0));
    for to in [2, 3] {
        drop(rig.serve_at(to, &asked(10 + to as u64, 20), 0));
    }
    assert_eq!(rig.choice(&branch(1, 100, 5, 90), 1000, 1), 2, "more is cached than not");
    let explored = rig.choice(&branch(1, 100, 6, 110), 1000, 1);
    assert!(explored < 2, "those without work cost the fleet least");
}

#[test]
fn preble_takes_prompts_from_an_endpoint_with_more_than_its_share() {
    let rig = Rig::new("prefix-cache-preble", &json!({}), 3);
    drop(rig.serve_at(1, &asked(1, 100), 0));
    // Four seconds of other work, of which half a second is still to do.
    let _work = rig.serve_at(1, &asked(2, 1000), 1000);
    assert_eq!(rig.choice(&branch(1, 100, 5, 10), 4900, 1), 1, "the wait is shorter than what the cache saves");
    assert_ne!(rig.choice(&branch(1, 100, 5, 10), 3500, 1), 1);
    // Where all have as much, it keeps what it has.
    let _others = [0, 2].map(|to| rig.serve_at(to, &asked(3 + to as u64, 1000), 1000));
    assert_eq!(rig.choice(&branch(1, 100, 5, 10), 3500, 1), 1);
}

#[test]
fn a_prompt_of_short_tokens_does_not_make_a_cache_look_small() {
    let rig = Rig::new("prefix-cache", &json!({}), 1);
    let told = Gauges::default().with(Gauge::KvCapacity, 200.0 * f64::from(BLOCK));
    rig.fleet[0].live.publish(&told, rig.fleet[0].live.mark(), at(0));
    drop(rig.serve_at(0, &asked(1, 150), 0));
    // Four times the tokens to a block, as of numbers or another script.
    let mut dense = asked(2, 10);
    (dense.prompt_bytes, dense.work.prompt_tokens) = (10 * 256, 10 * 256);
    drop(rig.serve_at(0, &dense, 1));
    assert_eq!(rig.prefixes.index().blocks(rig.fleet[0].id, &asked(1, 150).prefix), 150);
}

#[test]
fn preble_spares_a_cache_that_is_in_use() {
    let rig = Rig::new("prefix-cache-preble", &json!({}), 2);
    // Both are full; only what the first one holds is asked for again.
    rig.fleet.iter().for_each(|endpoint| rig.prefixes.index().set_capacity(endpoint.id, 100));
    drop(rig.serve_at(0, &asked(1, 100), 0));
    drop(rig.serve_at(1, &asked(2, 100), 0));
    (0..5).for_each(|n| drop(rig.serve_at(0, &asked(1, 100), 100 + n)));
    for seed in 0..20 {
        assert_eq!(rig.choice(&asked(3, 90), 10_000, seed), 1);
    }
}
