//! A simulated inference server over HTTP/1.1: vLLM 0.32, with the metrics of others on demand.
//!
//! | file | what is in it |
//! |---|---|
//! | `server` | listener, connections, what a closed listener means |
//! | `service` | paths and answers |
//! | `scheduler`, `blocks`, `prompt` | the model of time, of KV blocks and of tokens |
//! | `render`, `fast`, `body` | how answers look and how they are cut |
//! | `exposition`, `stats`, `dialect` | metrics |
//! | `page_maker` | metrics pages without an engine |
//! | `adapters`, `pages` | adapters that come and go, and the pages of other engines |
//! | `fault` | what goes wrong on command |

mod adapters;
mod blocks;
mod body;
pub mod cli;
mod dialect;
mod exposition;
mod fast;
mod fault;
mod generate;
mod options;
mod page_maker;
mod pages;
mod prompt;
mod render;
mod scheduler;
mod server;
mod service;
mod stats;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use dialect::Dialect;
pub use fault::{Fault, FaultCommand};
pub use options::{BLOCK_TOKENS, Capacity, EngineOptions, Timing};
pub use page_maker::PageMaker;

use adapters::Adapters;
use exposition::Exposition;
use fast::FastReplies;
use fault::FaultBoard;
use scheduler::{Job, Scheduler};
use stats::Stats;

/// Request counts of one engine. `received = in_progress + completed + aborted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Inference requests whose head arrived.
    pub received: u64,
    /// Not yet answered to the end.
    pub in_progress: u64,
    /// Answered to the end, error answers included.
    pub completed: u64,
    /// Cut off by the client or by a fault.
    pub aborted: u64,
    /// Bytes of request bodies.
    pub body_bytes: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Requests for `/metrics`.
    pub scrapes: u64,
}

/// An inference request as it arrived (only with [`EngineOptions::record`]).
#[derive(Debug, Clone)]
pub struct Recorded {
    /// HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Request headers.
    pub headers: HeaderMap,
    /// Request body, byte for byte.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Tally {
    received: AtomicU64,
    in_progress: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    body_bytes: AtomicU64,
    connections: AtomicU64,
    scrapes: AtomicU64,
}

/// A data-parallel rank: a scheduler with a batch, a queue and a cache of its own.
#[derive(Debug)]
struct Rank {
    stats: Arc<Mutex<Stats>>,
    jobs: mpsc::Sender<Job>,
    /// Counts restarts; the scheduler forgets everything when it changes.
    restarts: Arc<AtomicU64>,
}

/// What connections, control API and handle share.
#[derive(Debug)]
struct Shared {
    options: EngineOptions,
    name: HeaderValue,
    faults: FaultBoard,
    tally: Arc<Tally>,
    last: Mutex<Option<Recorded>>,
    ranks: Vec<Rank>,
    adapters: Adapters,
    asleep: AtomicBool,
    exposition: Exposition,
    fast: FastReplies,
    next_id: AtomicU64,
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Binds the address and serves until [`EngineHandle::stop`] or until the handle is dropped.
    ///
    /// # Errors
    /// The address cannot be bound, or the name is no header value.
    pub async fn start(options: EngineOptions) -> anyhow::Result<EngineHandle> {
        let address = options.address;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("engine cannot listen on '{address}'"))?;
        let address = listener.local_addr().context("address of the engine's listener")?;
        let name = HeaderValue::from_str(&options.name).with_context(|| format!("engine name '{}'", options.name))?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let ranks = (0..options.ranks.max(1)).map(|_| start_rank(&options, &tasks, &stop)).collect();
        let shared = Arc::new(Shared {
            name,
            faults: FaultBoard::new(),
            tally: Arc::default(),
            last: Mutex::default(),
            ranks,
            adapters: Adapters::new(options.loras.clone()),
            asleep: AtomicBool::new(false),
            exposition: Exposition::new(&options),
            fast: FastReplies::new(&options),
            next_id: AtomicU64::new(1),
            options,
        });
        tasks.spawn(server::run(Arc::clone(&shared), listener, address, tasks.clone(), stop.clone()));
        Ok(EngineHandle { shared, address, tasks, stop })
    }
}

fn start_rank(options: &EngineOptions, tasks: &TaskTracker, stop: &CancellationToken) -> Rank {
    let (jobs, queue) = mpsc::channel(options.capacity.queue_max.max(1));
    let (stats, restarts) = (Arc::default(), Arc::default());
    let scheduler = Scheduler::new(options, Arc::clone(&stats), Arc::clone(&restarts));
    let until = stop.clone();
    tasks.spawn(async move { until.run_until_cancelled(scheduler.run(queue)).await });
    Rank { stats, jobs, restarts }
}

/// A running engine. Dropping it closes the listener and resets its connections.
#[derive(Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EngineHandle {
    /// Where the engine listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ip:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of `x-engine` in its answers.
    pub fn name(&self) -> &str {
        &self.shared.options.name
    }

    /// Arms a fault, or takes all back with [`Fault::None`].
    pub fn set_fault(&self, command: impl Into<FaultCommand>) {
        self.shared.arm(command.into());
    }

    /// What the engine has counted so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// The last inference request, if the engine records.
    pub fn last_request(&self) -> Option<Recorded> {
        self.shared.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the listener, resets what is open and waits for all tasks to end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn counters(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tally = &self.tally;
        Counters {
            received: read(&tally.received),
            in_progress: read(&tally.in_progress),
            completed: read(&tally.completed),
            aborted: read(&tally.aborted),
            body_bytes: read(&tally.body_bytes),
            connections: read(&tally.connections),
            scrapes: read(&tally.scrapes),
        }
    }

    /// Arms a fault; a restart also makes every rank forget what it holds and has counted.
    fn arm(&self, command: FaultCommand) {
        if command.fault == Fault::Restart {
            for rank in &self.ranks {
                rank.restarts.fetch_add(1, Ordering::Relaxed);
                *rank.stats.lock().unwrap_or_else(PoisonError::into_inner) = Stats::default();
            }
        }
        self.faults.set(command);
    }

    /// A copy of the numbers behind `/metrics`, each rank's in itself consistent.
    fn stats(&self) -> Vec<Stats> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut all: Vec<Stats> = self
            .ranks
            .iter()
            .map(|rank| {
                let mut stats = rank.stats.lock().unwrap_or_else(PoisonError::into_inner);
                stats.note_adapters(now);
                stats.clone()
            })
            .collect();
        for stats in &mut all {
            stats.kv_tokens = self.options.capacity.kv_blocks * BLOCK_TOKENS;
            stats.asleep = self.asleep.load(Ordering::Relaxed);
        }
        if let (true, Some(stats)) = (self.options.fast, all.first_mut()) {
            stats.running = self.tally.in_progress.load(Ordering::Relaxed) as usize;
            stats.finished_stop = self.tally.completed.load(Ordering::Relaxed);
        }
        all
    }

    /// The rank that a request asks for, else the least loaded one.
    fn rank(&self, wanted: Option<usize>) -> Option<&Rank> {
        let load = |rank: &&Rank| {
            let stats = rank.stats.lock().unwrap_or_else(PoisonError::into_inner);
            stats.running + stats.waiting + (rank.jobs.max_capacity() - rank.jobs.capacity())
        };
        wanted.and_then(|index| self.ranks.get(index)).or_else(|| self.ranks.iter().min_by_key(load))
    }
}
