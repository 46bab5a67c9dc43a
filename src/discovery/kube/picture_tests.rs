use kube::Resource as _;
use serde_json::{Value, json};

use crate::config::{KubernetesDiscovery, LocalPool};

use super::*;

const KINDS: [Kind; 5] = [Kind::Pods, Kind::Pools, Kind::Adapters, Kind::Objectives, Kind::Rewrites];
const PODS: usize = 0;
const POOLS: usize = 1;
const ADAPTERS: usize = 2;
const OBJECTIVES: usize = 3;
const REWRITES: usize = 4;

/// A picture of namespace `n` that has listed everything, with nothing there.
fn empty() -> Picture {
    let config = KubernetesDiscovery { namespaces: Some("n".into()), pools: "*".into(), ..Default::default() };
    let mut picture = Picture::new(Rules::from(&config), Scopes::plan(&config, "own"), &KINDS);
    (0..KINDS.len()).for_each(|watch| list(&mut picture, watch, []));
    assert!(picture.is_complete());
    picture
}

fn list(picture: &mut Picture, watch: usize, objects: impl IntoIterator<Item = Said>) {
    picture.fold(watch, Said::Begin);
    objects.into_iter().for_each(|said| picture.fold(watch, said));
    picture.fold(watch, Said::Listed);
}

