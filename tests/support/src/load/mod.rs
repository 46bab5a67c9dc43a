//! A load generator: closed loop or open loop, kept cheap because it shares the cores with what it measures.
//!
//! Bodies are made before the run, connections are kept alive, and everything runs on one thread.

mod bodies;
pub mod cli;
mod client;
mod options;
mod report;
mod spread;
mod sse;
mod table;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use fastrand::Rng;
use http::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

pub use options::{Api, LoadOptions, Pace};
pub use report::{Quantiles, Report};
pub use spread::Spread;
pub use table::Table;

use bodies::Body;
use client::{Connection, Shot, Target};
use report::{End, Recorder, Sample};

const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// How often the progress bar moves.
const PROGRESS_EVERY: u64 = 64;

/// Runs a load and waits for its last answer.
///
/// # Errors
/// The options make no sense (URL, rate, concurrency). Failed requests are no error, they are in the report.
pub async fn run(options: LoadOptions) -> anyhow::Result<Report> {
    match options.pace {
        Pace::Closed { concurrency } => ensure!(concurrency > 0, "concurrency must be at least 1"),
        Pace::Open { rate, .. } => ensure!(rate.is_finite() && rate > 0.0, "rate must be above 0"),
    }
    let run = Rc::new(Run::new(options)?);
    let locals = LocalSet::new();
    locals.run_until(Rc::clone(&run).drive()).await;
    run.bar.finish_and_clear();
    let elapsed = run.start.elapsed();
    let report = run.recorder.borrow().report(elapsed);
    Ok(report)
}

/// The state of a run; everything is on one thread.
struct Run {
    target: Target,
    bodies: Vec<Body>,
    recorder: Rc<RefCell<Recorder>>,
    rng: RefCell<Rng>,
    started: RefCell<u64>,
    idle: RefCell<Vec<Connection>>,
    sessions: Vec<RefCell<Option<HeaderValue>>>,
    start: Instant,
    end: Option<Instant>,
    bar: ProgressBar,
    options: LoadOptions,
}

impl Run {
    fn new(options: LoadOptions) -> anyhow::Result<Self> {
        let duration = options.duration.or_else(|| options.requests.is_none().then_some(DURATION_DEFAULT));
        let bodies = bodies::prepare(&options);
        let start = Instant::now();
        Ok(Self {
            target: Target::new(&options)?,
            bodies,
            recorder: Rc::new(RefCell::new(Recorder::new()?)),
            rng: RefCell::new(Rng::with_seed(options.seed)),
            started: RefCell::new(0),
            idle: RefCell::new(Vec::new()),
            sessions: (0..options.sessions).map(|_| RefCell::default()).collect(),
            start,
            end: duration.map(|duration| start + duration),
            bar: progress_bar(&options),
            options,
        })
    }

    async fn drive(self: Rc<Self>) {
        match self.options.pace {
            Pace::Closed { concurrency } => {
                let clients = TaskTracker::new();
                for _ in 0..concurrency {
                    clients.spawn_local(Rc::clone(&self).client());
                }
                clients.close();
                clients.wait().await;
            }
            Pace::Open { rate, in_flight_max } => Rc::clone(&self).arrivals(rate, in_flight_max).await,
        }
    }

    /// The number of the next request, or `None` when the run is over.
    fn next(&self) -> Option<u64> {
        let mut started = self.started.borrow_mut();
        let over = self.end.is_some_and(|end| Instant::now() >= end)
            || self.options.requests.is_some_and(|all| *started >= all);
        if over {
            return None;
        }
        *started += 1;
        Some(*started - 1)
    }

    async fn client(self: Rc<Self>) {
        let mut connection = None;
        while let Some(number) = self.next() {
            self.shoot(number, Instant::now(), &mut connection).await;
        }
    }

    async fn arrivals(self: Rc<Self>, rate: f64, in_flight_max: usize) {
        let tasks = TaskTracker::new();
        let mut arrival = self.start;
        loop {
            let uniform = self.rng.borrow_mut().f64();
            arrival += Duration::from_secs_f64(-(1.0 - uniform).ln() / rate);
            if self.end.is_some_and(|end| arrival >= end) {
                break;
            }
            sleep_until(arrival).await;
            let Some(number) = self.next() else { break };
            if tasks.len() >= in_flight_max {
                let end = End::Failed("not sent: too many in flight".to_owned());
                self.recorder.borrow_mut().add(Sample {
                    end,
                    status: None,
                    endpoint: None,
                    latency: Duration::ZERO,
                    ttft: None,
                    moved: false,
                });
                continue;
            }
            tasks.spawn_local(Rc::clone(&self).arrived(number, arrival));
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn arrived(self: Rc<Self>, number: u64, arrival: Instant) {
        let mut connection = self.idle.borrow_mut().pop();
        self.shoot(number, arrival, &mut connection).await;
        self.idle.borrow_mut().extend(connection);
    }

    async fn shoot(&self, number: u64, since: Instant, connection: &mut Option<Connection>) {
        let Some(body) = self.bodies.get(number as usize % self.bodies.len()) else {
            return;
        };
        let abort_after = self.abort_after();
        let session = self.sessions.get(number as usize % self.sessions.len().max(1));
        let timeout = self.options.timeout;
        let shot = Shot { target: &self.target, body, session, since, timeout, abort_after };
        let end = shot.fire(connection, &self.recorder).await;
        if let (End::Failed(reason), true) = (&end, self.options.verbose) {
            self.bar.suspend(|| eprintln!("request {number}: {reason}"));
        }
        let finished = self.recorder.borrow().finished();
        if finished.is_multiple_of(PROGRESS_EVERY) {
            self.show_progress(finished);
        }
    }

    /// The moment at which this request is dropped, if it is one of those.
    fn abort_after(&self) -> Option<Duration> {
        if self.options.abort_fraction <= 0.0 {
            // Arrivals draw from the same generator: without aborts they are the same in every run.
            return None;
        }
        let mut rng = self.rng.borrow_mut();
        (rng.f64() < self.options.abort_fraction).then(|| self.options.abort_within.mul_f64(rng.f64()))
    }

    fn show_progress(&self, finished: u64) {
        match self.options.requests {
            Some(_) => self.bar.set_position(finished),
            None => self.bar.set_position(self.start.elapsed().as_millis() as u64),
        }
        self.bar.set_message(format!("{finished} done"));
    }
}

fn progress_bar(options: &LoadOptions) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    // Draws on stderr, and nothing at all if that is not a terminal.
    let length = options.requests.unwrap_or_else(|| options.duration.unwrap_or(DURATION_DEFAULT).as_millis() as u64);
    let style =
        ProgressStyle::with_template("{wide_bar} {percent}% {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
