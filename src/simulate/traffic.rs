//! What a run is fed with: a named workload or a trace, at some demand.

use std::fmt;

use fastrand::Rng;

use super::engine::{EngineSpec, whole};
use super::scenario::{Demand, Scenario};
use super::workload::{Arrivals, Pattern, Script, Scripts, Trace, Typical, Workload};

/// The traffic of a run.
#[derive(Debug, Clone)]
pub enum Traffic {
    /// Drawn from a generator.
    Named(&'static Workload),
    /// Recorded.
    Trace(String, Trace),
}

impl Traffic {
    /// Name in tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(workload) => workload.name,
            Self::Trace(name, _) => name,
        }
    }

    /// Requests of a trace; `None` of what is drawn, which does not end.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Named(_) => None,
            Self::Trace(_, trace) => Some(trace.requests.len() as u64),
        }
    }

    /// Requests a second of a trace; `None` of what is drawn.
    pub fn recorded_rate(&self) -> Option<f64> {
        match self {
            Self::Named(_) => None,
            Self::Trace(_, trace) => Some(trace.rate()),
        }
    }

    /// Requests a second that `engines` carry together without any help from their prefix caches.
    pub fn capacity(&self, engines: &[EngineSpec], block_tokens: u64, seed: u64) -> f64 {
        let typical = self.typical(block_tokens, seed);
        engines.iter().map(|engine| typical.capacity(engine)).sum()
    }

    fn typical(&self, block_tokens: u64, seed: u64) -> Typical {
        match self {
            Self::Named(workload) => {
                let mut rng = Rng::with_seed(seed);
                let mut scripts = (workload.scripts)(block_tokens, &mut rng);
                Typical::drawn(&mut *scripts, &mut rng)
            }
            Self::Trace(_, trace) => Typical::of(trace.requests.iter().map(|(_, script)| script)),
        }
    }

    /// The scripts of one run and the times when they begin, the same for every strategy.
    pub(super) fn supply(&self, demand: Demand, scenario: &Scenario) -> Supply {
        let mut rng = Rng::with_seed(scenario.seed);
        match self {
            Self::Named(workload) => {
                let scripts = (workload.scripts)(scenario.block_tokens, &mut rng);
                let turns = self.typical(scenario.block_tokens, scenario.seed).turns;
                let arrivals = match demand {
                    Demand::Rate(rate) => Arrivals::new(workload.pattern, rate / turns),
                    Demand::Concurrency(_) => Arrivals::new(Pattern::Poisson, 1.0),
                };
                Supply::Drawn { scripts, arrivals, times: rng.fork(), rng }
            }
            Self::Trace(_, trace) => {
                let stretch = match demand {
                    Demand::Rate(rate) => trace.rate() / rate,
                    Demand::Concurrency(_) => 1.0,
                };
                Supply::Recorded { requests: trace.requests.clone().into_iter(), stretch }
            }
        }
    }
}

/// Scripts and the times when they begin.
pub(super) enum Supply {
    Drawn { scripts: Box<dyn Scripts>, arrivals: Arrivals, rng: Rng, times: Rng },
    Recorded { requests: std::vec::IntoIter<(u64, Script)>, stretch: f64 },
}

impl fmt::Debug for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supply").finish_non_exhaustive()
    }
}

impl Supply {
    /// When the next script begins in an open loop.
    pub(super) fn next_time(&mut self) -> Option<u64> {
        match self {
            Self::Drawn { arrivals, times, .. } => Some(arrivals.next(times)),
            Self::Recorded { requests, stretch } => {
                requests.as_slice().first().map(|(at, _)| whole(*at as f64 * *stretch))
            }
        }
    }

    /// The next script.
    pub(super) fn next_script(&mut self) -> Option<Script> {
        match self {
            Self::Drawn { scripts, rng, .. } => Some(scripts.next(rng)),
            Self::Recorded { requests, .. } => requests.next().map(|(_, script)| script),
        }
    }
}
