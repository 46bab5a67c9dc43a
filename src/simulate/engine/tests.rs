//! What an engine must hold to, whatever its numbers.

use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;

use super::*;

const COST: CostModel =
    CostModel { step_us: 10_000.0, prefill_token_us: 50.0, attention_us: 0.002, sequence_us: 40.0, context_us: 0.05 };

const SPEC: EngineSpec = EngineSpec {
    cost: COST,
    kv_tokens: 100_000,
    step_tokens: 4096,
    sequences_max: 64,
    adapters_max: 2,
    adapter_load_us: 5000.0,
};

fn job(key: u32, prompt_tokens: u64, output_tokens: u64) -> Job {
    let blocks = Blocks::new(Arc::default(), (u64::from(key) + 1) << 32);
    Job { key, prompt_tokens, output_tokens, blocks, adapter: None }
}

/// When each job had its first and its last token.
#[derive(Debug, Default)]
struct Seen {
    first: HashMap<u32, (u64, u64)>,
    last: HashMap<u32, u64>,
}

/// Feeds an engine with jobs at their times, and runs it to the end.
fn drive(engine: &mut Engine, jobs: Vec<(u64, Job)>) -> Seen {
    let mut seen = Seen::default();
    let mut outputs = Vec::new();
    let mut jobs = jobs.into_iter().peekable();
    loop {
        let due = engine.due().unwrap_or(u64::MAX);
        if let Some((at, job)) = jobs.next_if(|(at, _)| *at <= due) {
            engine.submit(job, 0, at);
            continue;
        }
        if due == u64::MAX {
            return seen;
        }
        engine.advance(due, &mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::FirstToken { key, cached, .. } => assert!(seen.first.insert(key, (due, cached)).is_none()),
                Output::Finished { key } => assert!(seen.last.insert(key, due).is_none()),
            }
        }
    }
}

#[test]
fn a_request_alone_takes_its_prefill_and_its_steps() {
    let mut engine = Engine::new(SPEC, 16);
    let seen = drive(&mut engine, vec![(1000, job(1, 10_000, 101))]);
    let prefill = COST.prompt_us(10_000, 0, SPEC.step_tokens);
    let decode = COST.steps_us(1, 10_000, 100);
    assert!((seen.first[&1].0 as f64 - 1000.0 - prefill).abs() < 5.0);
    assert!((seen.last[&1] as f64 - 1000.0 - prefill - decode).abs() < 10.0);
}

#[test]
fn a_prefix_hit_saves_exactly_its_prefill() {
    let mut engine = Engine::new(SPEC, 16);
    let cold = drive(&mut engine, vec![(0, job(1, 4000, 1))]).first[&1].0;
    let again = drive(&mut engine, vec![(1_000_000, job(1, 4000, 1))]).first[&1];
    // All whole blocks but the one with the last token.
    assert_eq!(again.1, 3984);
    let saved = COST.prefill_us(4000, 0) - COST.prefill_us(16, 3984);
    assert!((cold as f64 - (again.0 - 1_000_000) as f64 - saved).abs() < 2.0);
    assert_eq!(engine.counters().computed_tokens, 4016);
}

#[test]
fn the_next_turn_finds_prompt_and_answer_of_the_last() {
    let mut engine = Engine::new(SPEC, 16);
    drive(&mut engine, vec![(0, job(1, 1600, 320))]);
    let seen = drive(&mut engine, vec![(60_000_000, job(1, 2400, 10))]);
    // Of 1,920 tokens the last one was never computed, so its block is not whole.
    assert_eq!(seen.first[&1].1, 1904);
}

#[test]
fn an_arrival_is_taken_in_at_the_next_step() {
    let mut engine = Engine::new(SPEC, 16);
    let seen = drive(&mut engine, vec![(0, job(1, 100, 1000)), (3_000_000, job(2, 100, 1))]);
    let step = COST.step_us + COST.decode_us(1, 500);
    let first = seen.first[&2].0 as f64 - 3_000_000.0;
    assert!(first < 2.0 * step + COST.prefill_us(100, 0) + 100.0, "{first}");
}

