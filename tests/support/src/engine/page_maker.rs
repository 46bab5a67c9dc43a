//! Pages of an engine that does not exist.

use std::time::Duration;

use super::dialect::Dialect;
use super::exposition::{Exposition, Honesty};
use super::options::{BLOCK_TOKENS, Capacity, EngineOptions};
use super::stats::Stats;

/// Requests that a busy engine ends each second.
const REQUESTS_PER_SECOND: f64 = 5.0;
const TOKENS_PER_REQUEST: u64 = 100;

/// Makes metrics pages of an engine that is idle, or has been busy for some time.
#[derive(Debug)]
pub struct PageMaker {
    exposition: Exposition,
    dialect: Dialect,
    kv_tokens: usize,
}

impl PageMaker {
    /// For one engine with that model.
    pub fn new(dialect: Dialect, model: &str) -> Self {
        let options = EngineOptions { dialect, models: vec![model.to_owned()], ..EngineOptions::default() };
        let kv_tokens = Capacity::default().kv_blocks * BLOCK_TOKENS;
        Self { exposition: Exposition::new(&options), dialect, kv_tokens }
    }

    /// Where the page is served.
    pub fn path(&self) -> Option<&'static str> {
        self.dialect.metrics_path()
    }

    /// The page of an idle engine, or of one that has been busy for so long.
    pub fn page(&self, busy: Option<Duration>) -> String {
        let mut stats = Stats { kv_tokens: self.kv_tokens, ..Stats::default() };
        if let Some(since) = busy {
            let requests = (since.as_secs_f64() * REQUESTS_PER_SECOND).ceil().max(0.0);
            stats.running = 4;
            stats.waiting = 2;
            stats.kv_usage = 0.4;
            stats.finished_stop = Duration::from_secs_f64(requests).as_secs();
            stats.prompt_tokens = stats.finished_stop * TOKENS_PER_REQUEST * 5;
            stats.prefix_queries = stats.prompt_tokens;
            stats.prefix_hits = stats.prompt_tokens / 2;
            stats.generation_tokens = stats.finished_stop * TOKENS_PER_REQUEST;
            for number in 0..stats.finished_stop.min(10_000) {
                let spread = Duration::from_millis(number % 50);
                stats.ttft.add(Duration::from_millis(60) + spread);
                stats.inter_token.add(Duration::from_millis(8) + spread / 10);
                stats.queue_time.add(spread);
                stats.end_to_end.add(Duration::from_secs(1) + spread);
            }
        }
        self.exposition.render(&[stats], Honesty::Truth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_page_grows_with_time_and_an_idle_one_does_not() {
        let maker = PageMaker::new(Dialect::Vllm, "m");
        let tokens = "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"}";
        assert!(maker.page(None).contains(&format!("{tokens} 0.0\n")));
        assert!(maker.page(Some(Duration::from_secs(2))).contains(&format!("{tokens} 1000.0\n")));
        assert!(maker.page(Some(Duration::from_secs(4))).contains(&format!("{tokens} 2000.0\n")));
    }
}
