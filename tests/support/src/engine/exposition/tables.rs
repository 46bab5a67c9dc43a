//! The metrics of the other engines, as tables of names.

use std::fmt::Write;

use super::super::dialect::Dialect;
use super::super::options::{BLOCK_TOKENS, EngineOptions};
use super::super::stats::Stats;
use super::{Honesty, Number, Samples};

#[derive(Debug, Clone, Copy)]
enum Value {
    Gauge(Number),
    Counter(Number),
    /// Bounds and sum are multiplied by the factor (1 for seconds, 1,000 for milliseconds).
    Histogram(Samples, f64),
}

/// One metric: where it is told, its name, a label of its own, its value.
type Row = (Scope, &'static str, &'static str, Value);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Once for each data-parallel rank.
    Rank,
    /// Once, over all ranks.
    Server,
}

use Scope::{Rank, Server};
use Value::{Counter, Gauge, Histogram};

const SGLANG: &[Row] = &[
    (Rank, "sglang:num_running_reqs", "", Gauge(|stats| stats.running as f64)),
    (Rank, "sglang:num_queue_reqs", "", Gauge(|stats| stats.waiting as f64)),
    (Rank, "sglang:num_used_tokens", "", Gauge(|stats| stats.kv_usage * stats.kv_tokens as f64)),
    (Rank, "sglang:token_usage", "", Gauge(|stats| stats.kv_usage)),
    (Rank, "sglang:full_token_usage", "", Gauge(|stats| stats.kv_usage)),
    (Rank, "sglang:cache_hit_rate", "", Gauge(Stats::hit_rate)),
    (Rank, "sglang:page_size", "", Gauge(|_| BLOCK_TOKENS as f64)),
    (Rank, "sglang:num_pages", "", Gauge(|stats| (stats.kv_tokens / BLOCK_TOKENS) as f64)),
    (Rank, "sglang:max_total_num_tokens", "", Gauge(|stats| stats.kv_tokens as f64)),
    (Rank, "sglang:gen_throughput", "", Gauge(Stats::decode_rate)),
    (Rank, "sglang:num_retracted_requests_total", "", Counter(|stats| stats.preemptions as f64)),
    (Rank, "sglang:cached_tokens_total", "cache_source=\"device\"", Counter(|stats| stats.prefix_hits as f64)),
    (Server, "sglang:prompt_tokens_total", STREAMING, Counter(|stats| stats.prompt_tokens as f64)),
    (Server, "sglang:generation_tokens_total", STREAMING, Counter(|stats| stats.generation_tokens as f64)),
    (Server, "sglang:num_requests_total", STREAMING, Counter(Stats::finished)),
    (Server, "sglang:num_aborted_requests_total", "", Counter(|stats| stats.finished_abort as f64)),
    (Server, "sglang:time_to_first_token_seconds", STREAMING, Histogram(|stats| &stats.ttft, 1.0)),
    (Server, "sglang:inter_token_latency_seconds", STREAMING, Histogram(|stats| &stats.inter_token, 1.0)),
    (Server, "sglang:e2e_request_latency_seconds", STREAMING, Histogram(|stats| &stats.end_to_end, 1.0)),
    (Rank, "sglang:queue_time_seconds", "", Histogram(|stats| &stats.queue_time, 1.0)),
    (Server, "sglang:prompt_tokens_histogram", STREAMING, Histogram(|stats| &stats.prompt_lengths, 1.0)),
    (Server, "sglang:generation_tokens_histogram", STREAMING, Histogram(|stats| &stats.reply_lengths, 1.0)),
];
const STREAMING: &str = "is_streaming=\"true\"";

const TRTLLM: &[Row] = &[
    (Server, "trtllm_num_requests_running", "", Gauge(|stats| stats.running as f64)),
    (Server, "trtllm_num_requests_waiting", "", Gauge(|stats| stats.waiting as f64)),
    (Server, "trtllm_num_paused_requests", "", Gauge(|_| 0.0)),
    (Server, "trtllm_kv_cache_utilization", "", Gauge(|stats| stats.kv_usage)),
    (Server, "trtllm_kv_cache_tokens_per_block", "", Gauge(|_| BLOCK_TOKENS as f64)),
    (Server, "trtllm_kv_cache_max_blocks", "", Gauge(|stats| (stats.kv_tokens / BLOCK_TOKENS) as f64)),
    (Server, "trtllm_kv_cache_hit_rate", "", Gauge(Stats::hit_rate)),
    (
        Server,
        "trtllm_kv_cache_reused_blocks_total",
        "",
        Counter(|stats| (stats.prefix_hits / BLOCK_TOKENS as u64) as f64),
    ),
    (
        Server,
        "trtllm_kv_cache_missed_blocks_total",
        "",
        Counter(|stats| (stats.prefix_queries.saturating_sub(stats.prefix_hits) / BLOCK_TOKENS as u64) as f64),
    ),
    (Server, "trtllm_prompt_tokens_total", "", Counter(|stats| stats.prompt_tokens as f64)),
    (Server, "trtllm_generation_tokens_total", "", Counter(|stats| stats.generation_tokens as f64)),
    (Server, "trtllm_request_success_total", "finished_reason=\"stop\"", Counter(|stats| stats.finished_stop as f64)),
    (
        Server,
        "trtllm_request_success_total",
        "finished_reason=\"length\"",
        Counter(|stats| stats.finished_length as f64),
    ),
    (Server, "trtllm_time_to_first_token_seconds", "", Histogram(|stats| &stats.ttft, 1.0)),
    (Server, "trtllm_time_per_output_token_seconds", "", Histogram(|stats| &stats.inter_token, 1.0)),
    (Server, "trtllm_e2e_request_latency_seconds", "", Histogram(|stats| &stats.end_to_end, 1.0)),
    (Server, "trtllm_request_queue_time_seconds", "", Histogram(|stats| &stats.queue_time, 1.0)),
];

