//! Scripts under way.

use crate::routing::Asked;

use super::engine::Job;
use super::prefix;
use super::replica::{self, Booking};
use super::workload::{Script, Turn};

/// A script under way, and its present request.
#[derive(Debug)]
pub(super) struct Flight {
    script: Script,
    at: usize,
    /// What a router reads of its present request.
    pub(super) asked: Asked,
    pub(super) seed: u64,
    pub(super) engine: usize,
    pub(super) sent_us: u64,
    pub(super) first_us: u64,
    pub(super) cached: u64,
    /// Which replica routed it.
    pub(super) replica: usize,
    pub(super) booking: Option<Booking>,
}

impl Flight {
    pub(super) fn new(script: Script) -> Self {
        let session = (script.turns.len() > 1).then(|| script.blocks.own());
        let asked = replica::asked(script.turns.first().map_or(0, |turn| turn.prompt_tokens), script.adapter, session);
        Self { script, at: 0, asked, seed: 0, engine: 0, sent_us: 0, first_us: 0, cached: 0, replica: 0, booking: None }
    }

    pub(super) fn start(&mut self, now: u64, seed: u64) {
        (self.sent_us, self.seed) = (now, seed);
    }

    #[expect(clippy::indexing_slicing, reason = "a script has a turn, and next_turn() stops at the last")]
    pub(super) fn turn(&self) -> Turn {
        self.script.turns[self.at]
    }

    pub(super) fn tenant(&self) -> u16 {
        self.script.tenant
    }

    pub(super) fn job(&self, key: u32) -> Job {
        let Turn { prompt_tokens, output_tokens, .. } = self.turn();
        Job { key, prompt_tokens, output_tokens, blocks: self.script.blocks.clone(), adapter: self.script.adapter }
    }

    /// Makes the prompt's chain of hashes, which strategies that look at prefixes read.
    pub(super) fn hash_prompt(&mut self, block_tokens: u64) {
        self.asked.prefix = prefix::chain(&self.script.blocks, block_tokens, self.turn().prompt_tokens);
    }

    pub(super) fn first_token(&mut self, now: u64, cached: u64) {
        (self.first_us, self.cached) = (now, cached);
        if let Some(booking) = &mut self.booking {
            booking.first_token(now);
        }
    }

    /// Goes on to the next turn; the pause before it, or `None` if that was the last.
    pub(super) fn next_turn(&mut self) -> Option<u64> {
        let pause = self.script.turns.get(self.at + 1)?.pause_us;
        self.at += 1;
        let prompt_tokens = u32::try_from(self.turn().prompt_tokens).unwrap_or(u32::MAX);
        self.asked.work.prompt_tokens = prompt_tokens;
        self.asked.prompt_bytes = prompt_tokens.saturating_mul(4);
        Some(pause)
    }
}

/// Flights by small numbers, which are given out again.
#[derive(Debug, Default)]
pub(super) struct Flights {
    all: Vec<Option<Flight>>,
    vacant: Vec<u32>,
}

impl Flights {
    pub(super) fn add(&mut self, flight: Flight) -> u32 {
        if let Some(key) = self.vacant.pop()
            && let Some(place) = self.all.get_mut(key as usize)
        {
            *place = Some(flight);
            return key;
        }
        self.all.push(Some(flight));
        self.all.len() as u32 - 1
    }

    #[expect(clippy::expect_used, reason = "a flight is removed by its last event")]
    pub(super) fn at(&mut self, key: u32) -> &mut Flight {
        self.all.get_mut(key as usize).and_then(Option::as_mut).expect("a flight with events ahead exists")
    }

    pub(super) fn remove(&mut self, key: u32) {
        if self.all.get_mut(key as usize).and_then(Option::take).is_some() {
            self.vacant.push(key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.len() == self.vacant.len()
    }
}
