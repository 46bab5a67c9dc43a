//! Deciding, by every registered strategy, with fresh gauges.
//!
//! `cargo bench --bench decide` gives divan's numbers; `cargo bench --bench decide -- --table` the median and the 99th
//! percentile of single decisions, which the budget is about.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use fairlead::domain::{Clock, EndpointId, EndpointSpec, Gauge, Gauges, ModelSpec, Moment, Work};
use fairlead::routing::{Asked, Parameters, RequestView, Router, STRATEGIES, Trace, decide};
use fairlead::state::{Adapters, Endpoint, Ticket};

const SIZES: [u32; 2] = [64, 1000];
const NOW: Moment = Moment::from_micros(100_000_000);
/// Decisions of a round, and rounds. The quietest round counts, as others may use the machine.
const DECISIONS: u64 = 4000;
const ROUNDS: u64 = 7;

fn main() {
    if std::env::args().any(|argument| argument == "--table") {
        table();
    } else {
        divan::main();
    }
}

/// Some of a dozen adapters, the one that is asked for among them.
fn adapters(rng: &mut fastrand::Rng) -> Adapters {
    let names: Vec<_> =
        (0..12).map(|number| if number == 0 { "lora".to_owned() } else { format!("l{number:03}") }).collect();
    let mut some = |most| (0..rng.usize(..most)).filter_map(|_| rng.choice(&names).cloned()).collect();
    Adapters { running: some(5), waiting: some(3) }
}

/// Endpoints that told all of their gauges, with a few requests open and a minute of answers behind them.
struct Fleet {
    endpoints: Vec<Arc<Endpoint>>,
    _tickets: Vec<Ticket>,
}

fn fleet(size: u32) -> Fleet {
    let clock = Clock::manual(NOW).0;
    let mut rng = fastrand::Rng::with_seed(1);
    let endpoint = |slot: u32| {
        let [_, _, high, low] = slot.to_be_bytes();
        let address = SocketAddr::from(([10, 0, high, low], 8000));
        let models = vec![ModelSpec { name: "m".into(), adapters: vec!["lora".into()] }];
        let spec = EndpointSpec { models, weight: 1 + slot % 2, ..EndpointSpec::at(address) };
        Arc::new(Endpoint::new(EndpointId { slot, generation: 0 }, spec, Arc::default()))
    };
    let endpoints: Vec<_> = (0..size).map(endpoint).collect();
    let mut tickets = Vec::new();
    for endpoint in &endpoints {
        let value = |gauge| match gauge {
            Gauge::KvCapacity => 400_000.0,
            Gauge::MaxAdapters => 4.0,
            Gauge::PromptLengthMean | Gauge::OutputLengthMean | Gauge::MaxRunning => 256.0,
            _ => rng.f64(),
        };
        let told = Gauge::ALL.into_iter().map(value).collect::<Vec<_>>();
        let page = Gauge::ALL.into_iter().zip(told).fold(Gauges::default(), |page, (gauge, v)| page.with(gauge, v));
        endpoint.live.publish(&page, endpoint.live.mark(), NOW);
        endpoint.live.signals.set_adapters(Some(adapters(&mut rng)));
        for second in 40..100 {
            let now = Moment::EPOCH + Duration::from_secs(second);
            endpoint.live.measured.answered(now);
            endpoint.live.measured.tokens(500, 100, now);
            endpoint.live.measured.first_token(Duration::from_millis(rng.u64(50..500)), now);
        }
        let work = Work { prompt_tokens: 500, output_tokens: 100 };
        tickets.extend((0..rng.usize(..6)).map(|_| Ticket::open(Arc::clone(endpoint), work, &clock)));
    }
    Fleet { endpoints, _tickets: tickets }
}

fn asked() -> Asked {
    let work = Work { prompt_tokens: 700, output_tokens: 120 };
    let mut asked = Asked { model: "lora".into(), work, ..Asked::default() };
    asked.headers.keep("x-aibrix-session-key", "agent-session-42");
    asked
}

fn decision(router: &dyn Router, asked: &Asked, fleet: &Fleet, seed: u64) {
    let request = RequestView { asked, adapter_of: Some("m"), now: NOW, seed, stale_after: Duration::from_secs(5) };
    black_box(decide(router, &request, &fleet.endpoints, 1, &mut Trace::off()).unwrap().unwrap());
}

fn router(name: &str) -> Arc<dyn Router> {
    let registration = STRATEGIES.iter().find(|registration| registration.name == name).unwrap();
    (registration.build)(&Parameters::default()).unwrap().into_router()
}

#[divan::bench(args = STRATEGIES.iter().map(|registration| registration.name), consts = SIZES)]
fn one<const SIZE: u32>(bencher: Bencher<'_, '_>, name: &str) {
    let (router, asked, fleet) = (router(name), asked(), fleet(SIZE));
    let mut seed = 0;
    bencher.bench_local(|| {
        seed += 1;
        decision(&*router, &asked, &fleet, seed);
    });
}

fn table() {
    let asked = asked();
    let mut out = stdout().lock();
    writeln!(out, "| strategy | 64: p50 µs | p99 µs | 1,000: p50 µs | p99 µs |\n|---|---|---|---|---|").unwrap();
    for registration in STRATEGIES {
        write!(out, "| `{}` |", registration.name).unwrap();
        for size in SIZES {
            let (router, fleet) = (router(registration.name), fleet(size));
            let measure = |seed| {
                let begin = Instant::now();
                decision(&*router, &asked, &fleet, seed);
                begin.elapsed()
            };
            let round = |round: u64| {
                let mut times: Vec<_> = (0..DECISIONS).map(|n| measure(round * DECISIONS + n)).collect();
                times.sort_unstable();
                [50, 99].map(|share| *times.get(times.len() * share / 100).unwrap())
            };
            let quietest = (0..ROUNDS).map(round).min_by_key(|[_, high]| *high).unwrap();
            for time in quietest {
                let micros = time.as_secs_f64() * 1e6;
                write!(out, " {micros:.1} |").unwrap();
            }
        }
        writeln!(out).unwrap();
    }
}
