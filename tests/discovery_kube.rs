//! Discovery in Kubernetes: the real client against an API server with faults.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_kube;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fairlead::config::{KubernetesDiscovery, LocalPool};
use fairlead::domain::{Clock, Work};
use fairlead::state::Ticket;
use fairlead_lab::kube::{FakeApi, Fault, Pod, custom};
use serde_json::{Value, json};

use common_kube::{MODEL, address, config, pod, soon, spread, watch};

async fn api_with(pods: u32) -> FakeApi {
    let api = FakeApi::start(&[]).await.unwrap();
    for number in 0..pods {
        api.put_pod(&pod(number));
    }
    api
}

#[tokio::test]
async fn pods_are_listed_in_pages_and_then_followed() {
    let api = api_with(5).await;
    api.set_page_max(2);
    let watching = watch(config(&api)).await;
    watching.has((0..5).map(address)).await;
    let lists = api.requests().iter().filter(|line| line.starts_with("LIST /api/v1/pods")).count();
    assert_eq!(lists, 3);
    api.put_pod(&pod(5));
    api.put_pod(&pod(0).ready(false));
    api.put_pod(&pod(1).deleting());
    api.delete("pods", "default", "engine-00002");
    watching.has([3, 4, 5].map(address)).await;
    assert!(watching.status.readiness().0 && watching.counts().0 == 0);
}

