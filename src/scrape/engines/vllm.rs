//! vLLM. Names as of 0.32; `gpu_cache_usage_perc` was deprecated in vLLM's PR 18354 and removed in its PR 29330.
//!
//! With data parallelism one page holds a series per rank (label `engine`).

use crate::domain::Gauge;

use super::{Fold, Signal};

pub(super) const SIGNALS: &[Signal] = &[
    Signal { gauge: Gauge::Running, names: &["vllm:num_requests_running"], fold: Fold::Sum },
    Signal { gauge: Gauge::Waiting, names: &["vllm:num_requests_waiting"], fold: Fold::Sum },
    Signal {
        gauge: Gauge::KvUsage,
        names: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        fold: Fold::MeanShare,
    },
];

#[cfg(test)]
mod tests {
    use crate::scrape::engines::Reading;
    use crate::scrape::text;

    use super::*;

    fn gauges(page: &str) -> [Option<f64>; 3] {
        let mut reading = Reading::new(SIGNALS);
        text::scan(page.as_bytes(), |sample| reading.add(sample.name, sample.value));
        [Gauge::Running, Gauge::Waiting, Gauge::KvUsage].map(|gauge| reading.gauges().get(gauge))
    }

    #[test]
    fn a_page_of_a_busy_engine_tells_all_gauges() {
        let page = include_str!("../../../tests/fixtures/vllm-0.32.0-metrics-busy.txt");
        assert_eq!(gauges(page), [Some(2.0), Some(4.0), Some(0.260_869_565_217_391_35)]);
    }

    #[test]
    fn ranks_are_added_up_and_their_cache_use_is_averaged() {
        let page = include_str!("../../../tests/fixtures/vllm-0.32.0-metrics-dp2.txt");
        assert_eq!(gauges(page), [Some(0.0), Some(0.0), Some(0.0)]);
        let busy = page
            .replace("running{engine=\"1\",model_name=\"tiny\"} 0.0", "running{engine=\"1\",model_name=\"tiny\"} 3.0")
            .replace("waiting{engine=\"0\",model_name=\"tiny\"} 0.0", "waiting{engine=\"0\",model_name=\"tiny\"} 5.0")
            .replace("perc{engine=\"1\",model_name=\"tiny\"} 0.0", "perc{engine=\"1\",model_name=\"tiny\"} 0.5");
        assert_eq!(gauges(&busy), [Some(3.0), Some(5.0), Some(0.25)]);
    }
}