const LLAMACPP: &[Row] = &[
    (
        Server,
        "llamacpp:prompt_tokens_total",
        "",
        Counter(|stats| stats.prompt_tokens.saturating_sub(stats.prefix_hits) as f64),
    ),
    (Server, "llamacpp:prompt_tokens_cached_total", "", Counter(|stats| stats.prefix_hits as f64)),
    (Server, "llamacpp:prompt_seconds_total", "", Counter(|stats| stats.prefill_time.sum)),
    (Server, "llamacpp:tokens_predicted_total", "", Counter(|stats| stats.generation_tokens as f64)),
    (Server, "llamacpp:tokens_predicted_seconds_total", "", Counter(|stats| stats.decode_time.sum)),
    (Server, "llamacpp:predicted_tokens_seconds", "", Gauge(Stats::decode_rate)),
    (Server, "llamacpp:requests_processing", "", Gauge(|stats| stats.running as f64)),
    (Server, "llamacpp:requests_deferred", "", Gauge(|stats| stats.waiting as f64)),
];

const TGI: &[Row] = &[
    (Server, "tgi_batch_current_size", "", Gauge(|stats| stats.running as f64)),
    (Server, "tgi_queue_size", "", Gauge(|stats| stats.waiting as f64)),
    (Server, "tgi_request_count", "", Counter(Stats::finished)),
    (Server, "tgi_request_success", "", Counter(Stats::finished)),
    (Server, "tgi_request_duration", "", Histogram(|stats| &stats.end_to_end, 1.0)),
    (Server, "tgi_request_queue_duration", "", Histogram(|stats| &stats.queue_time, 1.0)),
    (Server, "tgi_request_mean_time_per_token_duration", "", Histogram(|stats| &stats.inter_token, 1.0)),
    (Server, "tgi_request_input_length", "", Histogram(|stats| &stats.prompt_lengths, 1.0)),
    (Server, "tgi_request_generated_tokens", "", Histogram(|stats| &stats.reply_lengths, 1.0)),
];

const XLLM: &[Row] = &[
    (Server, "num_running_requests", "", Gauge(|stats| stats.running as f64)),
    (Server, "num_waiting_requests", "", Gauge(|stats| stats.waiting as f64)),
    (Server, "num_pending_requests", "", Gauge(|_| 0.0)),
    (Server, "kv_cache_utilization_perc", "", Gauge(|stats| stats.kv_usage)),
    (Server, "num_free_blocks", "", Gauge(|stats| stats.blocks() - stats.blocks_used())),
    (Server, "num_used_blocks", "", Gauge(Stats::blocks_used)),
    (Server, "num_preempted_requests", "", Gauge(|stats| stats.preemptions as f64)),
    (Server, "num_processing_tokens_total_prompt", "", Counter(|stats| stats.prompt_tokens as f64)),
    (Server, "num_processing_tokens_total_generated", "", Counter(|stats| stats.generation_tokens as f64)),
    (Server, "server_request_total_ok", "", Counter(Stats::finished)),
    (Server, "time_to_first_token_latency_milliseconds", "", Histogram(|stats| &stats.ttft, 1e3)),
    (Server, "inter_token_latency_milliseconds", "", Histogram(|stats| &stats.inter_token, 1e3)),
    (Server, "end_2_end_latency_milliseconds", "", Histogram(|stats| &stats.end_to_end, 1e3)),
];

/// A page made of a table's rows.
#[derive(Debug)]
pub(in crate::engine) struct Page {
    rows: &'static [Row],
    /// Labels of every series, without braces.
    labels: String,
    dialect: Dialect,
}

impl Page {
    pub(super) fn new(options: &EngineOptions) -> Self {
        let model = options.models.first().map_or("", String::as_str);
        let (rows, labels) = match options.dialect {
            Dialect::Sglang => (SGLANG, format!("engine_type=\"unified\",model_name=\"{model}\"")),
            Dialect::Trtllm => (TRTLLM, format!("engine_type=\"trtllm\",model_name=\"{model}\"")),
            Dialect::Llamacpp => (LLAMACPP, String::new()),
            Dialect::Tgi => (TGI, String::new()),
            Dialect::Xllm => (XLLM, String::new()),
            Dialect::Vllm | Dialect::VllmOld | Dialect::None => (&[] as &[Row], String::new()),
        };
        Self { rows, labels, dialect: options.dialect }
    }

