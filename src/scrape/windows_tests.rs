use crate::domain::{EngineKind, GaugeSet};
use crate::scrape::engines::engine;

use super::*;

const WINDOW: Duration = Duration::from_secs(30);

/// An engine's windows, and the page that it would serve.
struct Engine {
    windows: Windows,
    lens: Lens,
    reading: Reading,
    /// First-token times below 0.1 s, 0.5 s, 1 s and above; tokens generated; prefix hits and queries.
    ttft: [u32; 4],
    tokens: u32,
    prefix: (u32, u32),
}

impl Engine {
    fn new() -> Self {
        Self {
            windows: Windows::over(WINDOW),
            lens: Lens::of(engine(EngineKind::Vllm).unwrap(), GaugeSet::of(&Gauge::ALL)),
            reading: Reading::default(),
            ttft: [0; 4],
            tokens: 0,
            prefix: (0, 0),
        }
    }

    fn page(&self) -> String {
        let (bounds, typical) = (["0.1", "0.5", "1.0", "+Inf"], [0.05, 0.3, 0.75, 2.0]);
        let sum: f64 = self.ttft.iter().zip(typical).map(|(count, each)| f64::from(*count) * each).sum();
        let below = |at: usize| self.ttft.iter().take(at).sum::<u32>();
        let bucket =
            |(at, bound)| (format!("time_to_first_token_seconds_bucket{{le=\"{bound}\"}}"), below(at).to_string());
        let others = [
            ("time_to_first_token_seconds_count", below(4).to_string()),
            ("time_to_first_token_seconds_sum", sum.to_string()),
            ("generation_tokens_total", self.tokens.to_string()),
            ("prefix_cache_hits_total", self.prefix.0.to_string()),
            ("prefix_cache_queries_total", self.prefix.1.to_string()),
        ];
        let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
        let lines: Vec<_> = (1..).zip(bounds).map(bucket).chain(others).collect();
        lines.iter().map(|(name, value)| ["vllm:", name, " ", value, "\n"].concat()).collect()
    }

    fn read_page(&mut self, page: &str, seconds: f64) -> bool {
        self.reading.read(page.as_bytes(), &self.lens);
        self.windows.take(&self.reading, &self.lens, Moment::EPOCH + Duration::from_secs_f64(seconds))
    }

    fn read(&mut self, seconds: f64) -> bool {
        let page = self.page();
        self.read_page(&page, seconds)
    }

    fn get(&self, gauge: Gauge) -> Option<f64> {
        let mut gauges = Gauges::default();
        self.windows.derive(&self.lens, &mut gauges);
        gauges.get(gauge)
    }
}

fn near(value: Option<f64>, expected: f64) {
    assert!(value.is_some_and(|value| (value - expected).abs() < 1e-9), "{value:?}, not {expected}");
}

#[test]
fn what_was_before_the_first_reading_does_not_count() {
    let mut engine = Engine::new();
    engine.ttft = [0, 0, 0, 1000];
    engine.tokens = 1_000_000;
    engine.read(10.0);
    for gauge in [Gauge::TtftMean, Gauge::TtftP95, Gauge::GenerationTokensRate, Gauge::PrefixHitRate] {
        assert_eq!(engine.get(gauge), None);
    }
    engine.ttft[0] += 10;
    engine.tokens += 500;
    engine.prefix = (30, 40);
    engine.read(20.0);
    near(engine.get(Gauge::TtftMean), 0.05);
    near(engine.get(Gauge::GenerationTokensRate), 50.0);
    near(engine.get(Gauge::PrefixHitRate), 0.75);
}

#[test]
fn quantiles_are_interpolated_and_what_is_above_the_last_bound_counts_as_that() {
    let mut engine = Engine::new();
    engine.read(1.0);
    engine.ttft = [0, 10, 0, 0];
    engine.read(2.0);
    near(engine.get(Gauge::TtftP50), 0.3);
    near(engine.get(Gauge::TtftP95), 0.1 + 0.4 * 0.95);
    engine.ttft[3] = 10;
    engine.read(3.0);
    near(engine.get(Gauge::TtftP50), 0.5);
    near(engine.get(Gauge::TtftP95), 1.0);
}

#[test]
fn an_observation_leaves_with_the_window_and_without_any_there_is_no_value() {
    let mut engine = Engine::new();
    engine.read(0.5);
    engine.ttft = [1, 0, 0, 0];
    let mut last = None;
    for step in 0..50 {
        let now = 1.0 + f64::from(step);
        engine.read(now);
        last = engine.get(Gauge::TtftMean).map(|_| now).or(last);
    }
    assert!(last.is_some_and(|last| (30.0..=36.0).contains(&last)), "{last:?}");
    assert_eq!((engine.get(Gauge::TtftMean), engine.get(Gauge::GenerationTokensRate)), (None, Some(0.0)));
    assert!(engine.windows.rows.iter().all(|row| row.marks.len() <= 12));
}

#[test]
fn a_restarted_engine_is_noticed_and_its_windows_begin_anew() {
    let mut engine = Engine::new();
    (engine.ttft, engine.tokens) = ([5, 5, 5, 5], 10_000);
    engine.read(1.0);
    engine.tokens += 100;
    assert!(!engine.read(5.0));
    (engine.ttft, engine.tokens) = ([1, 0, 0, 0], 10);
    assert!(engine.read(6.0));
    assert_eq!((engine.get(Gauge::TtftMean), engine.get(Gauge::GenerationTokensRate)), (None, None));
    engine.tokens += 400;
    assert!(!engine.read(10.0));
    near(engine.get(Gauge::GenerationTokensRate), 100.0);
}

#[test]
fn a_page_without_a_metric_or_with_nonsense_in_it_changes_nothing() {
    let mut engine = Engine::new();
    engine.tokens = 1000;
    engine.read(1.0);
    engine.tokens = 1500;
    engine.read(6.0);
    for page in ["", "vllm:generation_tokens_total NaN\n", "vllm:generation_tokens_total{rank=\"1\"} -5\n"] {
        assert!(!engine.read_page(page, 7.0));
        assert!(engine.get(Gauge::GenerationTokensRate).is_some_and(|rate| rate > 0.0));
    }
    assert!(!engine.read(11.0));
    near(engine.get(Gauge::GenerationTokensRate), 50.0);
}

#[test]
fn after_a_long_silence_or_a_jump_of_the_clock_windows_begin_anew() {
    let mut engine = Engine::new();
    engine.read(1.0);
    engine.tokens = 1000;
    engine.read(10.0);
    engine.tokens = 1_000_000;
    assert!(!engine.read(100_000.0));
    assert_eq!(engine.get(Gauge::GenerationTokensRate), None);
    engine.tokens += 50;
    engine.read(100_005.0);
    near(engine.get(Gauge::GenerationTokensRate), 10.0);
}

#[test]
fn buckets_that_change_begin_their_window_anew_and_no_other() {
    let mut engine = Engine::new();
    engine.read(1.0);
    (engine.ttft, engine.tokens) = ([10, 0, 0, 0], 600);
    engine.read(5.0);
    let page = engine.page().replace("le=\"0.5\"", "le=\"0.6\"");
    assert!(!engine.read_page(&page, 7.0));
    assert_eq!(engine.get(Gauge::TtftMean), None);
    near(engine.get(Gauge::GenerationTokensRate), 100.0);
}
