//! Pods that roll while traffic flows: an API server, engines, a real Envoy.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_lab::harness::{Child, Folder, Stack, StackBuilder, free_address, get};
use fairlead_lab::kube::{FakeApi, Pod};
use fairlead_lab::load::{self, LoadOptions};

use common_life::{
    MODEL, QUICKSTART, SOON, engine, fairlead, nothing_failed, rows, settle, soon, stack_knows, traffic,
};

fn config(api: &FakeApi) -> String {
    format!(
        "listen:\n  ext_proc: unix:{{ext_proc}}\n  admin: \"{{admin}}\"\ndestination: {{ list: 3 }}\n\
         envoy: {{ eds_file: \"{{eds}}\" }}\ndiscovery: {{ kubernetes: {{ server: \"{}\" }} }}\n",
        api.url()
    )
}

/// The pod of that generation, on the engine with that number.
fn pod(stack: &Stack, engine: usize, generation: usize) -> Pod {
    Pod::new(format!("pod-{generation}"), stack.engine(engine).unwrap().address(), MODEL)
}

fn received(stack: &Stack, engine: usize) -> u64 {
    stack.engine(engine).unwrap().counters().received
}

/// How long after `since` the last request came to an engine; it has to be quiet for 300 ms.
async fn last_request(stack: &Stack, engine: usize, since: Instant) -> Duration {
    let (mut last, mut count) = (Duration::ZERO, received(stack, engine));
    while since.elapsed() < last + Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = received(stack, engine);
        if now != count {
            (last, count) = (since.elapsed(), now);
        }
        assert!(since.elapsed() < SOON, "it is still asked");
    }
    last
}

/// Replaces pods one after the other: the new one becomes ready, then the old one is deleted and drains.
async fn roll(api: &FakeApi, stack: &Stack, rounds: usize) -> (Vec<Duration>, Vec<Duration>) {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (old, new) = (round % 4, (round + 3) % 4);
        api.put_pod(&pod(stack, new, round + 3).ready(false));
        let before = received(stack, new);
        let since = api.put_pod(&pod(stack, new, round + 3));
        soon("the new pod serves", async || received(stack, new) > before).await;
        first.push(since.elapsed());
        let since = api.put_pod(&pod(stack, old, round).deleting());
        last.push(last_request(stack, old, since).await);
        soon("the old pod has drained", async || stack.engine(old).unwrap().counters().in_progress == 0).await;
        api.delete("pods", "default", &format!("pod-{round}"));
    }
    (first, last)
}

/// Requests for pods that failed, by the metrics page.
async fn errors_of_pods(stack: &Stack) -> f64 {
    let (_, page) = stack.admin_get("/metrics").await.unwrap();
    let series = "fairlead_kubernetes_errors_total{resource=\"pods\"} ";
    page.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap()
}

#[tokio::test]
async fn pods_roll_under_load_without_a_failed_request() {
    let api = FakeApi::start(&[]).await.unwrap();
    let builder = StackBuilder::quickstart(fairlead(config(&api)), QUICKSTART).engines(4, &engine());
    let stack = Box::pin(builder.start()).await.unwrap();
    for number in 0..3 {
        api.put_pod(&pod(&stack, number, number));
    }
    stack_knows(&stack, 3).await;
    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(12)), ..traffic(&stack) });
    let story = async {
        soon("traffic", async || (0..3).all(|engine| received(&stack, engine) > 20)).await;
        let (first, last) = roll(&api, &stack, 8).await;
        eprintln!("pod Ready to its first request: {first:.1?}");
        eprintln!("pod deleted to its last request: {last:.1?}");
        let before = errors_of_pods(&stack).await;
        // History is lost and the API server away for a while: nothing changes for clients.
        api.compact();
        api.set_fault(fairlead_lab::kube::Fault::Refuse);
        api.cut(true);
        soon("it is noticed", async || errors_of_pods(&stack).await > before).await;
        assert_eq!(rows(&stack).await.len(), 3);
        api.set_fault(fairlead_lab::kube::Fault::None);
    };
    let (report, ()) = tokio::join!(load, story);
    nothing_failed("rolling pods", &report.unwrap());
    settle(&stack).await;
    stack.stop().await.unwrap();
}

/// `VmRSS` in MiB and the CPU time so far.
fn usage(pid: u32) -> (f64, Duration) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    (kib.unwrap() / 1024.0, Duration::from_millis(10 * ticks))
}

/// What discovery of so many pods takes, as lines for people. Of strangers, only the last pod names a model.
async fn footprint(pods: u32, strangers: bool) {
    let api = FakeApi::start(&[]).await.unwrap();
    let pod = |number: u32, round: u32| {
        let ip = (0x0a00_0001 + number).to_be_bytes();
        let pod = Pod::new(format!("engine-{number:05}"), (ip, 8000).into(), MODEL);
        let pod = pod.label("model.aibrix.ai/engine", "none").label("pod-template-hash", "5d8f7c6b9");
        let model = pod.model.clone().filter(|_| !strangers || number + 1 == pods);
        Pod { ballast: 2_000, model, ..pod.label("round", &round.to_string()) }
    };
    let folder = Folder::temporary().unwrap();
    let (admin, ext_proc) = (free_address().unwrap(), free_address().unwrap());
    let text = format!(
        "listen: {{ ext_proc: \"{ext_proc}\", admin: \"{admin}\" }}\nmetrics: {{ per_endpoint: \"off\" }}\n\
         discovery: {{ kubernetes: {{ server: \"{}\" }} }}\n",
        api.url()
    );
    folder.write("fairlead.yaml", &text).unwrap();
    let file = folder.join("fairlead.yaml");
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    let mut child = Child::spawn("fairlead", binary, &arguments, &folder.join("fairlead.log")).unwrap();
    child.wait_ready(&format!("http://{admin}/readyz"), SOON).await.unwrap();
    let (empty, _) = usage(child.id());
    for number in 0..pods {
        api.put_pod(&pod(number, 0));
    }
    api.compact();
    api.cut(false);
    let known = |what: &'static str, wanted: String| async move {
        soon(what, async || get(&format!("http://{admin}/metrics")).await.unwrap().1.contains(&wanted)).await;
    };
    let since = Instant::now();
    known("listed", format!("fairlead_endpoints {}", if strangers { 1 } else { pods })).await;
    let listed = since.elapsed();
    let (full, before) = usage(child.id());
    for number in 0..1_000 {
        api.put_pod(&pod(number, 1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (churned, after) = usage(child.id());
    eprintln!(
        "{pods} pods, strangers: {strangers}: {empty:.1} MiB empty, {full:.1} MiB with them, {churned:.1} MiB after 1,000 updates, \
         which took {:?} of CPU; listed in {listed:.1?}",
        after.saturating_sub(before)
    );
    child.terminate(SOON).await.unwrap();
}

#[tokio::test]
#[ignore = "prints memory and time, proves nothing"]
async fn what_a_thousand_and_ten_thousand_pods_cost() {
    footprint(1_000, false).await;
    footprint(10_000, false).await;
    footprint(10_000, true).await;
}
