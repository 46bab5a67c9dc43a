use crate::config::KubernetesDiscovery;

use super::*;

/// A pod's text form: labels, then annotations.
fn pod(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> PodFacts {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let (labels, annotations) = (map(labels), map(annotations));
    PodFacts { routable: Some([10, 0, 0, 1].into()), ranks: 1, labels, annotations }
}

fn found(facts: &PodFacts, pools: &[(&str, &PoolFacts)], adapters: &[&str]) -> Vec<EndpointSpec> {
    let rules = Rules::from(&KubernetesDiscovery::default());
    endpoints(&Name::new("llm", "pod-a"), facts, Around { rules: &rules, by_label: true, pools, adapters })
}

fn addresses(specs: &[EndpointSpec]) -> Vec<String> {
    specs.iter().map(|spec| spec.address.to_string()).collect()
}

const MODEL: (&str, &str) = ("model.aibrix.ai/name", "llama");

fn pool(ports: &[u16]) -> PoolFacts {
    let selector = BTreeMap::from([("app".to_owned(), "x".to_owned())]);
    PoolFacts { selector, ports: ports.to_vec(), ..PoolFacts::default() }
}

#[test]
fn labels_say_where_a_pod_serves_and_what() {
    let all = pod(
        &[
            MODEL,
            ("model.aibrix.ai/port", "8001"),
            ("model.aibrix.ai/metric-port", "9001"),
            ("model.aibrix.ai/engine", "sglang"),
            ("role-name", "decode"),
            ("fairlead/weight", "7"),
            ("fairlead/tier", "spot"),
        ],
        &[("fairlead/cost", "0.5"), ("fairlead/region", "eu")],
    );
    let specs = found(&all, &[], &["lora-b"]);
    let [spec] = specs.as_slice() else { panic!("{specs:?}") };
    assert_eq!(spec.address.to_string(), "10.0.0.1:8001");
    assert_eq!(spec.metrics_address().to_string(), "10.0.0.1:9001");
    assert_eq!(spec.models, [ModelSpec { name: "llama".to_owned(), adapters: vec!["lora-b".to_owned()] }]);
    assert_eq!((spec.engine, spec.role, spec.weight), (EngineKind::Sglang, Role::Decode, 7));
    assert_eq!((spec.tier.as_deref(), spec.region.as_deref(), &*spec.name), (Some("spot"), Some("eu"), "pod-a"));
    assert!((spec.cost - 0.5).abs() < 1e-9);
    assert_eq!(spec.labels["fairlead/namespace"], "llm");
    assert_eq!(spec.labels["role-name"], "decode");
}

#[test]
fn what_would_be_no_header_is_as_good_as_not_there() {
    let facts = pod(&[MODEL], &[("fairlead/tier", "a\nb"), ("fairlead/region", &"x".repeat(300))]);
    let specs = found(&facts, &[], &[]);
    assert_eq!((specs.len(), &specs[0].tier, &specs[0].region), (1, &None, &None));
    assert_eq!(found(&pod(&[], &[("model.aibrix.ai/name", "a\u{1}")]), &[], &[]), []);
}

#[test]
fn what_is_missing_or_nonsense_has_a_default() {
    let nonsense =
        [MODEL, ("model.aibrix.ai/port", "x"), ("model.aibrix.ai/metric-port", "0"), ("fairlead/weight", "0")];
    let more = [("model.aibrix.ai/config", "{"), ("fairlead/cost", "NaN"), ("model.aibrix.ai/engine", "novel")];
    for facts in [pod(&[MODEL], &[]), pod(&nonsense, &more)] {
        let specs = found(&facts, &[], &[]);
        let [spec] = specs.as_slice() else { panic!("{specs:?}") };
        assert_eq!((spec.address.to_string().as_str(), spec.metrics_address), ("10.0.0.1:8000", None));
        assert_eq!((spec.engine, spec.role, spec.weight), (EngineKind::Auto, Role::Both, 1));
        assert!(spec.profiles.is_none() && (spec.cost - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_pod_that_nobody_asked_for_or_that_others_speak_for_has_no_endpoints() {
    let none: [PodFacts; 5] = [
        pod(&[("app", "x")], &[]),
        PodFacts { routable: None, ..pod(&[MODEL], &[]) },
        pod(&[MODEL, ("ray.io/node-type", "worker")], &[]),
        pod(&[MODEL, ("stormservice.orchestration.aibrix.ai/pod-group-index", "1")], &[]),
        pod(&[("model.aibrix.ai/name", "")], &[]),
    ];
    for facts in none {
        assert!(found(&facts, &[], &[]).is_empty(), "{facts:?}");
    }
    let leader = pod(&[MODEL, ("stormservice.orchestration.aibrix.ai/pod-group-index", "0")], &[]);
    assert_eq!(found(&leader, &[], &[]).len(), 1);
}

#[test]
fn a_name_that_is_no_label_value_is_an_annotation() {
    let specs = found(&pod(&[], &[("model.aibrix.ai/name", "meta/llama")]), &[], &[]);
    assert_eq!(specs[0].models[0].name, "meta/llama");
}

#[test]
fn profiles_come_with_the_pod() {
    let json = r#"{"profiles":{"default":{"routingStrategy":"random"}}}"#;
    let specs = found(&pod(&[MODEL], &[("model.aibrix.ai/config", json)]), &[], &[]);
    assert_eq!(specs[0].profiles.as_ref().unwrap().profiles["default"].strategy.as_deref(), Some("random"));
}

#[test]
fn every_data_parallel_rank_is_an_endpoint() {
    let specs = found(&PodFacts { ranks: 3, ..pod(&[MODEL], &[]) }, &[], &[]);
    assert_eq!(addresses(&specs), ["10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:8002"]);
    assert_eq!(specs.iter().map(|spec| &*spec.name).collect::<Vec<_>>(), ["pod-a", "pod-a-rank-1", "pod-a-rank-2"]);
    assert!(specs[1].metrics_address.is_none(), "each tells its own metrics");
    assert!(found(&PodFacts { ranks: u16::MAX, ..pod(&[MODEL], &[]) }, &[], &[]).len() <= PORTS_MAX);
}

#[test]
fn a_pool_makes_an_endpoint_of_every_port_that_is_live() {
    let (two, other) = (pool(&[8000, 8001]), PoolFacts { ports: vec![1], ..PoolFacts::default() });
    let pools: &[(&str, &PoolFacts)] = &[("p", &two), ("q", &other)];
    let specs = found(&pod(&[("app", "x")], &[]), pools, &[]);
    assert_eq!(addresses(&specs), ["10.0.0.1:8000", "10.0.0.1:8001"]);
    assert!(specs[0].models.is_empty(), "any model");
    assert_eq!(specs[0].labels["fairlead/pool"], "p");
    let live = pod(&[("app", "x")], &[("llm-d.ai/active-ports", " 8001,9999")]);
    assert_eq!(addresses(&found(&live, pools, &[])), ["10.0.0.1:8001"]);
    assert!(found(&pod(&[("app", "y")], &[]), pools, &[]).is_empty());
}

#[test]
fn a_pod_that_is_found_both_ways_is_one_endpoint_of_the_pool_with_its_model() {
    let at = pool(&[8000]);
    let specs = found(&pod(&[("app", "x"), MODEL], &[]), &[("p", &at)], &[]);
    assert_eq!(addresses(&specs), ["10.0.0.1:8000"]);
    assert_eq!((specs[0].labels["fairlead/pool"].as_str(), specs[0].models[0].name.as_str()), ("p", "llama"));
}

#[test]
fn an_engine_that_two_pools_select_is_in_both() {
    let (one, both) = (pool(&[8000]), pool(&[8000, 8001]));
    let specs = found(&pod(&[("app", "x"), MODEL], &[]), &[("p", &one), ("q", &both)], &[]);
    let pools: Vec<_> = specs.iter().map(|spec| (spec.address.port(), spec.pools.join(" "))).collect();
    assert_eq!(pools, [(8000, "llm/p llm/q".to_owned()), (8001, "llm/q".to_owned())]);
    assert!(found(&pod(&[MODEL], &[]), &[("p", &one)], &[])[0].pools.is_empty());
}

#[test]
fn active_claims_are_models_at_ports_of_their_own() {
    let claims = [
        ("modelclaim.aibrix.ai/a", r#"{"model":"a","port":9001,"state":"active"}"#),
        ("modelclaim.aibrix.ai/b", r#"{"model":"b","port":9002}"#),
        ("modelclaim.aibrix.ai/c", r#"{"model":"c","port":9003,"state":"sleeping"}"#),
        ("modelclaim.aibrix.ai/d", "nonsense"),
        ("modelclaim.aibrix.ai/e", r#"{"model":"e","port":9001,"state":"active"}"#),
    ];
    let specs = found(&pod(&[], &claims), &[], &[]);
    assert_eq!(addresses(&specs), ["10.0.0.1:9001", "10.0.0.1:9002"]);
    let names: Vec<_> = specs[0].models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["a", "e"]);
}

#[test]
fn ipv6_pods_have_bracketed_addresses() {
    let specs = found(&PodFacts { routable: "fd00::1".parse().ok(), ..pod(&[MODEL], &[]) }, &[], &[]);
    assert_eq!(addresses(&specs), ["[fd00::1]:8000"]);
}
