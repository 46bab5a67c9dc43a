//! vLLM: a page captured from 0.32.0, with this engine's numbers in the places that it models.
//!
//! Keeping the whole captured page keeps its size and its oddities (`_created` gauges, stale label sets), which are what a
//! scraper has to cope with. The older names are put over the newer ones.

use std::fmt::Write;

use super::super::dialect::Dialect;
use super::super::options::{BLOCK_TOKENS, EngineOptions};
use super::super::stats::Stats;
use super::{Honesty, Number, Samples};

const CAPTURED: &str = include_str!("../../../fixtures/vllm-0.32.0-metrics-busy.txt");
const CAPTURED_MODEL: &str = "model_name=\"tiny\"";

const CAPTURED_ENGINE: &str = "engine=\"0\"";
/// Names of 2025, in place of which names of 0.32 stand in the page.
const OLDER: &[(&str, &str)] = &[
    ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
];

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The line is complete as it is.
    Literal,
    Zero,
    Gauge(Number),
    Count(Number),
    Bucket(Samples, f64),
    HistogramCount(Samples),
    HistogramSum(Samples),
    LoraInfo,
}

/// The page with holes for the numbers.
#[derive(Debug)]
pub(in crate::engine) struct Page {
    lines: Vec<(String, Source)>,
    loras_max: usize,
}

impl Page {
    pub(super) fn new(options: &EngineOptions) -> Self {
        let model = options.models.first().map_or("", String::as_str).replace('\\', r"\\").replace('"', "\\\"");
        let label = format!("model_name=\"{model}\"");
        let mut lines: Vec<_> = CAPTURED.lines().filter_map(|line| template_line(line, &label, options)).collect();
        if options.dialect == Dialect::VllmOld {
            for (line, _) in &mut lines {
                for (new, old) in OLDER {
                    *line = line.replace(new, old);
                }
            }
        }
        Self { lines, loras_max: options.adapters_max() }
    }

    pub(super) fn render(&self, ranks: &[Stats], honesty: Honesty) -> String {
        let mut page = String::with_capacity(56 * 1024);
        for (text, source) in &self.lines {
            if matches!(source, Source::LoraInfo) {
                self.lora_info(&mut page, &Stats::merged(ranks));
                continue;
            }
            if !text.contains(CAPTURED_ENGINE) {
                put(&mut page, text, *source, ranks.first(), honesty);
                continue;
            }
            for (rank, stats) in ranks.iter().enumerate() {
                let series = text.replace(CAPTURED_ENGINE, &format!("engine=\"{rank}\""));
                put(&mut page, &series, *source, Some(stats), honesty);
            }
        }
        page
    }

    /// The value is a Unix time; the label set with the newest one counts (vLLM keeps stale ones in the text).
    fn lora_info(&self, page: &mut String, stats: &Stats) {
        let max = self.loras_max;
        for ((running, waiting), time) in &stats.lora_history {
            let written = writeln!(
                page,
                "vllm:lora_requests_info{{max_lora=\"{max}\",running_lora_adapters=\"{running}\",\
                 waiting_lora_adapters=\"{waiting}\"}} {time:?}"
            );
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
    }
}

fn put(page: &mut String, series: &str, source: Source, stats: Option<&Stats>, honesty: Honesty) {
    page.push_str(series);
    let Some(stats) = stats else { return };
    match source {
        Source::Literal | Source::LoraInfo => {}
        Source::Zero => page.push_str(" 0.0"),
        Source::Gauge(read) => honesty.write(page, read(stats)),
        Source::Count(read) => Honesty::Truth.write(page, read(stats)),
        Source::Bucket(read, bound) => Honesty::Truth.write(page, read(stats).cumulative(bound) as f64),
        Source::HistogramCount(read) => Honesty::Truth.write(page, read(stats).count as f64),
        Source::HistogramSum(read) => Honesty::Truth.write(page, read(stats).sum),
    }
    page.push('\n');
}

fn template_line(line: &str, label: &str, options: &EngineOptions) -> Option<(String, Source)> {
    let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
        return Some((line.to_owned(), Source::Literal));
    };
    let name = series.split_once('{').map_or(series, |(name, _)| name);
    let series = series.replace(CAPTURED_MODEL, label);
    if name == "vllm:lora_requests_info" {
        let has_loras = options.adapters_max() > 0 && series.contains("running_lora_adapters=\"\"");
        return has_loras.then_some((String::new(), Source::LoraInfo));
    }
    if name == "vllm:cache_config_info" {
        return Some((cache_config(&series, options), Source::Literal));
    }
    let keep = name.ends_with("_created") || name.starts_with("process_") || name.starts_with("python_");
    if keep {
        return Some((line.replace(CAPTURED_MODEL, label), Source::Literal));
    }
    let source = scalar(name, &series).or_else(|| histogram(name, &series)).unwrap_or(Source::Zero);
    Some((series, source))
}

