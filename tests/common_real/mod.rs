//! A real engine behind the real Envoy and Fairlead, and what the three of them say about it at the same moment.
#![allow(dead_code, reason = "each test target uses its own part")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

pub(crate) mod vllm;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fairlead_lab::harness::{Child, ExtProc, Folder, Stack, StackBuilder, free_address, get, wait_until};
use fairlead_lab::load::{LoadOptions, Pace, Quantiles, Report, run as load};
use serde_json::Value;
use tokio::time::Instant;

const QUICKSTART: &str = include_str!("../../envoy/quickstart.yaml");
const CONFIG: &str = "\
listen: { ext_proc: \"unix:{ext_proc}\", admin: \"{admin}\" }
routing: { algorithm: least-latency }
scrape: { everything: true }
discovery: { file: { path: \"{endpoints}\" } }
envoy: { eds_file: \"{eds}\" }
";
const SETTLE: Duration = Duration::from_mins(1);
/// Between two looks at everybody's numbers.
const LOOK: Duration = Duration::from_millis(100);

/// Fairlead's count of engines that began anew.
const RESTARTS: &str = "fairlead_engine_restarts_total";

/// How an engine is started, and what it calls things.
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) model: &'static str,
    /// What Fairlead is to recognise it as.
    pub(crate) kind: &'static str,
    /// Names of its gauges of running and waiting requests.
    pub(crate) running: &'static str,
    pub(crate) waiting: &'static str,
    /// Longest start.
    pub(crate) start: Duration,
}

/// The path in that environment variable; a suite that is run without it fails.
pub(crate) fn required(variable: &str, target: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).unwrap_or_default();
    assert!(!path.as_os_str().is_empty(), "{variable} is not set; 'make {target}' sets it");
    assert!(path.exists(), "{variable} names '{}', which does not exist", path.display());
    path
}

/// Engine, Fairlead and Envoy.
pub(crate) struct Real {
    // Dropped in this order.
    pub(crate) stack: Stack,
    engine: Option<Engine>,
    address: SocketAddr,
    recipe: Recipe,
    folder: Folder,
}

/// What one look found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Requests that Fairlead has in flight by its own count.
    pub(crate) in_flight: f64,
    /// Running and waiting as Fairlead tells them.
    pub(crate) told: Option<(f64, f64)>,
    /// Requests at the engine as strategies take them: what it told, and what was sent and ended since.
    pub(crate) combined: Option<f64>,
    /// Running and waiting as the engine tells them.
    pub(crate) truth: (f64, f64),
}

impl Real {
    /// Starts everything.
    pub(crate) async fn start(recipe: Recipe) -> Self {
        let folder = Folder::temporary().unwrap();
        let address = free_address().unwrap();
        let engine = start_engine(&recipe, address, &folder).await;
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
        let list = format!("- {{ address: \"{address}\", models: [{}] }}\n", recipe.model);
        let ext_proc = ExtProc::Fairlead { binary, config: CONFIG.to_owned() };
        let stack = StackBuilder::quickstart(ext_proc, QUICKSTART).endpoints(list).start().await.unwrap();
        let real = Self { stack, engine: Some(engine), address, recipe, folder };
        let recognised = || async { real.row().await["engine"] == real.recipe.kind };
        wait_until("the engine recognised", SETTLE, recognised).await.unwrap();
        real
    }

    /// Kills the engine, as a crash would, and starts it again on its port.
    async fn restart_engine(&mut self) {
        drop(self.engine.take());
        self.engine = Some(start_engine(&self.recipe, self.address, &self.folder).await);
    }

    /// Kills the engine and starts it again: its numbers are back soon, it is counted as restarted once, nothing is below
    /// zero, and no request of the traffic that follows fails.
    pub(crate) async fn survives_a_restart(&mut self, requests: u64) {
        let restarts = self.fairlead_says(RESTARTS).await.unwrap_or(0.0);
        self.restart_engine().await;
        self.gauges_come_back(Duration::from_secs(5)).await;
        let (report, _, rows) = Box::pin(self.watched(self.traffic(requests, 2))).await;
        print_report("after a restart of the engine", &report);
        assert_eq!(report.failed, 0);
        let negative: Vec<String> = rows.iter().flat_map(negative_signals).collect();
        assert!(negative.is_empty(), "{negative:?}");
        assert_eq!(self.fairlead_says(RESTARTS).await, Some(restarts + 1.0));
        self.settle().await;
    }

