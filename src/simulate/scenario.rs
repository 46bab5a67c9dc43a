//! What is simulated: the fleet, its faults, the routers, the demand.

use serde::Serialize;

use super::engine::EngineSpec;

/// What a run is made of, apart from the traffic and the strategy.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The engines.
    pub engines: Vec<EngineSpec>,
    /// Tokens of a KV block, and of a block of the workload.
    pub block_tokens: u64,
    /// What happens to engines meanwhile.
    pub faults: Vec<Fault>,
    /// Copies of Fairlead, none of which sees the requests of another.
    pub replicas: usize,
    /// How often each of them reads each engine's metrics, in microseconds.
    pub scrape_us: u64,
    /// Requests to send.
    pub requests: u64,
    /// The first of them that are not counted, as a share.
    pub warm_up: f64,
    /// What a good answer is.
    pub slo: Slo,
    /// Beginning of all randomness.
    pub seed: u64,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Demand {
    /// Open loop: so many requests a second on average, whatever becomes of them.
    Rate(f64),
    /// Closed loop: so many conversations at a time, each followed by another.
    Concurrency(u32),
}

/// What a good answer is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slo {
    /// Longest time to the first token, in milliseconds.
    pub ttft_ms: f64,
    /// Longest mean time between tokens, in milliseconds.
    pub itl_ms: f64,
}

/// What happens to an engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Its position.
    pub engine: usize,
    /// When it begins, in microseconds.
    pub from_us: u64,
    /// When it is over.
    pub until_us: u64,
    /// The speed meanwhile, as a share; `None` is dead: it loses its requests, comes back empty, and refuses meanwhile.
    pub speed: Option<f64>,
}

/// A text that is not a fault.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a fault such as \"3:down@60+30\" or \"3:slow*0.25@60+30\" (engine, what, second, for seconds)")]
pub struct FaultError(String);

impl std::str::FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| FaultError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (engine, rest) = text.split_once(':')?;
    let (kind, when) = rest.split_once('@')?;
    let (from, length) = when.split_once('+')?;
    let seconds = |text: &str| text.parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0);
    let micros = |seconds: f64| super::engine::whole(seconds * 1e6);
    let (from, length) = (micros(seconds(from)?), micros(seconds(length)?));
    let speed = match kind.split_once('*') {
        None if kind == "down" => None,
        Some(("slow", factor)) => Some(factor.parse().ok().filter(|f: &f64| f.is_finite() && *f > 0.0)?),
        _ => return None,
    };
    Some(Fault { engine: engine.parse().ok()?, from_us: from, until_us: from + length, speed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_nonsense_is_not() {
        let slow: Fault = "3:slow*0.25@60+30".parse().unwrap();
        assert_eq!(slow, Fault { engine: 3, from_us: 60_000_000, until_us: 90_000_000, speed: Some(0.25) });
        assert_eq!("0:down@1.5+2".parse::<Fault>().unwrap().speed, None);
        for bad in
            ["", "3", "3:down", "3:down@1", "3:slow@1+1", "3:slow*0@1+1", "x:down@1+1", "3:up@1+1", "1:down@-1+1"]
        {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }
}