fn cache_config(series: &str, options: &EngineOptions) -> String {
    let blocks = options.capacity.kv_blocks;
    let tokens = blocks * BLOCK_TOKENS;
    let concurrency = tokens as f64 / options.model_len_max.max(1) as f64;
    // vLLM keeps one null block out of use and counts it here.
    let series = set_label(series, "block_size", &BLOCK_TOKENS.to_string());
    let series = set_label(&series, "effective_attention_block_size", &BLOCK_TOKENS.to_string());
    let series = set_label(&series, "num_gpu_blocks", &(blocks + 1).to_string());
    let series = set_label(&series, "num_gpu_blocks_override", "None");
    let series = set_label(&series, "kv_cache_max_concurrency", &format!("{concurrency:?}"));
    set_label(&series, "kv_cache_size_tokens", &tokens.to_string()) + " 1.0"
}

fn set_label(series: &str, name: &str, value: &str) -> String {
    for lead in ["{", ","] {
        let key = format!("{lead}{name}=\"");
        if let Some((before, rest)) = series.split_once(&key) {
            let after = rest.split_once('"').map_or("", |(_, after)| after);
            return format!("{before}{key}{value}\"{after}");
        }
    }
    series.to_owned()
}

fn scalar(name: &str, series: &str) -> Option<Source> {
    Some(match name {
        "vllm:num_requests_running" => Source::Gauge(|stats| stats.running as f64),
        "vllm:num_requests_waiting" => Source::Gauge(|stats| stats.waiting as f64),
        "vllm:num_requests_waiting_by_reason" if series.contains("capacity") => {
            Source::Gauge(|stats| stats.waiting.saturating_sub(stats.deferred) as f64)
        }
        "vllm:num_requests_waiting_by_reason" => Source::Gauge(|stats| stats.deferred as f64),
        "vllm:engine_sleep_state" if series.contains("awake") => {
            Source::Count(|stats| f64::from(u8::from(!stats.asleep)))
        }
        "vllm:engine_sleep_state" if series.contains("weights_offloaded") => {
            Source::Count(|stats| f64::from(u8::from(stats.asleep)))
        }
        "vllm:kv_cache_usage_perc" => Source::Gauge(|stats| stats.kv_usage),
        "vllm:prefix_cache_queries_total" => Source::Count(|stats| stats.prefix_queries as f64),
        "vllm:prefix_cache_hits_total" | "vllm:prompt_tokens_cached_total" => {
            Source::Count(|stats| stats.prefix_hits as f64)
        }
        "vllm:prompt_tokens_total" => Source::Count(|stats| stats.prompt_tokens as f64),
        "vllm:prompt_tokens_by_source_total" if series.contains("local_compute") => {
            Source::Count(|stats| stats.prompt_tokens.saturating_sub(stats.prefix_hits) as f64)
        }
        "vllm:prompt_tokens_by_source_total" if series.contains("local_cache_hit") => {
            Source::Count(|stats| stats.prefix_hits as f64)
        }
        "vllm:prompt_tokens_cached_by_source_total" if series.contains("device") => {
            Source::Count(|stats| stats.prefix_hits as f64)
        }
        "vllm:generation_tokens_total" => Source::Count(|stats| stats.generation_tokens as f64),
        "vllm:num_preemptions_total" => Source::Count(|stats| stats.preemptions as f64),
        "vllm:request_success_total" if series.contains("\"stop\"") => {
            Source::Count(|stats| stats.finished_stop as f64)
        }
        "vllm:request_success_total" if series.contains("\"length\"") => {
            Source::Count(|stats| stats.finished_length as f64)
        }
        "vllm:request_success_total" if series.contains("\"abort\"") => {
            Source::Count(|stats| stats.finished_abort as f64)
        }
        "vllm:admission_rejections_total" if series.contains("queued_reqs") => {
            Source::Count(|stats| stats.rejections as f64)
        }
        _ => return None,
    })
}