    pub(super) fn render(&self, ranks: &[Stats], honesty: Honesty) -> String {
        let page = String::with_capacity(16 * 1024);
        let mut out = Writer { page, labels: &self.labels, honesty, whole_numbers: self.dialect == Dialect::Llamacpp };
        let all = Stats::merged(ranks);
        let mut last = "";
        for &(scope, name, own, value) in self.rows {
            if name != last {
                let kind = match value {
                    Gauge(_) => "gauge",
                    Counter(_) => "counter",
                    Histogram(..) => "histogram",
                };
                out.page.extend(["# TYPE ", name, " ", kind, "\n"]);
                last = name;
            }
            if scope == Server {
                out.series(name, &[own], &all, value);
                continue;
            }
            for (rank, stats) in ranks.iter().enumerate() {
                let parallel = if ranks.len() > 1 { format!("dp_rank=\"{rank}\"") } else { String::new() };
                let own = [own, &parallel, "moe_ep_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\""];
                out.series(name, &own, stats, value);
            }
        }
        out.page
    }
}

struct Writer<'a> {
    page: String,
    /// Labels of every series.
    labels: &'a str,
    honesty: Honesty,
    /// Only the server in C++ writes whole numbers without a point.
    whole_numbers: bool,
}

impl Writer<'_> {
    fn series(&mut self, name: &str, own: &[&str], stats: &Stats, value: Value) {
        let common = self.labels;
        let labels = |extra: &str| {
            let all: Vec<&str> =
                [common].iter().chain(own).copied().chain([extra]).filter(|part| !part.is_empty()).collect();
            if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
        };
        let told = self.honesty;
        let mut put = |suffix: &str, extra: &str, honesty: Honesty, number: f64| {
            self.page.extend([name, suffix, &labels(extra)]);
            if self.whole_numbers && number.fract() == 0.0 && honesty == Honesty::Truth {
                let written = write!(self.page, " {number}");
                debug_assert!(written.is_ok(), "writing to a String cannot fail");
            } else {
                honesty.write(&mut self.page, number);
            }
            self.page.push('\n');
        };
        match value {
            Gauge(read) => put("", "", told, read(stats)),
            Counter(read) => put("", "", Honesty::Truth, read(stats)),
            Histogram(read, factor) => {
                let histogram = read(stats);
                for (bound, count) in histogram.cumulative_buckets() {
                    put("_bucket", &format!("le=\"{:?}\"", bound * factor), Honesty::Truth, count as f64);
                }
                put("_bucket", "le=\"+Inf\"", Honesty::Truth, histogram.count as f64);
                put("_count", "", Honesty::Truth, histogram.count as f64);
                put("_sum", "", Honesty::Truth, histogram.sum * factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(dialect: Dialect, ranks: &[Stats]) -> String {
        Page::new(&EngineOptions { dialect, ..EngineOptions::default() }).render(ranks, Honesty::Truth)
    }

    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|have| have == line), "{line}\nis not in\n{page}");
    }

    #[test]
    fn sglang_tells_gauges_by_rank_and_tokens_once() {
        let one = Stats { running: 3, generation_tokens: 5, ..Stats::default() };
        let two = Stats { running: 1, generation_tokens: 2, ..Stats::default() };
        let page = page(Dialect::Sglang, &[one, two]);
        let common = r#"engine_type="unified",model_name="llama-3-8b""#;
        let tail = r#"moe_ep_rank="0",pp_rank="0",tp_rank="0""#;
        has(&page, &format!("sglang:num_running_reqs{{{common},dp_rank=\"0\",{tail}}} 3.0"));
        has(&page, &format!("sglang:num_running_reqs{{{common},dp_rank=\"1\",{tail}}} 1.0"));
        has(&page, &format!("sglang:generation_tokens_total{{{common},is_streaming=\"true\"}} 7.0"));
        assert_eq!(page.matches("# TYPE sglang:num_running_reqs gauge").count(), 1);
    }

    #[test]
    fn llamacpp_has_no_labels_and_whole_numbers_without_a_point() {
        let stats = Stats { running: 2, waiting: 1, prompt_tokens: 72, prefix_hits: 24, ..Stats::default() };
        let page = page(Dialect::Llamacpp, &[stats]);
        for line in [
            "llamacpp:requests_processing 2",
            "llamacpp:requests_deferred 1",
            "llamacpp:prompt_tokens_total 48",
            "llamacpp:prompt_tokens_cached_total 24",
        ] {
            has(&page, line);
        }
    }

    #[test]
    fn xllm_histograms_are_in_milliseconds() {
        let mut stats = Stats::default();
        stats.ttft.add(Duration::from_millis(30));
        let page = page(Dialect::Xllm, &[stats]);
        has(&page, "time_to_first_token_latency_milliseconds_bucket{le=\"40.0\"} 1.0");
        has(&page, "time_to_first_token_latency_milliseconds_sum 30.0");
    }
}