fn pod(name: &str, ip: &str, ready: bool) -> Said {
    let ready = if ready { "True" } else { "False" };
    let object = json!({
        "metadata": { "name": name, "namespace": "n", "resourceVersion": "1",
            "labels": { "model.aibrix.ai/name": "m", "app": "x" }, "annotations": { "unasked": "for" } },
        "status": { "podIP": ip, "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Said::Pod(Box::new(serde_json::from_value(object).unwrap()))
}

#[expect(clippy::needless_pass_by_value, reason = "as `json!` gives them")]
fn custom(name: &str, spec: Value, status: Value) -> Said {
    let metadata = json!({ "name": name, "namespace": "n" });
    let object = json!({ "metadata": metadata, "spec": spec, "status": status });
    Said::Custom(Box::new(serde_json::from_value(object).unwrap()))
}

fn gone(name: &str) -> Said {
    Said::Gone(Name::new("n", name))
}

/// What changed: addresses gone, addresses put.
fn changed(picture: &mut Picture) -> (Vec<String>, Vec<String>) {
    let patch = picture.patch();
    let put = patch.put.iter().map(|spec| spec.address.to_string());
    (patch.gone.iter().map(SocketAddr::to_string).collect(), put.collect())
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_pod_comes_when_it_is_ready_and_goes_when_it_is_not_or_deleted() {
    let mut picture = empty();
    picture.fold(PODS, pod("a", "10.0.0.1", false));
    assert_eq!(changed(&mut picture), (vec![], vec![]));
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    assert_eq!(changed(&mut picture), (vec![], texts(&["10.0.0.1:8000"])));
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    assert_eq!(changed(&mut picture), (vec![], vec![]), "an update that changes nothing says nothing");
    picture.fold(PODS, pod("a", "10.0.0.1", false));
    assert_eq!(changed(&mut picture), (texts(&["10.0.0.1:8000"]), vec![]));
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    picture.fold(PODS, gone("a"));
    assert_eq!(changed(&mut picture), (vec![], vec![]), "came and went between two looks");
}

#[test]
fn nothing_is_complete_before_every_watch_has_listed() {
    let config = KubernetesDiscovery::default();
    let mut picture = Picture::new(Rules::from(&config), Scopes::plan(&config, "own"), &[Kind::Pods, Kind::Adapters]);
    list(&mut picture, 0, [pod("a", "10.0.0.1", true)]);
    assert!(!picture.is_complete());
    picture.fold(1, Said::Absent);
    assert!(picture.is_complete(), "a kind that the cluster does not know is no reason to wait");
}

#[test]
fn a_listing_leaves_no_ghosts_and_takes_nothing_away_before_it_is_complete() {
    let mut picture = empty();
    list(&mut picture, PODS, [pod("a", "10.0.0.1", true), pod("b", "10.0.0.2", true)]);
    picture.patch();
    picture.fold(PODS, Said::Begin);
    picture.fold(PODS, pod("b", "10.0.0.2", true));
    picture.fold(PODS, pod("c", "10.0.0.3", true));
    assert_eq!(changed(&mut picture), (vec![], texts(&["10.0.0.3:8000"])));
    // The listing breaks and begins again.
    list(&mut picture, PODS, [pod("b", "10.0.0.2", true)]);
    assert_eq!(changed(&mut picture), (texts(&["10.0.0.1:8000", "10.0.0.3:8000"]), vec![]));
    assert_eq!(picture.pods(), 1);
}

#[test]
fn an_address_that_goes_to_another_pod_is_never_lost() {
    for new_first in [true, false] {
        let mut picture = empty();
        picture.fold(PODS, pod("old", "10.0.0.1", true));
        picture.patch();
        let mut story = vec![pod("new", "10.0.0.1", true), gone("old")];
        if !new_first {
            story.reverse();
        }
        for said in story {
            picture.fold(PODS, said);
        }
        let patch = picture.patch();
        assert!(patch.put.iter().any(|spec| spec.name == "new"), "{patch:?}");
        picture.fold(PODS, gone("new"));
        assert_eq!(changed(&mut picture), (texts(&["10.0.0.1:8000"]), vec![]));
    }
}

#[test]
fn the_old_pod_speaks_again_when_the_newer_one_leaves_the_address() {
    let mut picture = empty();
    picture.fold(PODS, pod("old", "10.0.0.1", true));
    picture.patch();
    picture.fold(PODS, pod("new", "10.0.0.1", true));
    picture.patch();
    picture.fold(PODS, gone("new"));
    let patch = picture.patch();
    assert!(patch.gone.is_empty() && patch.put.len() == 1 && patch.put[0].name == "old", "{patch:?}");
}

#[test]
fn a_pool_that_comes_changes_or_goes_moves_the_endpoints_of_its_pods() {
    let mut picture = empty();
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    picture.patch();
    let pool = |port| {
        custom(
            "p",
            json!({ "selector": { "matchLabels": { "app": "x" } }, "targetPorts": [{ "number": port }] }),
            Value::Null,
        )
    };
    picture.fold(POOLS, pool(9000));
    assert_eq!(changed(&mut picture).1, ["10.0.0.1:9000", "10.0.0.1:8000"]);
    assert!(picture.has_pool(&Name::new("n", "p")));
    picture.fold(POOLS, pool(9001));
    assert_eq!(changed(&mut picture), (texts(&["10.0.0.1:9000"]), texts(&["10.0.0.1:9001", "10.0.0.1:8000"])));
    picture.fold(POOLS, custom("p", json!("nonsense"), Value::Null));
    assert_eq!(changed(&mut picture).0, ["10.0.0.1:9001"]);
    picture.fold(POOLS, pool(9002));
    picture.patch();
    list(&mut picture, POOLS, []);
    assert_eq!(changed(&mut picture).0, ["10.0.0.1:9002"]);
}

#[test]
fn adapters_find_their_pods_in_either_order_and_outlive_updates() {
    let adapters = |picture: &mut Picture| {
        let patch = picture.patch();
        patch.put.first().map(|spec| spec.models[0].adapters.clone())
    };
    let mut picture = empty();
    picture.fold(ADAPTERS, custom("sql", Value::Null, json!({ "instances": ["a"] })));
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    assert_eq!(adapters(&mut picture), Some(texts(&["sql"])));
    picture.fold(ADAPTERS, custom("chat", Value::Null, json!({ "instances": ["a", "b"] })));
    assert_eq!(adapters(&mut picture), Some(texts(&["chat", "sql"])));
    picture.fold(PODS, pod("a", "10.0.0.1", false));
    picture.patch();
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    assert_eq!(adapters(&mut picture), Some(texts(&["chat", "sql"])));
    picture.fold(ADAPTERS, custom("chat", Value::Null, json!({ "instances": ["b"] })));
    picture.fold(ADAPTERS, gone("sql"));
    assert_eq!(adapters(&mut picture), Some(vec![]));
    picture.fold(ADAPTERS, Said::Absent);
    assert!(picture.adapters_on.is_empty());
}

fn rewrite(name: &str, created: &str, pool: &str, model: Option<&str>, to: &str) -> Said {
    let matches: Vec<_> = model.iter().map(|model| json!({ "model": { "value": model } })).collect();
    let rules = json!([{ "matches": matches, "targets": [{ "modelRewrite": to }] }]);
    let metadata = json!({ "name": name, "namespace": "n", "creationTimestamp": created });
    let object = json!({ "metadata": metadata, "spec": { "poolRef": { "name": pool }, "rules": rules } });
    Said::Custom(Box::new(serde_json::from_value(object).unwrap()))
}

#[test]
fn policies_of_our_pools_count_named_models_first_and_then_the_older_object() {
    let mut picture = empty();
    picture.policies();
    let objective = |pool| custom("hot", json!({ "priority": 5, "poolRef": { "name": pool } }), Value::Null);
    picture.fold(OBJECTIVES, objective("p"));
    assert_eq!(picture.policies().unwrap().of(None).priority("hot"), 0, "there is no such pool yet");
    picture.fold(POOLS, custom("p", json!({ "selector": {}, "targetPorts": [] }), Value::Null));
    assert_eq!(picture.policies().unwrap().of(None).priority("hot"), 5);
    for said in [
        rewrite("a", "2026-01-03T00:00:00Z", "p", Some("m"), "late"),
        rewrite("b", "2026-01-01T00:00:00Z", "p", None, "any"),
        rewrite("c", "2026-01-02T00:00:00Z", "p", Some("m"), "early"),
        rewrite("d", "2025-01-01T00:00:00Z", "other", Some("m"), "not ours"),
    ] {
        picture.fold(REWRITES, said);
    }
    let book = picture.policies().unwrap();
    let policies = book.of(None);
    assert_eq!((policies.rewrite("m", 0), policies.rewrite("x", 0)), (Some("early"), Some("any")));
    assert!(picture.policies().is_none(), "told once");
    picture.fold(REWRITES, gone("c"));
    picture.fold(OBJECTIVES, Said::Absent);
    let book = picture.policies().unwrap();
    assert_eq!((book.of(None).rewrite("m", 0), book.of(None).priority("hot")), (Some("late"), 0));
}

#[test]
fn each_pool_has_its_own_policies_and_without_a_pool_all_of_them_hold() {
    let mut picture = empty();
    for pool in ["p", "q"] {
        picture.fold(POOLS, custom(pool, json!({ "selector": {}, "targetPorts": [] }), Value::Null));
        let objective = json!({ "priority": 5, "poolRef": { "name": pool } });
        picture.fold(OBJECTIVES, custom(&format!("hot-{pool}"), objective, Value::Null));
        let at = format!("2026-01-0{}T00:00:00Z", if pool == "p" { 1 } else { 2 });
        picture.fold(REWRITES, rewrite(pool, &at, pool, Some("m"), &format!("{pool}-m")));
    }
    let book = picture.policies().unwrap();
    let said = |pool| (book.of(pool).rewrite("m", 0), ["hot-p", "hot-q"].map(|name| book.of(pool).priority(name)));
    assert_eq!(said(Some("n/p")), (Some("p-m"), [5, 0]));
    assert_eq!(said(Some("n/q")), (Some("q-m"), [0, 5]));
    assert_eq!(said(None), (Some("p-m"), [5, 5]));
    assert_eq!(said(Some("q")), (None, [0, 0]), "a pool is named with its namespace");
}

#[test]
fn a_pod_that_no_one_can_ask_for_is_not_kept() {
    let plan = |pools: &str, local: &str| {
        let local_pool = LocalPool { namespace: Some("n".into()), selector: local.into(), ..Default::default() };
        let config =
            KubernetesDiscovery { namespaces: Some("*".into()), pools: pools.into(), local_pool, ..Default::default() };
        Picture::new(Rules::from(&config), Scopes::plan(&config, "own"), &[Kind::Pods])
    };
    let stranger = |labels: Value| {
        let object = json!({ "metadata": { "name": "a", "namespace": "n", "labels": labels } });
        Said::Pod(Box::new(serde_json::from_value(object).unwrap()))
    };
    for (pools, local, kept) in
        [("", "", 0), ("n/p", "", 1), ("m/p", "", 0), ("*", "", 1), ("", "app=x", 1), ("", "app=y", 0)]
    {
        let mut picture = plan(pools, local);
        picture.fold(0, stranger(json!({ "app": "x" })));
        assert_eq!(picture.pods(), kept, "pools {pools:?}, local pool {local:?}");
    }
    // One that no longer names a model has left.
    let mut picture = plan("", "");
    picture.fold(0, pod("a", "10.0.0.1", true));
    assert_eq!(changed(&mut picture).1, ["10.0.0.1:8000"]);
    picture.fold(0, stranger(json!({})));
    assert_eq!(changed(&mut picture).0, ["10.0.0.1:8000"]);
    let claims =
        json!({ "metadata": { "name": "a", "namespace": "n", "annotations": { "modelclaim.aibrix.ai/c": "{}" } } });
    picture.fold(0, Said::Pod(Box::new(serde_json::from_value(claims).unwrap())));
    assert_eq!(picture.pods(), 1);
}

#[test]
fn annotations_that_nobody_asks_for_are_not_kept() {
    let mut picture = empty();
    picture.fold(PODS, pod("a", "10.0.0.1", true));
    assert!(picture.pods.get(&Name::new("n", "a")).unwrap().annotations.is_empty());
}

#[test]
fn an_object_is_known_by_namespace_and_name() {
    let Said::Pod(pod) = pod("a", "10.0.0.1", true) else { panic!("not a pod") };
    assert_eq!(Name::of(pod.meta()), Name::new("n", "a"));
}
