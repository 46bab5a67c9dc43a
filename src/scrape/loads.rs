//! `SGLang`'s `/v1/loads`: the scheduler's own numbers, one object for each data-parallel rank.

use serde::Deserialize;

use crate::domain::{Gauge, GaugeSet, Gauges};

/// Where it is.
pub(super) const PATH: &str = "/v1/loads?include=core,memory,queues";

/// What it tells. Whatever else is needed is in the metrics.
pub(super) const TELLS: GaugeSet = GaugeSet::of(&[
    Gauge::Running,
    Gauge::Waiting,
    Gauge::KvUsage,
    Gauge::KvCapacity,
    Gauge::MaxRunning,
    Gauge::WaitingTokens,
    Gauge::Utilization,
    // Not told, and nobody else tells it either.
    Gauge::Awake,
]);

#[derive(Debug, Deserialize)]
struct Loads {
    loads: Vec<Rank>,
}

#[derive(Debug, Deserialize)]
struct Rank {
    num_running_reqs: Option<f64>,
    num_waiting_reqs: Option<f64>,
    num_waiting_uncached_tokens: Option<f64>,
    token_usage: Option<f64>,
    max_total_num_tokens: Option<f64>,
    max_running_requests: Option<f64>,
    utilization: Option<f64>,
}

/// The gauges of an answer; `None` if it is none of `SGLang`'s.
pub fn read(body: &[u8]) -> Option<Gauges> {
    let ranks = serde_json::from_slice::<Loads>(body).ok()?.loads;
    // One rank that tells nonsense makes the whole unknown.
    let told = |rank, field: fn(&Rank) -> Option<f64>| field(rank).filter(|value| *value >= 0.0);
    let sum = |field| ranks.iter().map(|rank| told(rank, field)).sum::<Option<f64>>();
    let mean = |field: fn(&Rank) -> Option<f64>| Some(sum(field)? / ranks.len() as f64).filter(|share| *share <= 1.0);
    if ranks.is_empty() {
        return None;
    }
    let mut gauges = Gauges::default();
    gauges.set(Gauge::Running, sum(|rank| rank.num_running_reqs));
    gauges.set(Gauge::Waiting, sum(|rank| rank.num_waiting_reqs));
    gauges.set(Gauge::WaitingTokens, sum(|rank| rank.num_waiting_uncached_tokens));
    gauges.set(Gauge::KvUsage, mean(|rank| rank.token_usage));
    gauges.set(Gauge::KvCapacity, sum(|rank| rank.max_total_num_tokens));
    gauges.set(Gauge::MaxRunning, sum(|rank| rank.max_running_requests));
    gauges.set(Gauge::Utilization, mean(|rank| rank.utilization));
    Some(gauges).filter(|gauges| !gauges.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_become_one() {
        let body = br#"{"timestamp":"t","version":"0.5.23","loads":[
            {"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":1,"num_waiting_uncached_tokens":700,"token_usage":0.5,
             "max_total_num_tokens":1000,"max_running_requests":8,"utilization":0.25,"cache_hit_rate":0.1},
            {"dp_rank":1,"num_running_reqs":1,"num_waiting_reqs":0,"num_waiting_uncached_tokens":0,"token_usage":0.1,
             "max_total_num_tokens":1000,"max_running_requests":8,"utilization":0.75}]}"#;
        let gauges = read(body).unwrap();
        let told = [Gauge::Running, Gauge::Waiting, Gauge::WaitingTokens, Gauge::KvCapacity, Gauge::MaxRunning];
        assert_eq!(told.map(|it| gauges.get(it)), [4.0, 1.0, 700.0, 2000.0, 16.0].map(Some));
        assert!((gauges.get(Gauge::KvUsage).unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(gauges.get(Gauge::Utilization), Some(0.5));
    }

    #[test]
    fn what_is_not_an_answer_of_sglang_is_nothing() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"loads":[]}"#,
            r#"{"loads":[{}]}"#,
            r#"{"loads":[{"num_running_reqs":-1}]}"#,
            r#"{"loads":[{"num_running_reqs":-1},{"num_running_reqs":5}]}"#,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }
}
