//! A real engine behind the real Envoy and Fairlead, and what the three of them say about it at the same moment.
#![allow(dead_code, reason = "each test target uses its own part")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_lab::harness::{Child, ExtProc, Folder, Stack, StackBuilder, free_address, get, wait_until};
use fairlead_lab::load::{LoadOptions, Pace, Report, run as load};
use serde_json::Value;
use tokio::time::Instant;

const QUICKSTART: &str = include_str!("../../envoy/quickstart.yaml");
const CONFIG: &str = "\
listen: { ext_proc: \"unix:{ext_proc}\", admin: \"{admin}\" }
routing: { algorithm: \"{algorithm}\" }
discovery: { file: { path: \"{endpoints}\" } }
envoy: { eds_file: \"{eds}\" }
";
/// Default strategies by how much of an engine's metrics they need; the first that this Fairlead has is taken, for it reads
/// only what somebody needs.
const ALGORITHMS: [&str; 2] = ["least-request:1,least-kv-cache:1,least-latency:1,throughput:1", "least-request"];
const SETTLE: Duration = Duration::from_mins(1);
/// Between two looks at everybody's numbers.
const LOOK: Duration = Duration::from_millis(100);

/// How an engine is started, and what it calls things.
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) model: &'static str,
    /// Its kind in the endpoint list.
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
    engine: Option<Child>,
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
        let kind = if knows(&binary, recipe.kind, ALGORITHMS[1], &folder) { recipe.kind } else { "none" };
        let algorithm = ALGORITHMS.into_iter().find(|algorithm| knows(&binary, kind, algorithm, &folder)).unwrap();
        eprintln!("engine '{}' at {address}, known to Fairlead as '{kind}', strategy {algorithm}", recipe.model);
        let list = format!("- {{ address: \"{address}\", models: [{}], engine: {kind} }}\n", recipe.model);
        let ext_proc = ExtProc::Fairlead { binary, config: CONFIG.replace("{algorithm}", algorithm) };
        let stack = StackBuilder::quickstart(ext_proc, QUICKSTART).endpoints(list).start().await.unwrap();
        Self { stack, engine: Some(engine), address, recipe, folder }
    }

    /// Ends the engine as a crash would, and starts it again on its port.
    pub(crate) async fn restart_engine(&mut self) {
        self.engine.take().unwrap().kill().unwrap();
        self.engine = Some(start_engine(&self.recipe, self.address, &self.folder).await);
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
        Some(Look { in_flight: row["in_flight"].as_f64()?, told, truth })
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

    /// Waits until Fairlead tells a signal that `holds`; `None` if this Fairlead tells no such signal at all.
    pub(crate) async fn signal_that(&self, name: &str, holds: impl Fn(f64) -> bool) -> Option<f64> {
        let row = self.row().await;
        if row.get("signals").is_none_or(|signals| signals.get(name).is_none()) && row["gauges"].get(name).is_none() {
            eprintln!("{name}: this Fairlead does not tell it");
            return None;
        }
        let told = || async { signal(&self.row().await, name).is_some_and(&holds) };
        wait_until(&format!("signal '{name}'"), Duration::from_secs(20), told).await.unwrap();
        let value = signal(&self.row().await, name);
        eprintln!("{name}: {value:?}");
        value
    }
}

async fn start_engine(recipe: &Recipe, address: SocketAddr, folder: &Folder) -> Child {
    let port = address.port().to_string();
    let mut arguments: Vec<&str> = recipe.arguments.iter().map(String::as_str).collect();
    arguments.extend(["--host", "127.0.0.1", "--port", &port]);
    let started = Instant::now();
    let mut engine = Child::spawn("the engine", &recipe.program, &arguments, &folder.join("engine.log")).unwrap();
    engine.wait_ready(&format!("http://{address}/health"), recipe.start).await.unwrap();
    eprintln!("engine ready after {:.1} s", started.elapsed().as_secs_f64());
    engine
}

/// Whether this Fairlead has that kind of engine and that strategy.
fn knows(fairlead: &Path, kind: &str, algorithm: &str, folder: &Folder) -> bool {
    let text = format!(
        "routing: {{ algorithm: \"{algorithm}\" }}\n\
         discovery: {{ static: [ {{ address: 127.0.0.1:1, models: [m], engine: {kind} }} ] }}\n"
    );
    let path = folder.write("check.yaml", &text).unwrap();
    let output = std::process::Command::new(fairlead).args(["check", "--config"]).arg(path).output().unwrap();
    output.status.success()
}

/// A signal of a row: `signals.NAME.value`, else `gauges.NAME`; `None` while it is unknown.
pub(crate) fn signal(row: &Value, name: &str) -> Option<f64> {
    let told = row.get("signals").and_then(|signals| signals.get(name));
    match told {
        Some(signal) => signal.get("value")?.as_f64(),
        None => row["gauges"].get(name)?.as_f64(),
    }
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
pub(crate) fn print_error(what: &str, looks: &[Look], read: impl Fn(&Look) -> Option<f64>) {
    let errors: Vec<f64> =
        looks.iter().filter_map(|look| Some((read(look)? - (look.truth.0 + look.truth.1)).abs())).collect();
    let (mean, max) =
        (errors.iter().sum::<f64>() / errors.len().max(1) as f64, errors.iter().copied().fold(0.0, f64::max));
    eprintln!("{what}: {} looks, error mean {mean:.2}, max {max:.0}", errors.len());
}

/// Prints a load's report.
pub(crate) fn print_report(what: &str, report: &Report) {
    let mut table = Vec::new();
    report.write_table(&mut table).unwrap();
    eprintln!("{what}\n{}", String::from_utf8(table).unwrap());
}
