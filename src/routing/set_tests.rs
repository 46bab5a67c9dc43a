use std::collections::BTreeMap;

use base64::Engine;
use serde_json::{Value, json};

use crate::domain::{Clock, Complaint, Gauge, Gauges, ModelProfiles, StrategySpec, Work, parse_annotation};
use crate::state::Ticket;

use super::conformance::{fleet, send, view};
use super::*;

fn configured(
    algorithm: &str,
    header: bool,
    strategies: &Value,
    models: &Value,
) -> Result<StrategySet, Vec<Complaint>> {
    let strategies: BTreeMap<String, StrategySpec> = serde_json::from_value(strategies.clone()).unwrap();
    let models: BTreeMap<String, ModelProfiles> = serde_json::from_value(models.clone()).unwrap();
    let given = Configured { header, ..Configured::of(algorithm, &strategies, &models) };
    StrategySet::configured(given).map_err(|invalid| invalid.0)
}

fn named(strategies: &Value) -> StrategySet {
    configured("least-request", true, strategies, &json!({})).unwrap()
}

fn complaints(strategies: &Value) -> Vec<String> {
    let complaints = configured("least-request", true, strategies, &json!({})).unwrap_err();
    complaints.iter().map(|complaint| format!("{}: {}", complaint.path.join("/"), complaint.message)).collect()
}

#[test]
fn a_combination_is_one_strategy_whatever_way_it_is_written() {
    let set = named(&json!({}));
    let one = set.resolve("least-request:2, power-of-two").unwrap();
    let same = set.resolve("least-request,power-of-two:1,least-request:1,random:0").unwrap();
    assert_eq!((&*one.name, one.index), ("least-request:2,power-of-two:1", set.names().len() - 1));
    assert!(Arc::ptr_eq(&one.router, &same.router));
    assert_eq!((set.combinations_built(), set.names().last().unwrap().as_ref()), (1, COMBINATION));
    assert_eq!(&*set.resolve(" least-request : 7 ").unwrap().name, "least-request");
}

#[test]
fn clients_cannot_make_us_keep_ever_more_combinations() {
    let set = named(&json!({}));
    for weight in 2..1000 {
        set.resolve(&format!("least-request:{weight},power-of-two")).unwrap();
    }
    assert_eq!((set.combined().len(), set.combinations_built()), (64, 998));
    set.resolve("least-request:999,power-of-two").unwrap();
    assert_eq!(set.combinations_built(), 998);
}

