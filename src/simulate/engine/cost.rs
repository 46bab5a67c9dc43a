//! How long a step of an engine takes.

use serde::{Deserialize, Serialize};

/// The step time of a continuously batching engine, in microseconds, as a sum of five terms.
///
/// A step costs a constant (reading the weights), something for each prompt token computed, something for each pair of
/// a computed token and a token of context before it (attention), something for each sequence that decodes, and
/// something for each token of context which those read. Fit it to an engine with `fairlead simulate calibrate`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Each step.
    pub step_us: f64,
    /// Each prompt token that the step computes.
    pub prefill_token_us: f64,
    /// Each prompt token that the step computes, for each token of context before it.
    pub attention_us: f64,
    /// Each sequence that gets one token from the step.
    pub sequence_us: f64,
    /// Each token of context of those sequences.
    pub context_us: f64,
}

impl CostModel {
    /// What computing `tokens` prompt tokens adds to a step when `before` tokens of the prompt are there already.
    pub fn prefill_us(&self, tokens: u64, before: u64) -> f64 {
        let (tokens, before) = (tokens as f64, before as f64);
        tokens * (self.prefill_token_us + self.attention_us * (before + tokens / 2.0))
    }

    /// What one token for each of `sequences`, which have `context` tokens together, adds to a step.
    pub fn decode_us(&self, sequences: u64, context: u64) -> f64 {
        self.sequence_us * sequences as f64 + self.context_us * context as f64
    }

    /// `steps` steps in a row that only decode: the context grows by one token a sequence with each.
    pub fn steps_us(&self, sequences: u64, context: u64, steps: u64) -> f64 {
        let (first, growth) = self.progression(sequences, context);
        let steps = steps as f64;
        steps * first + growth * steps * (steps - 1.0) / 2.0
    }

    /// The fewest such steps, at least one, that take `us` microseconds or longer.
    pub fn steps_until(&self, sequences: u64, context: u64, us: f64) -> u64 {
        let (first, growth) = self.progression(sequences, context);
        let guess = if growth > 0.0 {
            let half = first - growth / 2.0;
            ((half * half + 2.0 * growth * us).sqrt() - half) / growth
        } else {
            us / first
        };
        // The root may be off by a rounding error on either side.
        let mut steps = whole(guess).saturating_sub(1).max(1);
        while self.steps_us(sequences, context, steps) < us {
            steps += 1;
        }
        steps
    }

    /// The time of the first step, and by how much each next one is longer.
    fn progression(&self, sequences: u64, context: u64) -> (f64, f64) {
        // A model that costs nothing would never let time pass.
        let first = (self.step_us + self.decode_us(sequences, context)).max(1.0);
        (first, self.context_us * sequences as f64)
    }

    /// A whole prompt alone on the engine, in chunks of `chunk` tokens: the time to its first token.
    pub fn prompt_us(&self, tokens: u64, cached: u64, chunk: u64) -> f64 {
        let computed = tokens.saturating_sub(cached);
        let steps = computed.div_ceil(chunk.max(1)).max(1);
        self.step_us * steps as f64 + self.prefill_us(computed, cached)
    }

    /// The same engine at `speed` times the speed.
    #[must_use]
    pub fn at_speed(&self, speed: f64) -> Self {
        Self {
            step_us: self.step_us / speed,
            prefill_token_us: self.prefill_token_us / speed,
            attention_us: self.attention_us / speed,
            sequence_us: self.sequence_us / speed,
            context_us: self.context_us / speed,
        }
    }
}

/// A time or a count as a whole number, rounded; nothing below zero.
#[expect(clippy::cast_sign_loss, reason = "a float cast saturates: below zero becomes zero")]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: CostModel = CostModel {
        step_us: 10_000.0,
        prefill_token_us: 50.0,
        attention_us: 0.002,
        sequence_us: 40.0,
        context_us: 0.05,
    };

    #[test]
    fn many_steps_cost_what_they_cost_one_by_one() {
        let one_by_one: f64 = (0..500).map(|k| MODEL.step_us + MODEL.decode_us(7, 9000 + 7 * k)).sum();
        assert!((MODEL.steps_us(7, 9000, 500) - one_by_one).abs() < 1e-3);
    }

    #[test]
    fn steps_until_is_the_inverse_of_steps_us() {
        for model in [MODEL, CostModel { context_us: 0.0, ..MODEL }] {
            for steps in [1, 2, 3, 50, 4711] {
                let us = model.steps_us(7, 9000, steps);
                assert_eq!(model.steps_until(7, 9000, us - 1.0), steps);
                assert_eq!(model.steps_until(7, 9000, us + 1.0), steps + 1);
            }
        }
    }

    #[test]
    fn a_prompt_costs_the_same_in_one_chunk_and_in_two_but_for_the_step() {
        let whole = MODEL.prefill_us(8000, 0);
        let halves = MODEL.prefill_us(4000, 0) + MODEL.prefill_us(4000, 4000);
        assert!((whole - halves).abs() < 1e-6);
    }
}
