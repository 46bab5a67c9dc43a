//! `/metrics`: a page captured from vLLM 0.32.0, with this engine's numbers in the places that it models.
//!
//! Keeping the whole captured page keeps its size and its oddities (`_created` gauges, stale label sets), which are what a
//! scraper has to cope with.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::options::{BLOCK_TOKENS, EngineOptions};
use super::stats::{Histogram, Stats};

const CAPTURED: &str = include_str!("../../fixtures/vllm-0.32.0-metrics-busy.txt");
const CAPTURED_MODEL: &str = "model_name=\"tiny\"";

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The line is complete as it is.
    Literal,
    Zero,
    Gauge(fn(&Stats) -> f64),
    Count(fn(&Stats) -> u64),
    Bucket(fn(&Stats) -> &Histogram, f64),
    HistogramCount(fn(&Stats) -> &Histogram),
    HistogramSum(fn(&Stats) -> &Histogram),
    LoraInfo,
}

/// How gauges are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Honesty {
    Truth,
    NotANumber,
    Absurd,
}

/// The page with holes for the numbers.
#[derive(Debug)]
pub(super) struct Exposition {
    lines: Vec<(String, Source)>,
    loras_max: usize,
}

impl Exposition {
    pub(super) fn new(options: &EngineOptions) -> Self {
        let model = options.models.first().map_or("", String::as_str).replace('\\', r"\\").replace('"', "\\\"");
        let label = format!("model_name=\"{model}\"");
        let lines = CAPTURED.lines().filter_map(|line| template_line(line, &label, options)).collect();
        Self { lines, loras_max: options.loras.len() }
    }

    pub(super) fn render(&self, stats: &Stats, honesty: Honesty) -> String {
        let mut page = String::with_capacity(56 * 1024);
        for (text, source) in &self.lines {
            page.push_str(text);
            let written = match *source {
                Source::Literal => Ok(()),
                Source::Zero => page.write_str(" 0.0"),
                Source::Gauge(read) => match honesty {
                    Honesty::Truth => write!(page, " {:?}", read(stats)),
                    Honesty::NotANumber => page.write_str(" NaN"),
                    Honesty::Absurd => page.write_str(" -1e+308"),
                },
                Source::Count(read) => write!(page, " {}.0", read(stats)),
                Source::Bucket(read, bound) => write!(page, " {}.0", read(stats).cumulative(bound)),
                Source::HistogramCount(read) => write!(page, " {}.0", read(stats).count),
                Source::HistogramSum(read) => write!(page, " {:?}", read(stats).sum),
                Source::LoraInfo => self.lora_info(&mut page, stats),
            };
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
            page.push('\n');
        }
        page
    }

    /// The value is a Unix time; the label set with the newest one counts (vLLM keeps stale ones in the text).
    fn lora_info(&self, page: &mut String, stats: &Stats) -> std::fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let max = self.loras_max.max(1);
        let (running, waiting) = (&stats.loras_running, &stats.loras_waiting);
        write!(
            page,
            "vllm:lora_requests_info{{max_lora=\"{max}\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"}} {:?}",
            now - 60.0
        )?;
        write!(
            page,
            "\nvllm:lora_requests_info{{max_lora=\"{max}\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} {now:?}"
        )
    }
}

fn template_line(line: &str, label: &str, options: &EngineOptions) -> Option<(String, Source)> {
    let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
        return Some((line.to_owned(), Source::Literal));
    };
    let name = series.split_once('{').map_or(series, |(name, _)| name);
    let series = series.replace(CAPTURED_MODEL, label);
    if name == "vllm:lora_requests_info" {
        let has_loras = !options.loras.is_empty() && series.contains("running_lora_adapters=\"\"");
        return has_loras.then_some((String::new(), Source::LoraInfo));
    }
    if name == "vllm:cache_config_info" {
        return Some((cache_config(&series, options), Source::Literal));
    }
    let keep = name.ends_with("_created")
        || name.starts_with("process_")
        || name.starts_with("python_")
        || series.contains("sleep_state=\"awake\"");
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
            Source::Gauge(|stats| stats.waiting as f64)
        }
        "vllm:kv_cache_usage_perc" => Source::Gauge(|stats| stats.kv_usage),
        "vllm:prefix_cache_queries_total" => Source::Count(|stats| stats.prefix_queries),
        "vllm:prefix_cache_hits_total" | "vllm:prompt_tokens_cached_total" => Source::Count(|stats| stats.prefix_hits),
        "vllm:prompt_tokens_total" => Source::Count(|stats| stats.prompt_tokens),
        "vllm:prompt_tokens_by_source_total" if series.contains("local_compute") => {
            Source::Count(|stats| stats.prompt_tokens.saturating_sub(stats.prefix_hits))
        }
        "vllm:prompt_tokens_by_source_total" if series.contains("local_cache_hit") => {
            Source::Count(|stats| stats.prefix_hits)
        }
        "vllm:prompt_tokens_cached_by_source_total" if series.contains("device") => {
            Source::Count(|stats| stats.prefix_hits)
        }
        "vllm:generation_tokens_total" => Source::Count(|stats| stats.generation_tokens),
        "vllm:num_preemptions_total" => Source::Count(|stats| stats.preemptions),
        "vllm:request_success_total" if series.contains("\"stop\"") => Source::Count(|stats| stats.finished_stop),
        "vllm:request_success_total" if series.contains("\"length\"") => Source::Count(|stats| stats.finished_length),
        "vllm:request_success_total" if series.contains("\"abort\"") => Source::Count(|stats| stats.finished_abort),
        "vllm:admission_rejections_total" if series.contains("queued_reqs") => Source::Count(|stats| stats.rejections),
        _ => return None,
    })
}

fn histogram(name: &str, series: &str) -> Option<Source> {
    let (family, part) = name.rsplit_once('_')?;
    let read: fn(&Stats) -> &Histogram = match family {
        "vllm:time_to_first_token_seconds" => |stats| &stats.ttft,
        "vllm:inter_token_latency_seconds" => |stats| &stats.inter_token,
        "vllm:e2e_request_latency_seconds" => |stats| &stats.end_to_end,
        "vllm:request_queue_time_seconds" => |stats| &stats.queue_time,
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
        Exposition::new(&options).render(stats, honesty)
    }

    #[test]
    fn live_numbers_replace_the_captured_ones() {
        let mut stats = Stats { running: 3, waiting: 1, kv_usage: 0.25, prefix_hits: 32, ..Stats::default() };
        stats.ttft.add(Duration::from_millis(30));
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
    fn a_lying_page_keeps_its_shape() {
        let page = page(&Stats::default(), Honesty::NotANumber);
        assert!(page.contains("vllm:num_requests_running{engine=\"0\",model_name=\"llama-3-8b\"} NaN\n"));
    }
}