#[test]
fn what_cannot_be_resolved_says_why() {
    let set = named(&json!({}));
    for (text, message) in [
        ("fastest", "there is no strategy \"fastest\"; known are "),
        ("least-request,fastest:2", "there is no strategy \"fastest\""),
        ("least-request,random", "\"random\" cannot be combined"),
        ("least-request,", "item 2 is empty"),
        ("random,pd", "there is no strategy \"pd\""),
    ] {
        let error = set.resolve(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn named_strategies_are_used_like_registered_ones() {
    let set = named(&json!({
        "mix": { "scorers": [{ "use": "least-request", "weight": 2 }, { "use": "power-of-two", "scale": 4.0 }],
                 "picker": "weighted-random" },
        "turns": { "use": "round-robin", "fallback": ["least-request", "random"] },
    }));
    let names = set.names();
    assert_eq!(names[names.len() - 3..], ["mix".into(), "turns".into(), COMBINATION.into()]);
    for name in ["mix", "turns"] {
        let strategy = set.resolve(name).unwrap();
        assert_eq!(names[strategy.index].as_ref(), name);
        send(&*strategy.router, 1, &fleet(3));
    }
    assert_eq!(&*set.resolve("mix:3,least-request").unwrap().name, "mix:3,least-request:1");
    assert!(set.resolve("turns,least-request").is_err());
}

#[test]
fn a_new_session_is_left_to_the_fallback_and_one_whose_home_is_gone_gets_a_new_home() {
    let sticky = json!({ "use": "session-affinity", "fallback": ["least-kv-cache"] });
    let strategy = named(&json!({ "sticky": sticky })).resolve("sticky").unwrap();
    let fleet = fleet(3);
    for (endpoint, usage) in fleet.iter().zip([0.5, 0.1, 0.5]) {
        let page = Gauges::default().with(Gauge::KvUsage, usage).with(Gauge::Running, 0.0);
        endpoint.live.publish(&page, endpoint.live.mark(), view(0).now);
    }
    let open = |at: usize| Ticket::open(Arc::clone(&fleet[at]), Work::default(), &Clock::start());
    let _busy = [open(0), open(1), open(1)];
    let chosen = |key: Option<&str>, endpoints: &[Arc<Endpoint>]| {
        let asked = Asked { model: "m".into(), session_id: key.map(Into::into), ..Asked::default() };
        let mut trace = Trace::on();
        let request = RequestView { asked: &asked, ..view(1) };
        let plan = decide(&*strategy.router, &request, endpoints, 1, &mut trace).unwrap().unwrap();
        assert!(!trace.is_degraded());
        (plan.first().id.slot, trace.into_record().unwrap().notes)
    };
    let (new, notes) = chosen(None, &fleet);
    assert_eq!((new, notes[1].as_str()), (1, "without a home: least-kv-cache decides"));
    // A key is a home, wherever it leads.
    assert_eq!(chosen(Some("anna"), &fleet).1.len(), 1);
    // An id that names nobody here: the fewest open requests decide, the fallback is not asked.
    let gone = base64::engine::general_purpose::STANDARD.encode("127.0.0.1:22");
    let mut asked = Asked { model: "m".into(), ..Asked::default() };
    asked.headers.keep("x-session-id", &gone);
    let mut trace = Trace::on();
    let request = RequestView { asked: &asked, ..view(1) };
    let plan = decide(&*strategy.router, &request, &fleet, 1, &mut trace).unwrap().unwrap();
    assert_eq!(plan.first().id.slot, 2);
    assert_eq!(trace.into_record().unwrap().notes, ["the session's endpoint is gone or not ready"]);
}

#[test]
fn every_fault_of_named_strategies_is_found_with_its_path() {
    let found = complaints(&json!({
        "random": { "use": "random" },
        "a b": { "use": "random" },
        "both": { "use": "random", "scorers": [{ "use": "least-request" }] },
        "neither": {},
        "typo": { "use": "least-requests" },
        "params": { "use": "random", "parameters": { "x": 1 } },
        "scorers": { "scorers": [{ "use": "least-request", "scale": 0.0 }, { "use": "random", "weight": 1_000_001 }],
                     "fallback": ["nobody"], "filters": ["least-request"] },
        "slo-own": { "use": "random" },
        "slow": { "use": "random" },
        "zero": { "scorers": [{ "use": "least-request", "weight": 0 }] },
    }));
    let expected = [
        "routing/strategies/a b: a name is",
        "routing/strategies/both: needs either `use`",
        "routing/strategies/neither: needs either `use`",
        "routing/strategies/params/parameters: there is no parameter \"x\"",
        "routing/strategies/random: there is a strategy of that name already",
        "routing/strategies/scorers/scorers/0/scale: is not a number above 0",
        "routing/strategies/scorers/scorers/1/weight: is not within",
        "routing/strategies/scorers/scorers/1/use: \"random\" does not score",
        "routing/strategies/scorers/filters/0: no strategy \"least-request\" has filters",
        "routing/strategies/scorers/fallback/0: there is no registered strategy \"nobody\"",
        "routing/strategies/slo-own: `pd`, `slo` and what begins with `slo-` stand for",
        "routing/strategies/typo/use: there is no strategy \"least-requests\"; did you mean \"least-request\"?",
        "routing/strategies/zero/scorers: every weight is 0",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

fn choose(set: &StrategySet, wish: Wish<'_>, model: &str, prompt_tokens: u32) -> (String, Option<String>) {
    let work = Work { prompt_tokens, output_tokens: 1 };
    let asked = Asked { model: model.into(), work, ..Asked::default() };
    let choice = set.choose(wish, &asked, Some("base"), None).unwrap();
    (choice.strategy.name.to_string(), choice.profile.map(|name| name.to_string()))
}

#[test]
fn a_lock_goes_before_the_header_before_the_profile_before_the_default() {
    let profiles = json!({ "default": { "strategy": "round-robin" }, "long": { "when": { "prompt_tokens_gte": 10 } } });
    let models = json!({
        "locked": { "locked": "power-of-two", "profiles": profiles },
        "open": { "profiles": profiles },
        "base": { "profiles": { "default": { "strategy": "round-robin" } } },
    });
    let set = configured("random", true, &json!({}), &models).unwrap();
    let header = Wish { strategy: Some("least-request"), profile: None };
    let auto = Wish { strategy: None, profile: Some("auto") };
    let some = |strategy: &str, profile: &str| (strategy.to_owned(), Some(profile.to_owned()));
    assert_eq!(choose(&set, header, "locked", 0), some("power-of-two", "default"));
    assert_eq!(choose(&set, header, "open", 0), some("least-request", "default"));
    assert_eq!(choose(&set, Wish::default(), "open", 0), some("round-robin", "default"));
    assert_eq!(
        choose(&set, auto, "open", 10),
        some("random", "long"),
        "a profile without a strategy leaves the default"
    );
    assert_eq!(
        choose(&set, Wish::default(), "adapter", 0),
        some("round-robin", "default"),
        "profiles of its base model"
    );
    let closed = configured("random", false, &json!({}), &json!({})).unwrap();
    assert_eq!(choose(&closed, header, "any", 0), ("random".to_owned(), None));
}

#[test]
fn what_comes_with_the_endpoints_counts_where_the_configuration_says_nothing() {
    let set = configured("random", true, &json!({}), &json!({ "own": { "locked": "round-robin" } })).unwrap();
    let published = parse_annotation(r#"{"lockedRoutingStrategy":"nonsense","profiles":{"p":{}}}"#).unwrap();
    let choose = |model: &str, strategy| {
        let asked = Asked { model: model.into(), ..Asked::default() };
        let choice = set.choose(Wish { strategy, profile: None }, &asked, None, Some(&published)).unwrap();
        (choice.strategy.name.to_string(), choice.in_vain.map(|in_vain| in_vain.text))
    };
    assert_eq!(choose("own", None), ("round-robin".into(), None));
    let in_vain = ("random".to_owned(), Some("nonsense".to_owned()));
    assert_eq!(choose("other", None), in_vain);
    assert_eq!(choose("other", Some("least-request")), in_vain, "a lock keeps clients out, whatever it says");
    assert_eq!(choose("other", Some("fastest")), in_vain);
}

#[test]
fn only_what_the_client_asks_for_is_its_fault() {
    let set = configured("random", true, &json!({}), &json!({})).unwrap();
    let published = parse_annotation(r#"{"profiles":{"default":{"routingStrategy":"pd"},"b":{}}}"#).unwrap();
    let asked = Asked { model: "m".into(), ..Asked::default() };
    let choose = |strategy, profile| set.choose(Wish { strategy, profile }, &asked, None, Some(&published));
    assert!(matches!(choose(Some("pd"), None), Err(ChoiceError::Unknown { name, .. }) if name == "pd"));
    assert_eq!(choose(None, None).unwrap().in_vain.unwrap().text, "pd");
    assert!(choose(Some("random"), None).unwrap().in_vain.is_none());
    assert!(choose(None, Some("b")).unwrap().in_vain.is_none());
}

#[test]
fn a_wish_is_refused_before_the_body_only_if_no_lock_can_go_before_it() {
    let wish = Wish { strategy: Some("fastest"), profile: None };
    let set = |header, models| configured("random", header, &json!({}), &models).unwrap();
    assert!(set(true, json!({})).check_wish(wish, false).is_err());
    assert!(set(true, json!({})).check_wish(wish, true).is_ok());
    assert!(set(true, json!({ "m": { "locked": "random" } })).check_wish(wish, false).is_ok());
    assert!(set(false, json!({})).check_wish(wish, false).is_ok());
}

#[test]
fn profiles_and_the_default_are_checked_too() {
    let models = json!({ "m": { "locked": "a", "default": "chat", "profiles": { "chats": { "strategy": "b:x" } } } });
    let found = configured("c,", true, &json!({}), &models).unwrap_err();
    let paths: Vec<_> = found.iter().map(|complaint| complaint.path.join("/")).collect();
    let expected = [
        "routing/algorithm",
        "routing/models/m/locked",
        "routing/models/m/profiles/chats/strategy",
        "routing/models/m/default",
    ];
    assert_eq!(paths, expected);
    assert!(found[3].message.contains("did you mean \"chats\"?"), "{found:?}");
}

#[test]
fn what_nobody_configured_is_not_needed_from_the_start() {
    let set = configured("least-request", true, &json!({}), &json!({})).unwrap();
    assert_eq!(*set.needs_always(), set.last_resort().router.needs());
    let default = configured("random", true, &json!({ "turns": { "use": "round-robin" } }), &json!({})).unwrap();
    assert_eq!(default.needs_always().gauges, set.last_resort().router.needs().gauges);
}

#[test]
fn a_strategy_that_did_not_change_is_the_same_one_after_a_reload() {
    let before = named(&json!({
        "kept": { "use": "round-robin" },
        "own": { "use": "least-latency", "parameters": { "buffer": 0.5 } },
        "gone": { "use": "random" },
    }));
    before.resolve("least-request:2,power-of-two").unwrap();
    let strategies: BTreeMap<String, StrategySpec> = serde_json::from_value(json!({
        "first": { "use": "random" },
        "kept": { "use": "round-robin" },
        "own": { "use": "least-latency", "parameters": { "buffer": 0.25 } },
    }))
    .unwrap();
    let models = BTreeMap::new();
    let after = before.renewed(Configured::of("kept", &strategies, &models)).unwrap();
    let is_same = |name: &str| {
        let [before, after] = [&before, &after].map(|set| Arc::clone(&set.named(name).unwrap().router));
        Arc::ptr_eq(&before, &after)
    };
    assert!(is_same("round-robin") && is_same("kept") && is_same("prefix-cache") && !is_same("own"));
    assert!(after.named("gone").is_none() && Arc::ptr_eq(before.prefixes(), after.prefixes()));
    assert_eq!((&*after.default_strategy().name, after.combinations_built()), ("kept", 1));
    for (index, name) in after.names().iter().enumerate().filter(|(_, name)| ***name != *COMBINATION) {
        assert_eq!(after.named(name).unwrap().index, index, "{name}");
    }
    let another_key =
        Configured { session_key_file: Some("no/such/key".as_ref()), ..Configured::of("kept", &strategies, &models) };
    assert!(after.renewed(another_key).is_err(), "a file that cannot be read keeps the old ones");
}