    /// Options of a load through Envoy.
    pub(crate) fn traffic(&self, requests: u64, concurrency: usize) -> LoadOptions {
        LoadOptions {
            url: self.stack.envoy_url(),
            requests: Some(requests),
            pace: Pace::Closed { concurrency },
            model: self.recipe.model.to_owned(),
            tokens_max: Some(32),
            stream_share: 0.5,
            prompt_bytes: 200,
            timeout: Duration::from_mins(2),
            ..LoadOptions::default()
        }
    }

    /// The endpoint's row in `/api/endpoints`.
    pub(crate) async fn row(&self) -> Value {
        let (status, text) = self.stack.admin_get("/api/endpoints").await.unwrap();
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&text).unwrap()["endpoints"][0].clone()
    }

    /// Sum over the engine's own samples of that metric.
    pub(crate) async fn engine_says(&self, metric: &str) -> Option<f64> {
        let (_, page) = get(&format!("http://{}/metrics", self.address)).await.ok()?;
        sum(&page, metric)
    }

    async fn look(&self) -> Option<Look> {
        let engine_page = format!("http://{}/metrics", self.address);
        let (page, row) = tokio::join!(get(&engine_page), self.row());
        let (_, page) = page.ok()?;
        let told = signal(&row, "running").zip(signal(&row, "waiting"));
        let truth = (sum(&page, self.recipe.running)?, sum(&page, self.recipe.waiting)?);
        Some(Look { in_flight: row["in_flight"].as_f64()?, told, combined: signal(&row, "requests"), truth })
    }

    /// Runs a load and looks at everybody's numbers meanwhile.
    pub(crate) async fn watched(&self, options: LoadOptions) -> (Report, Vec<Look>, Vec<Value>) {
        let (mut looks, mut rows) = (Vec::new(), Vec::new());
        let load = load(options);
        tokio::pin!(load);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                report = &mut load => return (report.unwrap(), looks, rows),
                () = tokio::time::sleep_until(next) => {
                    let (look, row) = tokio::join!(self.look(), self.row());
                    looks.extend(look);
                    rows.push(row);
                    next = Instant::now() + LOOK;
                }
            }
        }
    }

    /// Waits until Fairlead has nothing in flight.
    pub(crate) async fn settle(&self) {
        wait_until("nothing in flight", SETTLE, || async { self.row().await["in_flight"] == 0 }).await.unwrap();
    }

    /// Waits until Fairlead tells a signal that `holds`, and prints it.
    pub(crate) async fn signal_that(&self, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
        let told = || async { signal(&self.row().await, name).is_some_and(&holds) };
        wait_until(&format!("signal '{name}'"), Duration::from_secs(20), told).await.unwrap();
        let value = signal(&self.row().await, name).unwrap_or(f64::NAN);
        eprintln!("{name}: {value}");
        value
    }

    /// The sum of a metric of Fairlead's own.
    pub(crate) async fn fairlead_says(&self, metric: &str) -> Option<f64> {
        let (_, page) = self.stack.admin_get("/metrics").await.ok()?;
        sum(&page, metric)
    }

    /// Sends one request at a time and prints how long it takes until the engine's gauges are fresh again; bounded.
    pub(crate) async fn gauges_come_back(&self, limit: Duration) {
        let started = Instant::now();
        let fresh = || async { signal(&self.row().await, "running").is_some() };
        let requests = load(LoadOptions { tokens_max: Some(4), ..self.traffic(1, 1) });
        let (report, waited) = tokio::join!(requests, wait_until("gauges after the restart", limit, fresh));
        waited.unwrap();
        assert_eq!(report.unwrap().failed, 0);
        eprintln!("gauges told again {:.1} s after the engine was ready", started.elapsed().as_secs_f64());
    }
}

/// An engine that is killed with all the processes that it began: a vLLM that is killed alone leaves its workers behind.
struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = family(self.0.id()).iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        Command::new("sh").args(["-c", &format!("kill -KILL {ids}")]).stderr(Stdio::null()).status().ok();
    }
}

/// That process, those that it began, and those that they did.
fn family(root: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output().unwrap();
    let numbers = |line: &str| line.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>();
    let pairs: Vec<_> = String::from_utf8_lossy(&listed.stdout).lines().map(numbers).collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(pairs.iter().filter(|pair| pair.get(1) == Some(&parent)).filter_map(|pair| pair.first()));
        at += 1;
    }
    family
}

