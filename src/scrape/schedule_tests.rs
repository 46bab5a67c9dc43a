use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::domain::{EndpointId, EndpointSpec, EngineKind, Gauge};
use crate::state::Snapshot;

use super::*;

#[path = "engine_tests.rs"]
mod engine_tests;
#[path = "pace_tests.rs"]
mod pace_tests;

const PAGE: &str = "vllm:num_requests_running 2\nvllm:num_requests_waiting 4\nvllm:kv_cache_usage_perc 0.25\n";
const STALE: Duration = Duration::from_mins(10);

/// What an engine under test does with each request.
#[derive(Clone, Copy)]
enum Manner {
    Answers(&'static str),
    /// By path; 404 elsewhere.
    Serves(&'static [(&'static str, &'static str)]),
    Fails,
    Hangs,
    /// Announces the size, then sends it.
    Huge(usize),
    /// Sends without an end, in chunks.
    Endless,
    /// The page ends, what is said behind it does not.
    EndlessTrailers,
    ClosesEachTime,
}

/// Engines and the scraper over them; all end with it.
struct Fleet {
    tasks: JoinSet<()>,
    clock: Clock,
    reader: Reader,
    status: Arc<ScrapeStatus>,
    demand: Arc<Demand>,
    endpoints: Vec<Arc<Endpoint>>,
    /// Ends an engine, connections and all.
    engines: Vec<tokio::task::AbortHandle>,
}

impl Fleet {
    async fn start(manners: &[Manner], config: config::Scrape) -> Self {
        Self::start_with(manners, config, Demand::new(GaugeSet::of(&[Gauge::KvUsage]), [])).await
    }

    async fn start_with(manners: &[Manner], config: config::Scrape, demand: Demand) -> Self {
        let mut fleet = Self {
            tasks: JoinSet::new(),
            clock: Clock::start(),
            reader: Reader::default(),
            status: Arc::default(),
            demand: Arc::new(demand),
            endpoints: Vec::new(),
            engines: Vec::new(),
        };
        for manner in manners {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            fleet.add(listener.local_addr().unwrap());
            let engine = fleet.tasks.spawn(engine(listener, *manner));
            fleet.engines.push(engine);
        }
        fleet.publish(1);
        let cancel = CancellationToken::new();
        let (_, options) = watch::channel(ScrapeOptions { demand: Arc::clone(&fleet.demand), config });
        fleet.tasks.spawn(run(fleet.reader.clone(), options, fleet.clock.clone(), Arc::clone(&fleet.status), cancel));
        fleet
    }

    fn add(&mut self, address: SocketAddr) {
        let id = EndpointId { slot: self.endpoints.len() as u32, generation: 0 };
        self.endpoints.push(Arc::new(Endpoint::new(id, vllm(address), Arc::default())));
    }

    fn publish(&self, version: u64) {
        self.reader.publish(Snapshot::build(version, self.endpoints.clone()));
    }

    fn gauge(&self, at: usize, gauge: Gauge) -> Option<f64> {
        self.endpoints[at].live.signals.gauge(gauge, self.clock.now(), STALE)
    }

    fn failed(&self) -> u64 {
        self.status.reads_failed.load(Relaxed)
    }
}

async fn engine(listener: TcpListener, manner: Manner) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, manner));
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) {
    let mut request = [0; 4096];
    // A request of the scraper fits one segment.
    while let Ok(1..) = stream.read(&mut request).await {
        let sent = match manner {
            Manner::Serves(pages) => {
                let text = String::from_utf8_lossy(&request);
                let path = text.split(' ').nth(1).unwrap();
                let page = pages.iter().find(|(known, _)| *known == path).map(|(_, page)| *page);
                let (status, page) = page.map_or((404, ""), |page| (200, page));
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                stream.write_all(head.as_bytes()).await
            }
            Manner::Hangs => return std::future::pending().await,
            Manner::Fails => stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n").await,
            Manner::Answers(page) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                stream.write_all(head.as_bytes()).await
            }
            Manner::ClosesEachTime => {
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{PAGE}");
                return stream.write_all(head.as_bytes()).await.unwrap_or_default();
            }
            Manner::Huge(size) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{PAGE}");
                stream.write_all(head.as_bytes()).await
            }
            Manner::EndlessTrailers => {
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n").await;
                let trailers = "x: y\r\n".repeat(10_000);
                while sent.is_ok() {
                    sent = stream.write_all(trailers.as_bytes()).await;
                }
                sent
            }
            Manner::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut sent = stream.write_all(head).await;
                while sent.is_ok() {
                    sent = stream.write_all(format!("{:x}\r\n{PAGE}\r\n", PAGE.len()).as_bytes()).await;
                }
                sent
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn vllm(address: SocketAddr) -> EndpointSpec {
    EndpointSpec { engine: EngineKind::Vllm, ..EndpointSpec::at(address) }
}

fn config() -> config::Scrape {
    config::Scrape {
        interval_min: Duration::from_millis(5),
        interval_max: Duration::from_millis(5),
        reads_per_second_max: 1_000_000,
        timeout: Duration::from_secs(5),
        page_bytes_max: 64 << 10,
        ..config::Scrape::default()
    }
}

/// Waits until `condition` holds, at most ten seconds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(time::timeout(Duration::from_mins(1), wait).await.is_ok(), "never came true: {what}");
}

