//! The scheduler inside an engine: who is in the batch, what the next step computes, and what the last one gave.

use std::cmp::Reverse;

use super::{Engine, Output, Phase, whole};

impl Engine {
    /// Begins the next phase.
    pub(super) fn plan(&mut self, now: u64) {
        let preempted = self.make_room_to_decode();
        let mut budget = self.spec.step_tokens.saturating_sub(self.active);
        let mut us = 0.0;
        self.chunks.clear();
        for at in &self.prefilling {
            let sequence = self.sequences.at(*at);
            let tokens = budget.min(sequence.target - sequence.computed);
            if tokens == 0 {
                break;
            }
            us += self.cost.prefill_us(tokens, sequence.computed);
            budget -= tokens;
            self.chunks.push((*at, tokens));
        }
        if !preempted {
            us += self.admit(budget, now);
        }
        self.phase = if !self.chunks.is_empty() {
            us += self.cost.step_us + self.cost.decode_us(self.active, self.context);
            Phase::Prefill { began: now, ends: now + whole(us).max(1) }
        } else if let Some(steps) = self.cache.available().checked_div(self.active) {
            self.decode_phase(now, self.until_departure().min(steps).max(1))
        } else {
            debug_assert!(self.waiting.is_empty(), "an empty engine admits whoever waits");
            Phase::Idle
        };
    }

    /// Whether a waiting sequence could join the batch, as far as can be told without looking at its blocks.
    pub(super) fn has_room_for(&self, at: u32) -> bool {
        let Some(sequence) = self.sequences.get(at) else { return false };
        self.active as usize + self.prefilling.len() < self.spec.sequences_max
            && self.adapters.has_room(sequence.job.adapter)
            && sequence.blocked_below <= self.cache.available()
    }

    /// Admits waiting sequences in their order while the step has room; one that waits for an adapter slot is passed
    /// over. Returns what that adds to the step.
    fn admit(&mut self, mut budget: u64, now: u64) -> f64 {
        let mut us = 0.0;
        let mut at = 0;
        while budget > 0
            && let Some(number) = self.waiting.get(at).copied()
            && self.active as usize + self.prefilling.len() < self.spec.sequences_max
        {
            let adapter = self.sequences.at(number).job.adapter;
            if !self.adapters.has_room(adapter) {
                at += 1;
                continue;
            }
            if !self.take_in(number, now) {
                break;
            }
            self.waiting.remove(at);
            if self.adapters.join(adapter) {
                us += self.spec.adapter_load_us;
            }
            let sequence = self.sequences.at(number);
            let tokens = budget.min(sequence.target - sequence.computed);
            us += self.cost.prefill_us(tokens, sequence.computed);
            budget -= tokens;
            self.chunks.push((number, tokens));
        }
        us
    }

    /// Gives a waiting sequence its cached blocks and room for the rest, if there is room.
    fn take_in(&mut self, number: u32, now: u64) -> bool {
        let available = self.cache.available().saturating_sub(self.active);
        let sequence = self.sequences.at(number);
        if sequence.blocked_below > available {
            return false;
        }
        let block = self.cache.block_tokens();
        // The last token is computed in any case: it gives the first one of the answer.
        let (hits, idle) = self.cache.peek(&sequence.job.blocks, (sequence.target - 1) / block);
        let cached = hits * block;
        let needed = sequence.target - cached;
        if needed + idle * block > available {
            sequence.blocked_below = needed + idle * block;
            return false;
        }
        self.cache.hold(&sequence.job.blocks, hits, &mut sequence.held);
        self.cache.reserve(needed);
        self.admissions += 1;
        sequence.admission = self.admissions;
        sequence.computed = cached;
        if !sequence.answered {
            (sequence.cached, sequence.queue_us) = (cached, now - sequence.arrived_us);
            self.counters.cached_tokens += cached;
        }
        self.prefilling.push_back(number);
        self.admitted.push((number, self.admissions));
        true
    }

    /// Throws out the youngest until each decoding sequence can have one more token. Returns whether it had to.
    fn make_room_to_decode(&mut self) -> bool {
        let mut preempted = false;
        while self.active > self.cache.available() {
            let Some((number, admission)) = self.admitted.pop() else { break };
            if self.sequences.get(number).is_some_and(|sequence| sequence.admission == admission) {
                self.preempt(number);
                preempted = true;
            }
        }
        if self.admitted.len() > 2 * (self.active as usize + self.prefilling.len()) + 64 {
            let sequences = &self.sequences;
            let is_there = |(number, admission): &(u32, u64)| {
                sequences.get(*number).is_some_and(|sequence| sequence.admission == *admission)
            };
            self.admitted.retain(is_there);
        }
        preempted
    }

