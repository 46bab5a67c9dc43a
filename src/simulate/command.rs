//! Doing what the command line says.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::routing::{InvalidStrategies, names};

use super::calibrate::{self, CalibrateError};
use super::engine::{self, CostModel, EngineSpec, PRESETS, whole};
use super::options::{Options, Other};
use super::report;
use super::run::Chooser;
use super::scenario::{Scenario, Slo};
use super::strategy;
use super::sweep::{Steps, Sweep};
use super::traffic::Traffic;
use super::workload::{Trace, TraceError, WORKLOADS, Workload};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// No such workload.
    #[error("\"{0}\" is not a workload; known are {known}", known = known(WORKLOADS.iter().map(|w| w.name)))]
    Workload(String),
    /// No such engine.
    #[error("\"{0}\" is not an engine such as \"llama-3-8b-a100:4*0.5\"; known are {known}", known = known(PRESETS.iter().map(|p| p.name)))]
    Engine(String),
    /// A number that makes no sense.
    #[error("\"{0}\" must be {1}")]
    Number(&'static str, &'static str),
    /// No such strategy.
    #[error(transparent)]
    Strategy(#[from] InvalidStrategies),
    /// The trace cannot be used.
    #[error("trace \"{0}\"")]
    Trace(PathBuf, #[source] TraceError),
    /// A file cannot be read or written.
    #[error("\"{0}\"")]
    File(PathBuf, #[source] io::Error),
    /// A cost model is not one.
    #[error("cost model \"{0}\"")]
    Cost(PathBuf, #[source] serde_json::Error),
    /// Samples cannot be used.
    #[error("samples \"{0}\"")]
    Samples(PathBuf, #[source] CalibrateError),
    /// A result cannot be written as JSON.
    #[error("\"{0}\"")]
    Json(PathBuf, #[source] serde_json::Error),
    /// The result cannot be printed.
    #[error("cannot write the result")]
    Output(#[source] io::Error),
}

fn known(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Requests of a run, where nothing is said.
const REQUESTS: u64 = 20_000;
/// Shares of the fleet's capacity, where nothing is said.
const LOADS: [f64; 3] = [0.5, 0.8, 1.1];
/// Tokens of a block, where nothing is said: coarser than an engine's 16, and much faster.
const BLOCK_TOKENS: u64 = 128;

/// Simulates, or does what else was asked; the result goes to `out`, progress to standard error.
///
/// # Errors
/// Whatever was asked for that does not exist, and files that cannot be read or written.
pub fn execute(options: &Options, out: &mut dyn Write) -> Result<(), SimulateError> {
    if let Some(Other::Calibrate { samples, step_tokens }) = &options.other {
        return calibrate(samples, *step_tokens, out);
    }
    report_on(&sweep(options)?, options, out)
}

/// Runs a sweep; the result goes to `out` and where else the options say, progress to standard error.
///
/// # Errors
/// A strategy that is not known, and files that cannot be written.
pub fn report_on(sweep: &Sweep, options: &Options, out: &mut dyn Write) -> Result<(), SimulateError> {
    let bar = Bar::default();
    let cells = sweep.run(|done, total, name| bar.show(done, total, name))?;
    if let Some(path) = &options.json {
        let text = report::json(&sweep.scenario, &cells).map_err(|error| SimulateError::Json(path.clone(), error))?;
        write_file(path, &text)?;
    }
    if let Some(folder) = &options.svg {
        fs::create_dir_all(folder).map_err(|error| SimulateError::File(folder.clone(), error))?;
        for (name, text) in report::plots(&cells) {
            write_file(&folder.join(name), text.as_bytes())?;
        }
    }
    let text = report::table(&cells) + &report::carried(&cells, sweep.scenario.slo.ttft_ms);
    out.write_all(text.as_bytes()).map_err(SimulateError::Output)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SimulateError> {
    fs::write(path, bytes).map_err(|error| SimulateError::File(path.to_owned(), error))
}

/// Prints the fitted model as JSON, for `--cost`, and how well it fits on standard error.
fn calibrate(path: &Path, step_tokens: u64, out: &mut dyn Write) -> Result<(), SimulateError> {
    let file = fs::File::open(path).map_err(|error| SimulateError::File(path.to_owned(), error))?;
    let failed = |error| SimulateError::Samples(path.to_owned(), error);
    let fit = calibrate::read_samples(io::BufReader::new(file))
        .and_then(|samples| calibrate::fit(&samples, step_tokens))
        .map_err(failed)?;
    let (ttft, itl) = (fit.ttft_error * 100.0, fit.itl_error * 100.0);
    // The result counts, not the remark.
    writeln!(io::stderr(), "mean error: time to first token {ttft:.1} %, time between tokens {itl:.1} %").ok();
    let text = serde_json::to_string_pretty(&fit.cost).map_err(|error| SimulateError::Json(path.to_owned(), error))?;
    writeln!(out, "{text}").map_err(SimulateError::Output)
}

/// What the options ask for.
///
/// # Errors
/// Names that do not exist, numbers that make no sense, files that cannot be read.
pub fn sweep(options: &Options) -> Result<Sweep, SimulateError> {
    let traffics = traffics(options)?;
    let engines = engines(options)?;
    let recorded = options.trace.is_some();
    let most = if recorded { u64::MAX } else { REQUESTS };
    let steps = steps(options)?;
    if !(0.0..1.0).contains(&options.warm_up) {
        return Err(SimulateError::Number("--warm-up", "at least 0 and less than 1"));
    }
    let length = traffics.iter().filter_map(Traffic::length).max().unwrap_or(u64::MAX);
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let scenario = Scenario {
        engines,
        block_tokens: options.block_tokens.unwrap_or(if recorded { 512 } else { BLOCK_TOKENS }),
        faults: options.fault.clone(),
        replicas: usize::from(options.replicas),
        scrape_us: whole(millis(options.scrape_interval) * 1e3).max(1000),
        requests: options.requests.unwrap_or(most).min(length),
        warm_up: options.warm_up,
        slo: Slo { ttft_ms: millis(options.slo_ttft), itl_ms: millis(options.slo_itl) },
        seed: options.seed,
    };
    let strategies: Vec<String> = if options.strategy.is_empty() {
        names().into_iter().map(ToOwned::to_owned).collect()
    } else {
        options.strategy.iter().flat_map(|text| named(text)).collect()
    };
    for name in &strategies {
        strategy::router(name)?;
    }
    let mut choosers: Vec<_> = strategies.into_iter().map(Chooser::Strategy).collect();
    if !options.no_oracle {
        choosers.push(Chooser::Oracle);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Sweep { scenario, traffics, steps, choosers, threads: options.threads.unwrap_or(cores) })
}

/// Names with commas, or a combination, which has weights, or one with parameters.
fn named(text: &str) -> Vec<String> {
    if text.contains(':') || strategy::is_tuned(text) {
        vec![text.to_owned()]
    } else {
        text.split(',').map(ToOwned::to_owned).collect()
    }
}

fn traffics(options: &Options) -> Result<Vec<Traffic>, SimulateError> {
    if let Some(path) = &options.trace {
        let trace = Trace::load(path).map_err(|error| SimulateError::Trace(path.clone(), error))?;
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        return Ok(vec![Traffic::Trace(name, trace)]);
    }
    let find = |name: &String| Workload::named(name).ok_or_else(|| SimulateError::Workload(name.clone()));
    options.workload.iter().map(|name| find(name).map(Traffic::Named)).collect()
}

fn steps(options: &Options) -> Result<Steps, SimulateError> {
    let positive = |values: &[f64]| values.iter().all(|value| value.is_finite() && *value > 0.0);
    if !positive(&options.load) || !positive(&options.rate) || options.concurrency.contains(&0) {
        return Err(SimulateError::Number("--load, --rate, --concurrency", "more than 0"));
    }
    Ok(if !options.rate.is_empty() {
        Steps::Rates(options.rate.clone())
    } else if !options.concurrency.is_empty() {
        Steps::Concurrencies(options.concurrency.clone())
    } else if !options.load.is_empty() {
        Steps::Loads(options.load.clone())
    } else if options.trace.is_some() {
        Steps::AsRecorded
    } else {
        Steps::Loads(LOADS.to_vec())
    })
}

fn engines(options: &Options) -> Result<Vec<EngineSpec>, SimulateError> {
    let mut engines = Vec::new();
    for text in &options.engines {
        let (spec, count) = engine_of(text).ok_or_else(|| SimulateError::Engine(text.clone()))?;
        engines.extend(std::iter::repeat_n(spec, count));
    }
    if engines.is_empty() || engines.len() > crate::state::ENDPOINTS_MAX {
        return Err(SimulateError::Number("--engines", "at least one, and no more than a registry holds"));
    }
    if let Some(path) = &options.cost {
        let cost = cost_model(path)?;
        for engine in &mut engines {
            engine.cost = cost;
        }
    }
    for engine in &mut engines {
        engine.kv_tokens = options.kv_tokens.unwrap_or(engine.kv_tokens);
        engine.step_tokens = options.step_tokens.unwrap_or(engine.step_tokens);
    }
    Ok(engines)
}

/// `PRESET[:COUNT][*SPEED]`.
fn engine_of(text: &str) -> Option<(EngineSpec, usize)> {
    let (text, speed) = match text.split_once('*') {
        Some((text, speed)) => (text, speed.parse().ok().filter(|s: &f64| s.is_finite() && *s > 0.0)?),
        None => (text, 1.0),
    };
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (text, 1),
    };
    let spec = engine::preset(name)?.spec;
    Some((EngineSpec { cost: spec.cost.at_speed(speed), ..spec }, count))
}

fn cost_model(path: &Path) -> Result<CostModel, SimulateError> {
    let text = fs::read(path).map_err(|error| SimulateError::File(path.to_owned(), error))?;
    serde_json::from_slice(&text).map_err(|error| SimulateError::Cost(path.to_owned(), error))
}

/// Progress on standard error: one line that is rewritten, where somebody can see it.
#[derive(Debug, Default)]
struct Bar(Mutex<usize>);

impl Bar {
    const WIDTH: usize = 30;

    fn show(&self, done: usize, total: usize, name: &str) {
        let mut err = io::stderr().lock();
        // Two threads may come in the other order.
        let Ok(mut shown) = self.0.lock() else { return };
        if !err.is_terminal() || done <= *shown {
            return;
        }
        *shown = done;
        let filled = Self::WIDTH * done / total.max(1);
        let end = if done == total { "\r\x1b[K" } else { "" };
        // Progress that nobody can read is no fault.
        write!(err, "\r\x1b[K[{:#<filled$}{:.<2$}] {done}/{total} {name}{end}", "", "", Self::WIDTH - filled).ok();
    }
}