#[test]
fn requests_and_tokens_are_conserved_under_pressure() {
    let spec = EngineSpec { kv_tokens: 6000, ..SPEC };
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let (mut engine, mut at) = (Engine::new(spec, 16), 0);
        let jobs: Vec<_> = (0..400)
            .map(|key| {
                at += rng.u64(..200_000);
                let adapter = rng.bool().then(|| rng.u16(..4));
                (at, Job { adapter, ..job(rng.u32(..50) * 1000 + key, rng.u64(1..3000), rng.u64(1..2000)) })
            })
            .collect();
        let outputs: u64 = jobs.iter().map(|(_, job)| job.output_tokens).sum();
        let prompts: u64 = jobs.iter().map(|(_, job)| job.prompt_tokens).sum();
        let seen = drive(&mut engine, jobs.clone());
        for (at, job) in &jobs {
            assert!(*at < seen.first[&job.key].0 && seen.first[&job.key].0 <= seen.last[&job.key], "seed {seed}");
        }
        let counters = engine.counters();
        assert!(counters.preemptions > 0, "seed {seed} put no pressure on");
        assert!(counters.computed_tokens + counters.cached_tokens >= prompts);
        assert_eq!((counters.generated_tokens, engine.load(), engine.cache.used()), (outputs, 0, 0), "seed {seed}");
        assert_eq!((engine.active, engine.context, engine.backlog), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn without_pressure_every_prompt_token_is_computed_once() {
    let mut engine = Engine::new(SPEC, 16);
    drive(&mut engine, (0..50).map(|key| (u64::from(key) * 400_000, job(key, 1000, 50))).collect());
    let counters = engine.counters();
    assert_eq!((counters.computed_tokens, counters.preemptions), (50_000, 0));
}

#[test]
fn no_more_than_the_allowed_sequences_run() {
    let mut engine = Engine::new(EngineSpec { sequences_max: 3, ..SPEC }, 16);
    for key in 0..8 {
        engine.submit(job(key, 10, 1000), 0, 0);
    }
    let due = engine.due().unwrap();
    engine.advance(due, &mut Vec::new());
    let status = engine.status(due);
    assert_eq!((status.running, status.waiting), (3, 5));
}

#[test]
fn a_third_adapter_waits_while_the_base_model_passes_it() {
    let mut engine = Engine::new(SPEC, 16);
    let with = |key, adapter| Job { adapter: Some(adapter), ..job(key, 100, 500) };
    let jobs = vec![(0, with(1, 1)), (0, with(2, 2)), (1, with(3, 3)), (2, job(4, 100, 10))];
    let seen = drive(&mut engine, jobs);
    assert!(seen.last[&4] < seen.first[&3].0);
    assert!(seen.first[&3].0 > seen.last[&1].min(seen.last[&2]));
    assert_eq!(engine.counters().adapter_loads, 3);
}

#[test]
fn a_restart_loses_requests_and_cache() {
    let mut engine = Engine::new(SPEC, 16);
    drive(&mut engine, vec![(0, job(1, 4000, 1))]);
    engine.submit(job(2, 4000, 100), 0, 10_000_000);
    assert_eq!(engine.restart(), [2]);
    assert!(engine.due().is_none());
    assert_eq!(drive(&mut engine, vec![(20_000_000, job(1, 4000, 1))]).first[&1].1, 0);
}

#[test]
fn half_the_speed_takes_twice_the_time() {
    let time = |speed| {
        let mut engine = Engine::new(SPEC, 16);
        engine.set_speed(speed);
        drive(&mut engine, vec![(0, job(1, 4000, 100))]).last[&1] as f64
    };
    assert!((time(0.5) / time(1.0) - 2.0).abs() < 0.001);
}

/// With answers of one token and prompts of one chunk the engine serves them in steps. With prompts that fill a step it
/// is a queue with one server and a fixed service time (M/D/1), whose mean wait is ρ·s / (2·(1 − ρ)).
#[test]
fn one_engine_waits_as_a_queue_with_fixed_service_does() {
    let spec = EngineSpec { step_tokens: 4000, kv_tokens: 10_000_000, sequences_max: 1000, ..SPEC };
    let service = COST.prompt_us(4000, 0, 4000);
    for load in [0.3, 0.6, 0.8] {
        let mut rng = Rng::with_seed(7);
        let (mut at, count) = (0.0, 10_000);
        let jobs: Vec<_> = (0..count)
            .map(|key| {
                at -= service / load * (1.0 - rng.f64()).ln();
                (whole(at), job(key, 4000, 1))
            })
            .collect();
        let seen = drive(&mut Engine::new(spec, 4000), jobs.clone());
        let waits: f64 = jobs.iter().map(|(at, job)| (seen.first[&job.key].0 - at) as f64 - service).sum();
        let (mean, theory) = (waits / f64::from(count), load * service / (2.0 * (1.0 - load)));
        assert!((mean / theory - 1.0).abs() < 0.1, "at load {load} the wait is {mean:.0}, not {theory:.0}");
    }
}