#[tokio::test]
async fn a_page_becomes_gauges() {
    let fleet = Fleet::start(&[Manner::Answers(PAGE)], config()).await;
    until("read", || fleet.gauge(0, Gauge::KvUsage) == Some(0.25)).await;
    assert_eq!((fleet.gauge(0, Gauge::Running), fleet.gauge(0, Gauge::Waiting)), (Some(2.0), Some(4.0)));
    until("read often", || fleet.status.reads_ok.load(Relaxed) > 5).await;
    assert_eq!(fleet.failed(), 0);
}

#[tokio::test]
async fn an_engine_that_closes_each_connection_is_read_all_the_same() {
    let fleet = Fleet::start(&[Manner::ClosesEachTime], config()).await;
    until("read often", || fleet.status.reads_ok.load(Relaxed) > 5).await;
    assert_eq!(fleet.failed(), 0);
}

#[tokio::test]
async fn hanging_engines_do_not_hold_up_the_others() {
    let config = config::Scrape { concurrency: 4, timeout: STALE, ..config() };
    let mut fleet = Fleet::start(&[Manner::Answers(PAGE)], config).await;
    until("read alone", || fleet.gauge(0, Gauge::Running).is_some()).await;
    for _ in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        fleet.add(listener.local_addr().unwrap());
        fleet.tasks.spawn(engine(listener, Manner::Hangs));
    }
    fleet.publish(2);
    let before = fleet.status.reads_ok.load(Relaxed);
    until("read on", || fleet.status.reads_ok.load(Relaxed) > before + 50).await;
}

#[tokio::test]
async fn a_hanging_engine_is_given_up_in_time() {
    let config = config::Scrape { timeout: Duration::from_millis(20), ..config() };
    let fleet = Fleet::start(&[Manner::Hangs, Manner::Answers(PAGE)], config).await;
    until("given up", || fleet.failed() > 2).await;
    assert!(fleet.status.reads_ok.load(Relaxed) > fleet.failed());
}

#[tokio::test]
async fn failing_huge_endless_and_lying_pages_are_failed_reads_and_the_good_one_goes_on() {
    const LIE: &str = "vllm:num_requests_running NaN\nvllm:num_requests_waiting -3\nvllm:kv_cache_usage_perc 57\n";
    let manners = [
        Manner::Answers(PAGE),
        Manner::Fails,
        Manner::Huge(1 << 40),
        Manner::Endless,
        Manner::EndlessTrailers,
        Manner::Answers(LIE),
        Manner::Answers("<html>\nvllm:num_requests_running{ broken\n"),
    ];
    let mut fleet = Fleet::start(&manners, config()).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fleet.add(dead.local_addr().unwrap());
    drop(dead);
    fleet.publish(2);
    until("three dropped", || fleet.status.pages_too_large.load(Relaxed) >= 3).await;
    until("many failed", || fleet.failed() > 20).await;
    until("lines counted", || fleet.status.unreadable_lines.load(Relaxed) > 0).await;
    let before = fleet.status.reads_ok.load(Relaxed);
    until("read on", || fleet.status.reads_ok.load(Relaxed) > before + 20).await;
    assert_eq!(fleet.gauge(0, Gauge::Running), Some(2.0));
    for liar in 1..fleet.endpoints.len() {
        assert!(Gauge::ALL.iter().all(|gauge| fleet.gauge(liar, *gauge).is_none()), "{liar}");
    }
}

#[tokio::test]
async fn an_endpoint_that_left_is_read_no_more() {
    let mut fleet = Fleet::start(&[Manner::Answers(PAGE), Manner::Answers(PAGE)], config()).await;
    until("both", || (0..2).all(|at| fleet.gauge(at, Gauge::Running).is_some())).await;
    let left = fleet.endpoints.pop().unwrap();
    fleet.publish(2);
    until("older than many intervals", || left.live.signals.age(fleet.clock.now()) > Some(config().interval_max * 50))
        .await;
}

#[tokio::test]
async fn the_metrics_address_is_used_where_it_differs() {
    let mut fleet = Fleet::start(&[Manner::Answers(PAGE)], config()).await;
    let metrics_address = Some(fleet.endpoints[0].spec.address);
    let dead = SocketAddr::from(([127, 0, 0, 1], 9));
    let spec = EndpointSpec { metrics_address, ..vllm(dead) };
    let id = EndpointId { slot: 9, generation: 0 };
    fleet.endpoints.push(Arc::new(Endpoint::new(id, spec, Arc::default())));
    fleet.publish(2);
    until("read", || fleet.gauge(1, Gauge::Running) == Some(2.0)).await;
}
