//! Reading the metrics page of a busy vLLM engine: 51 KB, 700 lines.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use fairlead::domain::{EngineKind, Gauge, GaugeSet, Moment};
use fairlead::scrape::engines::engine;
use fairlead::scrape::lens::Lens;
use fairlead::scrape::reading::Reading;
use fairlead::scrape::text::scan;
use fairlead::scrape::windows::Windows;

const PAGE: &[u8] = include_bytes!("../tests/fixtures/vllm-0.32.0-metrics-busy.txt");

const LOAD: &[Gauge] = &[Gauge::Running, Gauge::Waiting, Gauge::Awake];
const CACHE: &[Gauge] = &[Gauge::Running, Gauge::Waiting, Gauge::Awake, Gauge::KvUsage, Gauge::KvCapacity];
const LATENCY: &[Gauge] = &[Gauge::Running, Gauge::Waiting, Gauge::Awake, Gauge::TtftP95, Gauge::ItlMean];

fn main() {
    divan::main();
}

/// Every sample of the page.
#[divan::bench]
fn all_samples(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::from(PAGE.len())).bench(|| {
        let mut sum = 0.0;
        let report = scan(black_box(PAGE), |sample| sum += sample.value);
        (report, sum)
    });
}

/// What a reading costs once the page is there, by what is needed.
#[divan::bench(args = [("load", LOAD), ("cache", CACHE), ("latency", LATENCY), ("everything", &Gauge::ALL[..])])]
fn reading(bencher: Bencher<'_, '_>, (_, needed): &(&str, &[Gauge])) {
    let Some(engine) = engine(EngineKind::Vllm) else { return };
    let lens = Lens::of(engine, GaugeSet::of(needed));
    let (mut reading, mut windows) = (Reading::default(), Windows::over(std::time::Duration::from_secs(30)));
    let mut now = 1;
    bencher.counter(BytesCount::from(PAGE.len())).bench_local(|| {
        now += 200_000;
        reading.read(black_box(PAGE), &lens);
        let mut gauges = reading.levels(&lens);
        windows.take(&reading, &lens, Moment::from_micros(now));
        windows.derive(&lens, &mut gauges);
        gauges
    });
}
