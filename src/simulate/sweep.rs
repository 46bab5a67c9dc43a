//! Many runs: every strategy with every traffic at every demand, on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

use crate::routing::InvalidStrategies;

use super::measure::Summary;
use super::run::{Chooser, run};
use super::scenario::{Demand, Scenario};
use super::traffic::Traffic;

/// How much of a traffic to send, step by step.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps {
    /// Shares of what the fleet carries without any help from its prefix caches.
    Loads(Vec<f64>),
    /// Requests a second.
    Rates(Vec<f64>),
    /// Conversations at a time.
    Concurrencies(Vec<u32>),
    /// A trace as it was recorded.
    AsRecorded,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Fleet and sizes.
    pub scenario: Scenario,
    /// The traffics.
    pub traffics: Vec<Traffic>,
    /// How much of each.
    pub steps: Steps,
    /// Who chooses.
    pub choosers: Vec<Chooser>,
    /// Threads to run on.
    pub threads: usize,
}

/// One run and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The traffic's name.
    pub workload: String,
    /// The demand in words.
    pub demand: String,
    /// The demand as a number: requests a second, or conversations at a time.
    pub x: f64,
    /// The strategy's name.
    pub strategy: String,
    /// The result.
    #[serde(flatten)]
    pub summary: Summary,
}

struct Job<'a> {
    traffic: &'a Traffic,
    demand: Demand,
    words: String,
    x: f64,
    chooser: &'a Chooser,
}

impl Sweep {
    /// Runs all of it; tells `progress` how many runs are done, of how many, and what was done last. The order and the
    /// content of the result do not depend on the threads.
    ///
    /// # Errors
    /// A strategy is not known.
    pub fn run(&self, progress: impl Fn(usize, usize, &str) + Sync) -> Result<Vec<Cell>, InvalidStrategies> {
        let jobs: Vec<_> = self.traffics.iter().flat_map(|traffic| self.jobs(traffic)).collect();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new((0..jobs.len()).map(|_| None).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, jobs.len().max(1)) {
                scope.spawn(|| {
                    while let Some((at, job)) = take(&next, &jobs) {
                        let result = run(&self.scenario, job.traffic, job.demand, job.chooser);
                        if let Ok(mut results) = results.lock()
                            && let Some(place) = results.get_mut(at)
                        {
                            *place = Some(result);
                        }
                        let name = format!("{}, {}, {}", job.traffic.name(), job.words, job.chooser.name());
                        progress(done.fetch_add(1, Relaxed) + 1, jobs.len(), &name);
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_default();
        let mut cells = Vec::with_capacity(jobs.len());
        for (job, result) in jobs.iter().zip(results) {
            let Some(summary) = result.transpose()? else { continue };
            let (workload, strategy) = (job.traffic.name().to_owned(), job.chooser.name().to_owned());
            cells.push(Cell { workload, demand: job.words.clone(), x: job.x, strategy, summary });
        }
        regret(&mut cells);
        Ok(cells)
    }

    fn jobs<'a>(&'a self, traffic: &'a Traffic) -> impl Iterator<Item = Job<'a>> {
        let at_rate = |rate: f64, words: String| (Demand::Rate(rate), words, rate);
        let steps: Vec<_> = match &self.steps {
            Steps::Loads(loads) => {
                let scenario = &self.scenario;
                let capacity = traffic.capacity(&scenario.engines, scenario.block_tokens, scenario.seed);
                let step = |load: &f64| at_rate(load * capacity, format!("load {load} ({:.1}/s)", load * capacity));
                loads.iter().map(step).collect()
            }
            Steps::Rates(rates) => rates.iter().map(|rate| at_rate(*rate, format!("{rate}/s"))).collect(),
            Steps::Concurrencies(counts) => {
                let step = |count: &u32| (Demand::Concurrency(*count), format!("{count} at a time"), f64::from(*count));
                counts.iter().map(step).collect()
            }
            Steps::AsRecorded => {
                let rate = traffic.recorded_rate().unwrap_or(1.0);
                vec![at_rate(rate, format!("as recorded ({rate:.1}/s)"))]
            }
        };
        steps.into_iter().flat_map(move |(demand, words, x)| {
            self.choosers.iter().map(move |chooser| Job { traffic, demand, words: words.clone(), x, chooser })
        })
    }
}

fn take<'a, T>(next: &AtomicUsize, jobs: &'a [T]) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Relaxed);
    Some((at, jobs.get(at)?))
}

/// Compares each run with the oracle's at the same demand.
fn regret(cells: &mut [Cell]) {
    let oracle = Chooser::Oracle;
    let best: Vec<_> = cells.iter().filter(|cell| cell.strategy == oracle.name()).cloned().collect();
    for cell in cells {
        let same = best.iter().find(|other| other.workload == cell.workload && other.demand == cell.demand);
        cell.summary.regret = same.map(|other| cell.summary.e2e_ms.mean / other.summary.e2e_ms.mean.max(1e-9) - 1.0);
    }
}