fn histogram(name: &str, series: &str) -> Option<Source> {
    let (family, part) = name.rsplit_once('_')?;
    let read: Samples = match family {
        "vllm:time_to_first_token_seconds" => |stats| &stats.ttft,
        "vllm:inter_token_latency_seconds" => |stats| &stats.inter_token,
        "vllm:e2e_request_latency_seconds" => |stats| &stats.end_to_end,
        "vllm:request_queue_time_seconds" => |stats| &stats.queue_time,
        "vllm:request_prefill_time_seconds" => |stats| &stats.prefill_time,
        "vllm:request_decode_time_seconds" => |stats| &stats.decode_time,
        "vllm:request_prompt_tokens" => |stats| &stats.prompt_lengths,
        "vllm:request_generation_tokens" => |stats| &stats.reply_lengths,
        _ => return None,
    };
    match part {
        "count" => Some(Source::HistogramCount(read)),
        "sum" => Some(Source::HistogramSum(read)),
        "bucket" => {
            let bound = series.split_once("le=\"")?.1.split_once('"')?.0;
            if bound == "+Inf" {
                Some(Source::HistogramCount(read))
            } else {
                Some(Source::Bucket(read, bound.parse().ok()?))
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(stats: &Stats, honesty: Honesty) -> String {
        let options = EngineOptions { loras: vec!["sql".into()], ..EngineOptions::default() };
        Page::new(&options).render(std::slice::from_ref(stats), honesty)
    }

    #[test]
    fn live_numbers_replace_the_captured_ones() {
        let mut stats = Stats { running: 3, waiting: 1, kv_usage: 0.25, prefix_hits: 32, ..Stats::default() };
        stats.ttft.add(Duration::from_millis(30));
        stats.note_adapters(0.0);
        let page = page(&stats, Honesty::Truth);
        for line in [
            r#"vllm:num_requests_running{engine="0",model_name="llama-3-8b"} 3.0"#,
            r#"vllm:num_requests_waiting{engine="0",model_name="llama-3-8b"} 1.0"#,
            r#"vllm:kv_cache_usage_perc{engine="0",model_name="llama-3-8b"} 0.25"#,
            r#"vllm:prefix_cache_hits_total{engine="0",model_name="llama-3-8b"} 32.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.02",model_name="llama-3-8b"} 0.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.04",model_name="llama-3-8b"} 1.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="llama-3-8b"} 1.0"#,
            r#"vllm:time_to_first_token_seconds_count{engine="0",model_name="llama-3-8b"} 1.0"#,
        ] {
            assert!(page.lines().any(|have| have == line), "{line}");
        }
        assert!(page.contains("num_gpu_blocks=\"8193\"") && page.contains(",block_size=\"16\""), "cache_config_info");
        assert!(page.contains("running_lora_adapters=\"\",waiting_lora_adapters=\"\""));
        assert!(!page.contains("tiny") && !page.contains("sql-lora"));
    }

    #[test]
    fn every_rank_has_its_series() {
        let ranks = [Stats { running: 3, ..Stats::default() }, Stats { running: 1, ..Stats::default() }];
        let page = Page::new(&EngineOptions::default()).render(&ranks, Honesty::Truth);
        assert!(page.contains("vllm:num_requests_running{engine=\"0\",model_name=\"llama-3-8b\"} 3.0\n"));
        assert!(page.contains("vllm:num_requests_running{engine=\"1\",model_name=\"llama-3-8b\"} 1.0\n"));
        assert!(page.contains("vllm:cache_config_info{") && page.contains(",engine=\"1\","));
        assert_eq!(page.matches("# TYPE vllm:num_requests_running gauge").count(), 1);
    }

    #[test]
    fn an_older_page_has_the_older_names() {
        let options = EngineOptions { dialect: Dialect::VllmOld, ..EngineOptions::default() };
        let page = Page::new(&options).render(&[Stats { kv_usage: 0.5, ..Stats::default() }], Honesty::Truth);
        assert!(page.contains("vllm:gpu_cache_usage_perc{engine=\"0\",model_name=\"llama-3-8b\"} 0.5\n"));
        assert!(page.contains("# TYPE vllm:time_per_output_token_seconds histogram\n"));
        assert!(!page.contains("vllm:kv_cache_usage_perc") && !page.contains("vllm:inter_token_latency"));
    }

    #[test]
    fn adapters_that_left_stay_in_the_text_with_their_old_time() {
        let mut stats = Stats { loras_running: "sql".to_owned(), ..Stats::default() };
        stats.note_adapters(1.0);
        stats.loras_running = String::new();
        stats.note_adapters(2.0);
        let page = page(&stats, Honesty::Truth);
        let line = |running: &str, time: &str| {
            format!("{{max_lora=\"1\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}} {time}\n")
        };
        assert!(page.contains(&line("sql", "1.0")) && page.contains(&line("", "2.0")), "{page}");
    }

    #[test]
    fn a_lying_page_keeps_its_shape() {
        let page = page(&Stats::default(), Honesty::NotANumber);
        assert!(page.contains("vllm:num_requests_running{engine=\"0\",model_name=\"llama-3-8b\"} NaN\n"));
    }
}