#[tokio::test]
async fn nothing_is_said_before_everything_is_listed() {
    let api = api_with(3).await;
    api.set_fault(Fault::Refuse);
    let watching = watch(config(&api)).await;
    soon("it fails", || watching.counts().0 > 2).await;
    let (ready, detail) = watching.status.readiness();
    assert!(!ready && detail.contains("not ready"), "{detail}");
    assert_eq!(watching.reader.load().version(), 0);
    api.set_fault(Fault::None);
    watching.has((0..3).map(address)).await;
    assert!(watching.status.readiness().0);
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_without_listing_again() {
    let api = api_with(2).await;
    let watching = watch(config(&api)).await;
    watching.has([0, 1].map(address)).await;
    let (_, listings) = watching.counts();
    for (round, mid_line) in [(2, true), (3, false)] {
        api.bookmark();
        api.cut(mid_line);
        api.put_pod(&pod(round));
        watching.has((0..=round).map(address)).await;
    }
    assert_eq!(watching.counts().1, listings);
}

#[tokio::test]
async fn a_forgotten_history_is_listed_anew_and_leaves_no_ghosts() {
    let api = api_with(3).await;
    let watching = watch(config(&api)).await;
    watching.has((0..3).map(address)).await;
    let (_, listings) = watching.counts();
    api.set_fault(Fault::Refuse);
    api.cut(false);
    api.delete("pods", "default", "engine-00001");
    api.put_pod(&pod(7));
    api.compact();
    api.set_fault(Fault::None);
    watching.has([0, 2, 7].map(address)).await;
    assert!(watching.counts().1 > listings);
}

#[tokio::test]
async fn while_the_api_server_is_away_everything_stays_and_readiness_says_so() {
    for fault in [Fault::Refuse, Fault::Reset] {
        let api = api_with(3).await;
        let watching = watch(config(&api)).await;
        watching.has((0..3).map(address)).await;
        api.set_fault(fault);
        api.cut(false);
        soon("it is noticed", || watching.status.readiness().1.contains("last known")).await;
        api.delete("pods", "default", "engine-00000");
        soon("it is silent", || watching.status.silence("pods") > Duration::from_millis(1500)).await;
        assert!(watching.status.readiness().0);
        assert_eq!(watching.addresses(), (0..3).map(address).collect());
        api.set_fault(Fault::None);
        watching.has([1, 2].map(address)).await;
        soon("all is well", || !watching.status.readiness().1.contains("last known")).await;
    }
}

#[tokio::test]
async fn silence_about_pods_is_not_hidden_by_answers_about_others() {
    let api = api_with(1).await;
    let watching = watch(config(&api)).await;
    watching.has([address(0)]).await;
    api.set_fault(Fault::RefusePods);
    api.cut(false);
    let silence = |resource| watching.status.silence(resource);
    let hears = || silence("modeladapters") + Duration::from_secs(2) < silence("pods");
    soon("pods are silent, and adapters are not", hears).await;
    let (ready, detail) = watching.status.readiness();
    assert!(ready && detail.contains("pods, not heard of"), "{detail}");
}

async fn is_given_up(fault: Fault) {
    let api = api_with(1).await;
    api.set_fault(fault);
    let watching = watch(config(&api)).await;
    let since = Instant::now();
    let asked = || api.requests().iter().filter(|line| line.contains("/pods?") && line.starts_with("WATCH")).count();
    match fault {
        // The watch is asked for anew without a word.
        Fault::SilentWatch => {
            soon("listed", || watching.status.loaded()).await;
            soon("the watch is open", || asked() > 0).await;
            soon("it is asked for again", || asked() > 0).await
        }
        _ => soon("it is noticed", || watching.counts().0 > 0).await,
    };
    let noticed = since.elapsed();
    api.set_fault(Fault::None);
    api.put_pod(&pod(1));
    watching.has([0, 1].map(address)).await;
    eprintln!("{fault:?}: noticed after {noticed:.1?}, with watches of 1 s");
}

#[tokio::test]
async fn a_listing_that_is_never_answered_is_given_up() {
    is_given_up(Fault::HangList).await;
}

#[tokio::test]
async fn a_watch_that_is_never_answered_is_given_up() {
    is_given_up(Fault::HangWatch).await;
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_given_up() {
    is_given_up(Fault::SilentWatch).await;
}

#[tokio::test]
async fn a_watch_that_is_refused_as_too_old_begins_with_a_listing() {
    is_given_up(Fault::GoneWatch).await;
}

#[tokio::test]
async fn namespaces_and_selectors_narrow_what_is_asked_for() {
    let api = FakeApi::start(&[]).await.unwrap();
    for (number, namespace, stage) in [(0, "a", "live"), (1, "b", "live"), (2, "c", "live"), (3, "a", "test")] {
        let pod = Pod { namespace: namespace.to_owned(), ..pod(number) };
        api.put_pod(&pod.label("stage", stage));
    }
    let (namespaces, pod_selector) = (Some("a,b".into()), "stage=live".to_owned());
    let watching = watch(KubernetesDiscovery { namespaces, pod_selector, ..config(&api) }).await;
    watching.has([0, 1].map(address)).await;
    let requests = api.requests();
    assert!(requests.iter().all(|line| line.contains("/namespaces/")), "{requests:#?}");
    // A pod that no longer fits the selector has left.
    api.put_pod(&Pod { namespace: "a".to_owned(), ..pod(0) }.label("stage", "test"));
    watching.has([address(1)]).await;
}

fn pool(name: &str, app: &str, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({ "number": port })).collect();
    let spec = json!({ "selector": { "matchLabels": { "app": app } }, "targetPorts": ports });
    custom("InferencePool", "default", name, &spec, &Value::Null)
}

#[tokio::test]
async fn pools_are_followed_by_name_and_one_that_goes_takes_readiness_along() {
    let api = FakeApi::start(&[]).await.unwrap();
    for (number, app) in [(0, "x"), (1, "y"), (2, "z")] {
        api.put_pod(&Pod { model: None, ..pod(number) }.label("app", app));
    }
    api.put("inferencepools", pool("one", "x", &[8000, 8001]));
    api.put("inferencepools", pool("two", "y", &[8000]));
    api.put("inferencepools", pool("three", "z", &[8000]));
    let watching = watch(KubernetesDiscovery { pools: "default/one,two".into(), ..config(&api) }).await;
    let second = |number| std::net::SocketAddr::new(address(number).ip(), 8001);
    watching.has([address(0), second(0), address(1)]).await;
    assert!(watching.status.readiness().0);
    api.put("inferencepools", pool("one", "x", &[8001]));
    watching.has([second(0), address(1)]).await;
    api.delete("inferencepools", "default", "one");
    watching.has([address(1)]).await;
    let (ready, detail) = watching.status.readiness();
    assert!(!ready && detail.contains("default/one"), "{detail}");
    api.put("inferencepools", pool("one", "y", &[8000]));
    soon("ready again", || watching.status.readiness().0).await;
}

#[tokio::test]
async fn every_pool_of_a_namespace_can_be_followed() {
    let api = FakeApi::start(&[]).await.unwrap();
    api.put_pod(&Pod { model: None, ..pod(0) }.label("app", "x"));
    let watching = watch(KubernetesDiscovery { pools: "*".into(), ..config(&api) }).await;
    soon("listed", || watching.status.loaded()).await;
    api.put("inferencepools", pool("late", "x", &[8000]));
    watching.has([address(0)]).await;
}

#[tokio::test]
async fn a_pool_without_an_object_has_the_pods_of_its_namespace_that_it_selects() {
    let api = FakeApi::start(&["inferencepools"]).await.unwrap();
    for (number, namespace, app) in [(0, "llm", "x"), (1, "llm", "y"), (2, "other", "x")] {
        let pod = Pod { namespace: namespace.to_owned(), model: None, ..pod(number) };
        api.put_pod(&pod.label("app", app));
    }
    let ports = "8000,8001".parse().unwrap();
    let local_pool = LocalPool { namespace: Some("llm".to_owned()), selector: "app=x".to_owned(), ports };
    let watching = watch(KubernetesDiscovery { local_pool, ..config(&api) }).await;
    let second = std::net::SocketAddr::new(address(0).ip(), 8001);
    watching.has([address(0), second]).await;
    let snapshot = watching.reader.load();
    let endpoint = snapshot.at(second).unwrap();
    assert!(endpoint.spec.models.is_empty(), "any model");
    assert_eq!(endpoint.spec.pools, ["llm/local"]);
    let requests = api.requests();
    let narrow =
        |line: &String| line.contains("/namespaces/llm/") && (!line.contains("/pods?") || line.contains("app%3Dx"));
    assert!(requests.iter().all(narrow), "{requests:#?}");
}

#[tokio::test]
async fn objectives_and_rewrites_of_a_pool_are_followed_and_a_cluster_may_not_know_them() {
    let api = FakeApi::start(&["inferencemodelrewrites"]).await.unwrap();
    api.put("inferencepools", pool("one", "x", &[8000]));
    let spec = json!({ "priority": 3, "poolRef": { "name": "one" } });
    api.put("inferenceobjectives", custom("InferenceObjective", "default", "hot", &spec, &Value::Null));
    let watching = watch(KubernetesDiscovery { pools: "default/one".into(), ..config(&api) }).await;
    soon("the objective is known", || watching.policies.load().of(None).priority("hot") == 3).await;
    api.delete("inferenceobjectives", "default", "hot");
    soon("it is gone", || watching.policies.load().of(None).priority("hot") == 0).await;
    assert!(watching.status.readiness().0);
}

#[tokio::test]
async fn adapters_come_and_go_with_their_objects_and_a_cluster_may_not_know_them() {
    let api = api_with(1).await;
    let watching = watch(config(&api)).await;
    watching.has([address(0)]).await;
    let status = json!({ "instances": ["engine-00000"] });
    api.put("modeladapters", custom("ModelAdapter", "default", "sql", &json!({ "baseModel": MODEL }), &status));
    soon("the adapter is served", || !watching.reader.load().serving("sql").is_empty()).await;
    api.put_pod(&pod(0).label("more", "labels"));
    soon("the pod changed", || watching.reader.load().endpoints()[0].spec.labels.contains_key("more")).await;
    assert!(!watching.reader.load().serving("sql").is_empty(), "an update of the pod does not lose it");
    api.delete("modeladapters", "default", "sql");
    soon("the adapter is gone", || watching.reader.load().serving("sql").is_empty()).await;

    let api = FakeApi::start(&["modeladapters"]).await.unwrap();
    api.put_pod(&pod(0));
    let watching = watch(config(&api)).await;
    watching.has([address(0)]).await;
    assert!(watching.status.readiness().0);
}

#[tokio::test]
async fn adapters_on_the_pods_of_a_named_pool_are_served() {
    let api = FakeApi::start(&[]).await.unwrap();
    api.put_pod(&pod(0).label("app", "x"));
    api.put("inferencepools", pool("one", "x", &[8000]));
    let status = json!({ "instances": ["engine-00000"] });
    api.put("modeladapters", custom("ModelAdapter", "default", "sql", &json!({ "baseModel": MODEL }), &status));
    let watching = watch(KubernetesDiscovery { pools: "default/one".into(), ..config(&api) }).await;
    soon("the adapter is served", || !watching.reader.load().serving("sql").is_empty()).await;
    assert!(watching.reader.load().serving("other").is_empty());
}

#[tokio::test]
async fn a_refusal_of_a_kind_that_was_listed_once_takes_nothing_away() {
    for fault in [Fault::ForbidWatch, Fault::ForbidList] {
        let api = api_with(1).await;
        let adapter = |name| {
            let status = json!({ "instances": ["engine-00000"] });
            api.put("modeladapters", custom("ModelAdapter", "default", name, &json!({ "baseModel": MODEL }), &status));
        };
        adapter("sql");
        let watching = watch(config(&api)).await;
        let has = |name| !watching.reader.load().serving(name).is_empty();
        soon("the adapter is served", || has("sql")).await;
        let failures = || {
            let watches = watching.status.watches().iter().filter(|watch| watch.resource == "modeladapters");
            watches.map(|watch| watch.errors.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>()
        };
        api.set_fault(fault);
        if fault == Fault::ForbidList {
            // Now the watches have to list anew.
            api.compact();
        }
        api.cut(false);
        soon("it is counted", || failures() > 2).await;
        assert!(has("sql"));
        api.set_fault(Fault::None);
        adapter("chat");
        soon("it is followed again", || has("chat")).await;
        assert!(has("sql"));
    }
}

#[tokio::test]
async fn updates_of_a_pod_keep_its_counts() {
    let api = api_with(1).await;
    let watching = watch(config(&api)).await;
    watching.has([address(0)]).await;
    let before = std::sync::Arc::clone(&watching.reader.load().endpoints()[0]);
    let ticket = Ticket::open(std::sync::Arc::clone(&before), Work::default(), &Clock::start());
    api.put_pod(&pod(0).label("fairlead/weight", "3"));
    soon("it is heavier", || watching.reader.load().endpoints()[0].spec.weight == 3).await;
    let after = std::sync::Arc::clone(&watching.reader.load().endpoints()[0]);
    assert_eq!((after.id, after.live.ours.in_flight()), (before.id, 1));
    drop(ticket);
    assert_eq!(after.live.ours.in_flight(), 0);
}

/// Time from Ready to the snapshot, and from deletion to the snapshot, one pod at a time among `others`.
async fn latencies(others: u32) -> (Vec<Duration>, Vec<Duration>) {
    let api = api_with(others).await;
    let watching = watch(config(&api)).await;
    watching.has((0..others).map(address)).await;
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let new = address(others);
    for _ in 0..50 {
        api.put_pod(&pod(others).ready(false));
        let since = api.put_pod(&pod(others));
        soon("it is there", || watching.reader.load().at(new).is_some()).await;
        came.push(since.elapsed());
        let since = api.put_pod(&pod(others).deleting());
        soon("it is gone", || watching.reader.load().at(new).is_none()).await;
        went.push(since.elapsed());
    }
    (came, went)
}

#[tokio::test]
async fn a_pod_is_known_soon_after_it_is_ready_and_forgotten_soon_after_it_is_deleted() {
    for others in [10, 1_000] {
        let (came, went) = latencies(others).await;
        let worst = came.iter().chain(&went).max().copied().unwrap();
        eprintln!("among {others} pods: Ready to snapshot {}; deletion to snapshot {}", spread(came), spread(went));
        assert!(worst < Duration::from_secs(2), "{worst:?}");
    }
}

#[tokio::test]
async fn a_thousand_pods_that_all_change_end_up_as_they_are() {
    const PODS: u32 = 1_000;
    let api = api_with(PODS).await;
    let watching = watch(config(&api)).await;
    watching.has((0..PODS).map(address)).await;
    let since = Instant::now();
    let mut left = BTreeSet::new();
    for number in 0..PODS {
        match number % 4 {
            0 => {
                api.delete("pods", "default", &format!("engine-{number:05}"));
            }
            1 => {
                api.put_pod(&pod(number).ready(false));
            }
            2 => {
                api.delete("pods", "default", &format!("engine-{number:05}"));
                api.put_pod(&pod(PODS + number));
                left.insert(address(PODS + number));
            }
            _ => {
                api.put_pod(&pod(number).label("round", "2"));
                left.insert(address(number));
            }
        }
        match number {
            300 => api.cut(true),
            600 => api.compact(),
            _ if number % 50 == 0 => tokio::task::yield_now().await,
            _ => {}
        }
    }
    watching.has(left).await;
    eprintln!("{PODS} pods changed and settled in {:.1?}", since.elapsed());
    assert_eq!(watching.status.pods(), 750);
}
