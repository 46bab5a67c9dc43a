//! The model of time: one task per engine that batches sequences step by step, as vLLM's scheduler does.
//!
//! A step has a budget of tokens. Running decodes take one each, running prefills take what is left in chunks, and waiting
//! sequences enter while there is budget, a seat and KV blocks. When a decode finds no block, the sequence that came last
//! gives its blocks back and starts again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::blocks::{BlockPool, Holding};
use super::options::{BLOCK_TOKENS, Capacity, EngineOptions, Timing};
use super::stats::{Finish, Stats};

/// What the scheduler is asked to do.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) prompt_tokens: usize,
    pub(super) block_hashes: Vec<u64>,
    /// Tokens to generate, at least 1.
    pub(super) reply_tokens: u32,
    pub(super) finish: Finish,
    /// Adapter name, for `vllm:lora_requests_info`.
    pub(super) lora: Option<String>,
    pub(super) progress: watch::Sender<Progress>,
}

/// How far a job is; the reader renders the tokens that are new to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) generated: u32,
    pub(super) cached_tokens: usize,
    pub(super) finish: Option<Finish>,
}

#[derive(Debug)]
struct Sequence {
    job: Job,
    /// Tokens whose KV is there; while decoding all but the newest one.
    computed: usize,
    generated: u32,
    cached: usize,
    holding: Holding,
    arrived: Instant,
    admitted: Instant,
    last_token: Option<Instant>,
    first_token: Option<Instant>,
    /// Tokens that the step in progress computes.
    chunk: usize,
}

impl Sequence {
    fn new(job: Job) -> Self {
        let holding = Holding::default();
        let now = Instant::now();
        Self {
            job,
            computed: 0,
            generated: 0,
            cached: 0,
            holding,
            arrived: now,
            admitted: now,
            last_token: None,
            first_token: None,
            chunk: 0,
        }
    }

    /// After a preemption the generated tokens are computed again too.
    fn to_compute(&self) -> usize {
        self.job.prompt_tokens + self.generated as usize
    }

    fn pending(&self) -> usize {
        self.to_compute().saturating_sub(self.computed)
    }

    fn is_decoding(&self) -> bool {
        self.generated > 0 && self.pending() == 1
    }

    fn is_gone(&self) -> bool {
        self.job.progress.is_closed()
    }

    fn blocks(&self) -> usize {
        self.holding.named + self.holding.private
    }
}

/// The engine's batch, queue and cache.
#[derive(Debug)]
pub(super) struct Scheduler {
    timing: Timing,
    capacity: Capacity,
    pool: BlockPool,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Adapters in memory, the one used last at the end.
    resident: Vec<String>,
    adapters_max: usize,
    restarts: Arc<AtomicU64>,
    restarts_seen: u64,
    stats: Arc<Mutex<Stats>>,
}

impl Scheduler {
    pub(super) fn new(options: &EngineOptions, stats: Arc<Mutex<Stats>>, restarts: Arc<AtomicU64>) -> Self {
        let pool = BlockPool::new(options.capacity.kv_blocks);
        Self {
            timing: options.timing,
            capacity: options.capacity,
            pool,
            running: Vec::new(),
            waiting: VecDeque::new(),
            resident: Vec::new(),
            adapters_max: options.adapters_max().max(1),
            restarts,
            restarts_seen: 0,
            stats,
        }
    }

