//! Scanning the metrics page of a busy vLLM engine.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use fairlead::scrape::text::scan;

const PAGE: &[u8] = include_bytes!("../tests/fixtures/vllm-0.32.0-metrics-busy.txt");

fn main() {
    divan::main();
}

#[divan::bench]
fn all_samples(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::from(PAGE.len())).bench(|| {
        let mut sum = 0.0;
        let report = scan(black_box(PAGE), |sample| sum += sample.value);
        (report, sum)
    });
}

/// What a scrape does: three gauges by name, one label of each.
#[divan::bench]
fn three_gauges(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::from(PAGE.len())).bench(|| {
        let mut sum = 0.0;
        scan(black_box(PAGE), |sample| {
            let is_wanted = matches!(
                sample.name,
                b"vllm:num_requests_running" | b"vllm:num_requests_waiting" | b"vllm:kv_cache_usage_perc"
            );
            if is_wanted && sample.labels.get("model_name").is_some() {
                sum += sample.value;
            }
        });
        sum
    });
}