    fn preempt(&mut self, number: u32) {
        let decodes = self.leave_batch(number);
        if !decodes {
            self.prefilling.retain(|at| *at != number);
        }
        let steps = self.steps;
        let sequence = self.sequences.at(number);
        if decodes {
            sequence.generated += steps - sequence.joined;
            sequence.target = sequence.job.prompt_tokens + sequence.generated;
        }
        (sequence.admission, sequence.computed, sequence.decodes, sequence.blocked_below) = (0, 0, false, 0);
        self.counters.preemptions += 1;
        self.waiting.push_front(number);
        self.prune();
    }

    /// Takes a sequence's tokens out of the cache, keeping what others may find, and its adapter out of use. Returns
    /// whether it was decoding.
    fn leave_batch(&mut self, number: u32) -> bool {
        let block = self.cache.block_tokens();
        let sequence = self.sequences.at(number);
        let context = sequence.context(self.steps);
        for at in sequence.held.len()..(sequence.known(self.steps) / block) as usize {
            self.cache.share(sequence.job.blocks.id(at), &mut sequence.held);
        }
        self.cache.release(context - sequence.held.len() as u64 * block);
        self.cache.let_go(&mut sequence.held);
        self.adapters.leave(sequence.job.adapter);
        if sequence.decodes {
            self.active -= 1;
            self.context -= context;
        }
        sequence.decodes
    }

    /// Ends the present phase.
    pub(super) fn finish_phase(&mut self, outputs: &mut Vec<Output>) {
        let (began, ends, steps) = match self.phase {
            Phase::Idle => return,
            Phase::Prefill { began, ends } => (began, ends, 1),
            Phase::Decode { began, ends, steps } => (began, ends, steps),
        };
        self.phase = Phase::Idle;
        self.steps += steps;
        let tokens = self.active * steps;
        self.context += tokens;
        self.cache.reserve(tokens);
        self.counters.generated_tokens += tokens;
        self.counters.busy_us += ends - began;
        for at in 0..self.chunks.len() {
            if let Some((number, tokens)) = self.chunks.get(at).copied() {
                self.finish_chunk(number, tokens, outputs);
            }
        }
        self.chunks.clear();
        while let Some(Reverse((step, number, admission))) = self.decoding.peek().copied()
            && step <= self.steps
        {
            self.decoding.pop();
            if self.is_current(number, admission) {
                self.leave_batch(number);
                outputs.extend(self.sequences.remove(number).map(|key| Output::Finished { key }));
            }
        }
        self.prune();
    }

    /// A chunk of a prompt was computed; with the last one the sequence begins to decode.
    fn finish_chunk(&mut self, number: u32, tokens: u64, outputs: &mut Vec<Output>) {
        let block = self.cache.block_tokens();
        self.counters.computed_tokens += tokens;
        let sequence = self.sequences.at(number);
        sequence.computed += tokens;
        for at in sequence.held.len()..(sequence.computed / block) as usize {
            self.cache.share(sequence.job.blocks.id(at), &mut sequence.held);
        }
        if sequence.computed < sequence.target {
            return;
        }
        self.prefilling.retain(|at| *at != number);
        self.backlog -= std::mem::take(&mut sequence.expected);
        self.counters.generated_tokens += 1;
        (sequence.decodes, sequence.joined) = (true, self.steps);
        sequence.generated += 1;
        self.active += 1;
        self.context += sequence.target;
        let last = self.steps + (sequence.job.output_tokens - sequence.generated);
        self.decoding.push(Reverse((last, number, sequence.admission)));
        if !sequence.answered {
            sequence.answered = true;
            let (key, cached, queue_us) = (sequence.job.key, sequence.cached, sequence.queue_us);
            outputs.push(Output::FirstToken { key, cached, queue_us });
        }
    }

    fn is_current(&self, number: u32, admission: u64) -> bool {
        self.sequences.get(number).is_some_and(|sequence| sequence.admission == admission)
    }

    /// Drops notes of sequences that were thrown out from the head of the heap.
    fn prune(&mut self) {
        while let Some(Reverse((_, number, admission))) = self.decoding.peek().copied()
            && !self.is_current(number, admission)
        {
            self.decoding.pop();
        }
    }
}