async fn start_engine(recipe: &Recipe, address: SocketAddr, folder: &Folder) -> Engine {
    let port = address.port().to_string();
    let mut arguments: Vec<&str> = recipe.arguments.iter().map(String::as_str).collect();
    arguments.extend(["--host", "127.0.0.1", "--port", &port]);
    let started = Instant::now();
    let mut engine = Child::spawn("the engine", &recipe.program, &arguments, &folder.join("engine.log")).unwrap();
    engine.wait_ready(&format!("http://{address}/health"), recipe.start).await.unwrap();
    eprintln!("engine ready after {:.1} s", started.elapsed().as_secs_f64());
    Engine(engine)
}

/// A signal of a row; `None` while it is unknown.
pub(crate) fn signal(row: &Value, name: &str) -> Option<f64> {
    row["signals"].get(name)?.get("value")?.as_f64()
}

/// What the rows told of a signal.
pub(crate) fn told(rows: &[Value], name: &str) -> Vec<f64> {
    rows.iter().filter_map(|row| signal(row, name)).collect()
}

/// Prints how often the rows told a signal, its least, mean and greatest value, and returns the last.
pub(crate) fn print_signal(rows: &[Value], name: &str) -> Option<f64> {
    let values = told(rows, name);
    let (least, greatest) = values.iter().fold((f64::MAX, 0.0_f64), |(a, b), value| (a.min(*value), b.max(*value)));
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let newest = values.last().copied();
    match newest {
        Some(value) => eprintln!(
            "  {name:<24} told in {} of {} looks: {least:.4} to {greatest:.4}, mean {mean:.4}, last {value:.4}",
            values.len(),
            rows.len()
        ),
        None => eprintln!("  {name:<24} never told in {} looks", rows.len()),
    }
    newest
}

/// Prints a latency as the engine's windows tell it beside what the load generator measured through Envoy.
pub(crate) fn print_beside(what: &str, row: &Value, prefix: &str, measured: &Quantiles) {
    let told = ["mean", "p50", "p95"].map(|part| signal(row, &format!("{prefix}_{part}")).map(|it| it * 1e3));
    let text = told.map(|value| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.1}")));
    let Quantiles { count, p50_ms, p90_ms, p99_ms, .. } = measured;
    eprintln!(
        "{what}, ms: window mean {}, p50 {}, p95 {}; load generator p50 {p50_ms:.1}, p90 {p90_ms:.1}, p99 {p99_ms:.1} ({count})",
        text[0], text[1], text[2]
    );
}

/// Every number of a row that stands under that kind of name, to look for nonsense in.
pub(crate) fn negative_signals(row: &Value) -> Vec<String> {
    let Some(signals) = row.get("signals").and_then(Value::as_object) else { return Vec::new() };
    let negative = |signal: &Value| signal.get("value").and_then(Value::as_f64).is_some_and(|value| value < 0.0);
    signals.iter().filter(|(_, signal)| negative(signal)).map(|(name, signal)| format!("{name}: {signal}")).collect()
}

fn sum(page: &str, metric: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Prints by how much `read` misses the engine's running and waiting requests.
fn print_error(what: &str, looks: &[Look], read: impl Fn(&Look) -> Option<f64>) {
    let errors: Vec<f64> =
        looks.iter().filter_map(|look| Some((read(look)? - (look.truth.0 + look.truth.1)).abs())).collect();
    let (mean, max) =
        (errors.iter().sum::<f64>() / errors.len().max(1) as f64, errors.iter().copied().fold(0.0, f64::max));
    eprintln!("{what}: {} looks, error mean {mean:.2}, max {max:.0}", errors.len());
}

/// Prints by how much each of Fairlead's pictures of an engine's load misses the engine's own.
pub(crate) fn print_errors(looks: &[Look]) {
    print_error("own count of requests in flight", looks, |look| Some(look.in_flight));
    print_error("engine's running and waiting as told", looks, |look| look.told.map(|(one, two)| one + two));
    print_error("the two put together", looks, |look| look.combined);
}

/// A signal is what it should be to a factor of two: it is taken over another time, in buckets, and on the engine's side.
pub(crate) fn assert_near(what: &str, told: f64, expected: f64) {
    assert!((expected / 2.0..=expected * 2.0).contains(&told), "{what}: told {told}, expected about {expected}");
}

/// The row once nothing is in flight and the engine was read after that.
pub(crate) async fn settled(real: &Real) -> Value {
    real.settle().await;
    let is_idle = || async { signal(&real.row().await, "running") == Some(0.0) };
    wait_until("the engine read when idle", SETTLE, is_idle).await.unwrap();
    real.row().await
}

/// Prints a load's report.
pub(crate) fn print_report(what: &str, report: &Report) {
    let mut table = Vec::new();
    report.write_table(&mut table).unwrap();
    eprintln!("{what}\n{}", String::from_utf8(table).unwrap());
}
