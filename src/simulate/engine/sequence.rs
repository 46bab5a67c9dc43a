//! Requests inside an engine.

use super::Blocks;

/// A request as an engine gets it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The sender's name for it.
    pub key: u32,
    /// Tokens of the prompt, at least one.
    pub prompt_tokens: u64,
    /// Tokens of the answer, at least one.
    pub output_tokens: u64,
    /// What its tokens are, by blocks.
    pub blocks: Blocks,
    /// The adapter that it asks for.
    pub adapter: Option<u16>,
}

/// A job on its way through an engine.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) job: Job,
    /// Blocks that it holds, from its beginning.
    pub(super) held: Vec<u32>,
    /// Tokens whose KV must be there before it decodes: the prompt, and after a preemption what was generated.
    pub(super) target: u64,
    /// How many of those are there.
    pub(super) computed: u64,
    /// When it came, and how long it waited for the batch the first time.
    pub(super) arrived_us: u64,
    pub(super) queue_us: u64,
    /// Prompt tokens that the cache spared it.
    pub(super) cached: u64,
    /// Tokens generated up to when it joined the decoding ones.
    pub(super) generated: u64,
    /// Steps the engine had made when it joined the decoding ones.
    pub(super) joined: u64,
    /// Counts admissions, so that a stale note of an earlier one is known as such; 0 while it waits.
    pub(super) admission: u64,
    /// Its first token was told.
    pub(super) answered: bool,
    /// It takes part in decoding.
    pub(super) decodes: bool,
    /// Available tokens without which it was not admitted last time.
    pub(super) blocked_below: u64,
    /// Tokens to compute, as guessed when it came.
    pub(super) expected: u64,
}

impl Sequence {
    fn new(job: Job, held: Vec<u32>, expected: u64, arrived_us: u64) -> Self {
        Self {
            target: job.prompt_tokens,
            job,
            held,
            computed: 0,
            arrived_us,
            queue_us: 0,
            cached: 0,
            generated: 0,
            joined: 0,
            admission: 0,
            answered: false,
            decodes: false,
            blocked_below: 0,
            expected,
        }
    }

    /// Tokens in the KV cache, or set aside for it there, when the engine has made `steps` steps.
    pub(super) fn context(&self, steps: u64) -> u64 {
        self.target + if self.decodes { steps - self.joined } else { 0 }
    }

    /// Tokens of KV whose content is known.
    pub(super) fn known(&self, steps: u64) -> u64 {
        if self.decodes { self.context(steps) } else { self.computed }
    }
}

/// Sequences by small numbers, which are given out again.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    all: Vec<Option<Sequence>>,
    vacant: Vec<u32>,
    /// Lists of held blocks of former sequences, to be used again.
    spare: Vec<Vec<u32>>,
}

impl Sequences {
    pub(super) fn add(&mut self, job: Job, expected: u64, now: u64) -> u32 {
        let sequence = Some(Sequence::new(job, self.spare.pop().unwrap_or_default(), expected, now));
        if let Some(at) = self.vacant.pop()
            && let Some(place) = self.all.get_mut(at as usize)
        {
            *place = sequence;
            return at;
        }
        self.all.push(sequence);
        self.all.len() as u32 - 1
    }

    pub(super) fn get(&self, at: u32) -> Option<&Sequence> {
        self.all.get(at as usize)?.as_ref()
    }

    #[expect(clippy::expect_used, reason = "queues and batches name sequences that are there")]
    pub(super) fn at(&mut self, at: u32) -> &mut Sequence {
        self.all.get_mut(at as usize).and_then(Option::as_mut).expect("a sequence in a queue exists")
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<u32> {
        let mut sequence = self.all.get_mut(at as usize)?.take()?;
        self.vacant.push(at);
        sequence.held.clear();
        self.spare.push(sequence.held);
        Some(sequence.job.key)
    }

    /// Removes all; their senders' names for them.
    pub(super) fn drain(&mut self) -> Vec<u32> {
        (0..self.all.len() as u32).filter_map(|at| self.remove(at)).collect()
    }
}
