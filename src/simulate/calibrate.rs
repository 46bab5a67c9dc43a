//! Fitting the step times of an engine to measured requests.

use std::io::BufRead;

use serde::Deserialize;

use super::engine::CostModel;

/// One measured request.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Prompt tokens that the engine had in its cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: f64,
    /// Mean time between tokens, in milliseconds; not used where the answer has one token.
    #[serde(default)]
    pub itl_ms: f64,
    /// Requests like this one that were under way together. Times to first token count only where it is 1.
    #[serde(default = "one")]
    pub concurrency: u64,
}

fn one() -> u64 {
    1
}

/// What a fit gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The model.
    pub cost: CostModel,
    /// Mean error of the time to first token, as a share.
    pub ttft_error: f64,
    /// Mean error of the time between tokens, as a share.
    pub itl_error: f64,
}

/// Samples that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// A line is not a sample.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Too little to go by.
    #[error("{0}")]
    TooFew(&'static str),
}

/// Reads JSON lines; empty ones are passed over.
pub fn read_samples(lines: impl BufRead) -> Result<Vec<Sample>, CalibrateError> {
    let mut samples = Vec::new();
    for (line, text) in (1..).zip(lines.lines()) {
        let fault = |reason: String| CalibrateError::Line { line, reason };
        let text = text.map_err(|error| fault(error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let sample: Sample = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let times = [sample.ttft_ms, sample.itl_ms];
        if sample.prompt_tokens <= sample.cached_tokens || sample.output_tokens == 0 || sample.concurrency == 0 {
            return Err(fault("a prompt, an answer and a concurrency have to be at least 1".to_owned()));
        }
        if times.iter().any(|time| !time.is_finite() || *time < 0.0) {
            return Err(fault("a time is not a time".to_owned()));
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Fits the model by least squares of the relative errors: first the step and the decode terms to the times between
/// tokens, then the prefill terms to the times to first token, with that step. Terms below zero are left out.
///
/// Of several requests at once, those that were served first wait between their tokens for the prompts of the others.
/// So of equal ones only the lowest time between tokens counts: that of the last one, which waits for nobody.
///
/// # Errors
/// Samples that say too little: prompts of one length, no answer of two tokens.
pub fn fit(samples: &[Sample], step_tokens: u64) -> Result<Fit, CalibrateError> {
    let decode = undisturbed(samples);
    let rows: Vec<_> = decode.iter().map(|s| (decode_terms(s), s.itl_ms * 1e3)).collect();
    if rows.is_empty() {
        return Err(CalibrateError::TooFew("no sample has a time between tokens"));
    }
    let [step_us, sequence_us, context_us] = least_squares(&rows);
    let prefill: Vec<_> = samples.iter().filter(|s| s.concurrency == 1 && s.ttft_ms > 0.0).collect();
    let lengths: std::collections::BTreeSet<_> = prefill.iter().map(|s| s.prompt_tokens - s.cached_tokens).collect();
    if lengths.len() < 2 {
        return Err(CalibrateError::TooFew("times to first token of at least two prompt lengths, alone, are needed"));
    }
    // A step that prefills may take longer by a constant than one that decodes: the model has no term for that.
    let rows: Vec<_> = prefill.iter().map(|s| (prefill_terms(s, step_tokens), s.ttft_ms * 1e3)).collect();
    let [outside_us, prefill_token_us, attention_us] = least_squares(&rows);
    let cost = CostModel { step_us, prefill_token_us, attention_us, sequence_us, context_us };
    let ttft = |s: &&Sample| {
        let extra = (outside_us - step_us).max(0.0) * steps(s, step_tokens);
        cost.prompt_us(s.prompt_tokens, s.cached_tokens, step_tokens) + extra
    };
    let itl = |s: &&Sample| {
        let [step, sequences, context] = decode_terms(s);
        step * step_us + sequences * sequence_us + context * context_us
    };
    Ok(Fit {
        cost,
        ttft_error: mean_error(&prefill, ttft, |s| s.ttft_ms * 1e3),
        itl_error: mean_error(&decode, itl, |s| s.itl_ms * 1e3),
    })
}

/// The samples whose time between tokens is that of decoding alone.
fn undisturbed(samples: &[Sample]) -> Vec<&Sample> {
    let decodes = |s: &&Sample| s.output_tokens > 1 && s.itl_ms > 0.0;
    let same = |s: &Sample| (s.prompt_tokens, s.cached_tokens, s.output_tokens, s.concurrency);
    let mut kept: Vec<&Sample> = samples.iter().filter(decodes).collect();
    kept.sort_by(|a, b| same(a).cmp(&same(b)).then(a.itl_ms.total_cmp(&b.itl_ms)));
    kept.dedup_by(|next, first| first.concurrency > 1 && same(next) == same(first));
    kept
}

/// A step, the sequences in it, and their context half-way through the answer.
fn decode_terms(sample: &Sample) -> [f64; 3] {
    let sequences = sample.concurrency as f64;
    [1.0, sequences, sequences * (sample.prompt_tokens as f64 + sample.output_tokens as f64 / 2.0)]
}

/// The steps, the tokens computed, and the pairs of those with what is before them.
fn prefill_terms(sample: &Sample, step_tokens: u64) -> [f64; 3] {
    let computed = (sample.prompt_tokens - sample.cached_tokens) as f64;
    [steps(sample, step_tokens), computed, computed * (sample.cached_tokens as f64 + computed / 2.0)]
}

fn steps(sample: &Sample, step_tokens: u64) -> f64 {
    (sample.prompt_tokens - sample.cached_tokens).div_ceil(step_tokens.max(1)) as f64
}

fn mean_error(samples: &[&Sample], model: impl Fn(&&Sample) -> f64, measured: impl Fn(&&Sample) -> f64) -> f64 {
    let errors = samples.iter().map(|sample| (model(sample) / measured(sample) - 1.0).abs());
    errors.sum::<f64>() / samples.len().max(1) as f64
}

/// Weights of three terms that explain the measured values best, none below zero: of all subsets of the terms whose
/// solution is positive, the one with the least error. Errors count relative to the value.
fn least_squares(rows: &[([f64; 3], f64)]) -> [f64; 3] {
    let mut best = ([0.0; 3], f64::INFINITY);
    for subset in 1_u8..8 {
        let uses = |term: usize| subset & (1 << term) != 0;
        let Some(weights) = solve(rows, uses) else { continue };
        let error: f64 = rows.iter().map(|(terms, value)| (dot(terms, &weights) / value - 1.0).powi(2)).sum();
        // A term more has to earn its place.
        if weights.iter().all(|weight| *weight >= 0.0) && error < best.1 * (1.0 - 1e-9) {
            best = (weights, error);
        }
    }
    best.0
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The normal equations of the terms in use, by elimination; `None` where the samples do not tell the terms apart.
#[expect(clippy::indexing_slicing, reason = "three by three, and every index below three")]
fn solve(rows: &[([f64; 3], f64)], uses: impl Fn(usize) -> bool) -> Option<[f64; 3]> {
    // Each term in its own unit, so that one threshold fits all.
    let mut unit = [1e-300_f64; 3];
    for (terms, value) in rows {
        (0..3).for_each(|term| unit[term] = unit[term].max((terms[term] / value).abs()));
    }
    let mut matrix = [[0.0_f64; 4]; 3];
    for (terms, value) in rows {
        let scaled = |term: usize| if uses(term) { terms[term] / value / unit[term] } else { 0.0 };
        for (row, line) in matrix.iter_mut().enumerate() {
            (0..3).for_each(|column| line[column] += scaled(row) * scaled(column));
            line[3] += scaled(row);
        }
    }
    for (term, line) in matrix.iter_mut().enumerate() {
        if !uses(term) {
            line[term] = 1.0;
        }
    }
    for pivot in 0..3 {
        let largest = (pivot..3).max_by(|a, b| matrix[*a][pivot].abs().total_cmp(&matrix[*b][pivot].abs()))?;
        matrix.swap(pivot, largest);
        if matrix[pivot][pivot].abs() < 1e-9 {
            return None;
        }
        for row in 0..3 {
            if row != pivot {
                let factor = matrix[row][pivot] / matrix[pivot][pivot];
                (pivot..4).for_each(|column| matrix[row][column] -= factor * matrix[pivot][column]);
            }
        }
    }
    Some(std::array::from_fn(|term| matrix[term][3] / matrix[term][term] / unit[term]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: CostModel = CostModel {
        step_us: 12_000.0,
        prefill_token_us: 45.0,
        attention_us: 0.002,
        sequence_us: 60.0,
        context_us: 0.08,
    };

    fn samples(noise: f64) -> Vec<Sample> {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut samples = Vec::new();
        for prompt_tokens in [100, 500, 1000, 2000, 4000, 8000] {
            for concurrency in [1, 4, 16] {
                let blur = |rng: &mut fastrand::Rng| 1.0 + noise * (rng.f64() - 0.5);
                let step = TRUE.step_us + TRUE.decode_us(concurrency, concurrency * (prompt_tokens + 50));
                samples.push(Sample {
                    prompt_tokens,
                    cached_tokens: 0,
                    output_tokens: 100,
                    ttft_ms: TRUE.prompt_us(prompt_tokens, 0, 8192) / 1e3 * blur(&mut rng),
                    itl_ms: step / 1e3 * blur(&mut rng),
                    concurrency,
                });
            }
        }
        samples
    }

    #[test]
    fn exact_samples_give_the_model_back() {
        let fit = fit(&samples(0.0), 8192).unwrap();
        for (found, expected) in [
            (fit.cost.step_us, TRUE.step_us),
            (fit.cost.prefill_token_us, TRUE.prefill_token_us),
            (fit.cost.attention_us, TRUE.attention_us),
            (fit.cost.sequence_us, TRUE.sequence_us),
            (fit.cost.context_us, TRUE.context_us),
        ] {
            assert!((found / expected - 1.0).abs() < 1e-4, "{fit:?}");
        }
        assert!(fit.ttft_error < 1e-6 && fit.itl_error < 1e-6);
    }

    #[test]
    fn noisy_samples_give_a_model_that_predicts_them() {
        let fit = fit(&samples(0.1), 8192).unwrap();
        assert!(fit.ttft_error < 0.06 && fit.itl_error < 0.06, "{fit:?}");
        assert!([fit.cost.sequence_us, fit.cost.context_us, fit.cost.attention_us].iter().all(|term| *term >= 0.0));
    }

    #[test]
    fn who_waited_for_the_prompts_of_others_does_not_count() {
        let mut disturbed = samples(0.0);
        for sample in samples(0.0).into_iter().filter(|sample| sample.concurrency > 1) {
            disturbed.push(Sample { itl_ms: sample.itl_ms * 3.0, ..sample });
        }
        assert!((fit(&disturbed, 8192).unwrap().cost.sequence_us / TRUE.sequence_us - 1.0).abs() < 1e-4);
    }

    #[test]
    fn too_little_is_said_to_be_too_little() {
        let all = samples(0.0);
        assert!(matches!(fit(&all[..1], 8192), Err(CalibrateError::TooFew(_))));
        assert!(matches!(fit(&[], 8192), Err(CalibrateError::TooFew(_))));
        let text = "{\"prompt_tokens\":10,\"output_tokens\":2,\"ttft_ms\":1,\"itl_ms\":1}\n{\"prompt_tokens\":0}\n";
        assert!(read_samples(text.as_bytes()).unwrap_err().to_string().starts_with("line 2: "));
    }
}