    /// Works until every sender of jobs is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut step_end = Instant::now();
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                let Some(job) = jobs.recv().await else { return };
                self.waiting.push_back(Sequence::new(job));
                step_end = Instant::now();
            }
            while let Ok(job) = jobs.try_recv() {
                self.waiting.push_back(Sequence::new(job));
            }
            self.forget_after_restart();
            self.drop_gone();
            step_end += self.plan();
            self.report();
            tokio::time::sleep_until(step_end).await;
            self.deliver();
            self.report();
        }
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that starts again holds nothing.
    fn forget_after_restart(&mut self) {
        let restarts = self.restarts.load(Ordering::Relaxed);
        if restarts != self.restarts_seen {
            self.restarts_seen = restarts;
            self.pool = BlockPool::new(self.capacity.kv_blocks);
            self.running.clear();
            self.waiting.clear();
            self.resident.clear();
        }
    }

    /// Sequences whose client left give their place back.
    fn drop_gone(&mut self) {
        let waiting_before = self.waiting.len();
        self.waiting.retain(|sequence| !sequence.is_gone());
        let mut aborted = (waiting_before - self.waiting.len()) as u64;
        let pool = &mut self.pool;
        self.running.retain(|sequence| {
            if sequence.is_gone() {
                pool.release(&sequence.job.block_hashes, &sequence.holding);
                aborted += 1;
            }
            !sequence.is_gone()
        });
        self.stats().finished_abort += aborted;
    }

    /// Fills one step and says how long it takes.
    fn plan(&mut self) -> Duration {
        let mut budget = self.capacity.step_tokens_max;
        let decoding = self.plan_decodes();
        budget = budget.saturating_sub(decoding);
        let mut prefilled = 0;
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.is_decoding()) {
            sequence.chunk = sequence.pending().min(budget - prefilled);
            prefilled += sequence.chunk;
        }
        let mut deferred = Vec::new();
        let mut loads = 0;
        while prefilled < budget && self.running.len() < self.capacity.sequences_max {
            let Some(mut sequence) = self.waiting.pop_front() else {
                break;
            };
            let Some(is_new) = self.place_adapter(&sequence) else {
                deferred.push(sequence);
                continue;
            };
            if !self.admit(&mut sequence) {
                self.waiting.push_front(sequence);
                break;
            }
            sequence.chunk = sequence.pending().min(budget - prefilled);
            prefilled += sequence.chunk;
            loads += u32::from(is_new);
            self.running.push(sequence);
        }
        self.stats().deferred = deferred.len();
        for sequence in deferred.into_iter().rev() {
            self.waiting.push_front(sequence);
        }
        self.timing.lora_load * loads
            + self.timing.step
            + self.timing.prefill_token * prefilled as u32
            + self.timing.decode_sequence * decoding as u32
    }

    /// Brings the sequence's adapter in; says whether it was not there, or `None` when those in use take all the room.
    fn place_adapter(&mut self, sequence: &Sequence) -> Option<bool> {
        let Some(name) = &sequence.job.lora else { return Some(false) };
        if let Some(at) = self.resident.iter().position(|known| known == name) {
            let known = self.resident.remove(at);
            self.resident.push(known);
            return Some(false);
        }
        if self.resident.len() >= self.adapters_max {
            let in_use = |name: &String| self.running.iter().any(|running| running.job.lora.as_ref() == Some(name));
            let idle = self.resident.iter().position(|name| !in_use(name))?;
            self.resident.remove(idle);
        }
        self.resident.push(name.clone());
        Some(true)
    }

    /// Makes room for one token of every decoding sequence; returns how many there are.
    fn plan_decodes(&mut self) -> usize {
        let mut index = 0;
        let mut decoding = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            if sequence.is_decoding() {
                let full = sequence.to_compute() > sequence.blocks() * BLOCK_TOKENS;
                if full && !self.pool.grow(&mut sequence.holding) {
                    self.preempt_last();
                    continue;
                }
                sequence.chunk = 1;
                decoding += 1;
            }
            index += 1;
        }
        decoding
    }

    fn preempt_last(&mut self) {
        let Some(mut sequence) = self.running.pop() else {
            return;
        };
        self.pool.release(&sequence.job.block_hashes, &sequence.holding);
        sequence.holding = Holding::default();
        sequence.computed = 0;
        self.waiting.push_front(sequence);
        self.stats().preemptions += 1;
    }

    /// Takes blocks for the whole prompt. The last prompt token is always computed, also on a full hit.
    fn admit(&mut self, sequence: &mut Sequence) -> bool {
        let named_max = sequence.job.prompt_tokens.saturating_sub(1) / BLOCK_TOKENS;
        let blocks = sequence.to_compute().div_ceil(BLOCK_TOKENS);
        let Some(holding) = self.pool.take(&sequence.job.block_hashes, named_max, blocks) else {
            return false;
        };
        sequence.cached = holding.named * BLOCK_TOKENS;
        sequence.computed = sequence.cached;
        sequence.holding = holding;
        sequence.admitted = Instant::now();
        let mut stats = self.stats();
        stats.prefix_queries += sequence.job.prompt_tokens as u64;
        stats.prefix_hits += sequence.cached as u64;
        stats.queue_time.add(sequence.arrived.elapsed());
        true
    }

    /// The step is over: prompts move on, and whoever has its whole prompt gets one token.
    fn deliver(&mut self) {
        let now = Instant::now();
        let stats = Arc::clone(&self.stats);
        let mut stats = stats.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            sequence.computed += std::mem::take(&mut sequence.chunk);
            if sequence.pending() > 0 {
                return true;
            }
            if sequence.holding.named < sequence.job.block_hashes.len() {
                pool.publish(&sequence.job.block_hashes, &mut sequence.holding);
            }
            emit(sequence, now, &mut stats);
            if sequence.generated >= sequence.job.reply_tokens {
                pool.release(&sequence.job.block_hashes, &sequence.holding);
                return false;
            }
            true
        });
    }

    fn report(&self) {
        let mut stats = self.stats();
        stats.running = self.running.len();
        stats.waiting = self.waiting.len();
        stats.kv_usage = self.pool.usage();
        stats.loras_running = adapters(self.running.iter());
        stats.loras_waiting = adapters(self.waiting.iter());
    }
}

fn emit(sequence: &mut Sequence, now: Instant, stats: &mut Stats) {
    sequence.generated += 1;
    stats.generation_tokens += 1;
    if let Some(last) = sequence.last_token.replace(now) {
        stats.inter_token.add(now - last);
    } else {
        stats.ttft.add(now - sequence.arrived);
        stats.prefill_time.add(now - sequence.admitted);
        sequence.first_token = Some(now);
        stats.prompt_tokens += sequence.job.prompt_tokens as u64;
    }
    let finish = (sequence.generated >= sequence.job.reply_tokens).then_some(sequence.job.finish);
    match finish {
        Some(Finish::Stop) => stats.finished_stop += 1,
        Some(Finish::Length) => stats.finished_length += 1,
        None => {}
    }
    if finish.is_some() {
        stats.end_to_end.add(now - sequence.arrived);
        stats.decode_time.add(sequence.first_token.map_or(Duration::ZERO, |first| now - first));
        stats.prompt_lengths.add_number(sequence.job.prompt_tokens as f64);
        stats.reply_lengths.add_number(f64::from(sequence.generated));
    }
    sequence.job.progress.send_replace(Progress {
        generated: sequence.generated,
        cached_tokens: sequence.cached,
        finish,
    });
}

fn adapters<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> String {
    let mut names: Vec<&str> = sequences.filter_map(|sequence| sequence.job.lora.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

#[cfg(test)]
mod tests;
