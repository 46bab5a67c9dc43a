//! How much of prompts engines find in their caches, by strategy, through a real Envoy.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common_life;

use common_life::{CONFIG, MODEL, QUICKSTART, metric, post_body, settle, stack};
use fairlead_lab::harness::Stack;
use serde_json::{Value, json};

const ENGINES: usize = 8;
const STRATEGIES: [&str; 6] =
    ["random", "least-request", "prefix-cache", "token-load", "prefix-cache-preble", "prefix-cache:2,least-request:1"];

/// A text of some thousand bytes that no other label has the beginning of.
fn text(label: &str, sentences: usize) -> String {
    let sentence = |n| format!("{label}: sentence {n} says what the one before did not.");
    (0..sentences).map(sentence).collect::<Vec<_>>().join(" ")
}

fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// Prompt tokens, and those of them that came from a cache.
type Tokens = (u64, u64);

async fn ask(stack: &Stack, strategy: &str, messages: &[Value]) -> Tokens {
    let body = json!({ "model": MODEL, "messages": messages, "max_tokens": 2 }).to_string();
    let answer = post_body(&stack.envoy_url(), &[("routing-strategy", strategy)], body).await.finish().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let usage = serde_json::from_str::<Value>(answer.text()).unwrap()["usage"].take();
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    (usage["prompt_tokens"].as_u64().unwrap(), cached.as_u64().unwrap())
}

/// Many questions behind few long system prompts.
async fn shared_prefix(stack: &Stack, strategy: &str) -> Vec<Tokens> {
    let mut answers = Vec::new();
    for question in 0..8 {
        for prompt in 0..6 {
            let system = message("system", &text(&format!("{strategy} {prompt}"), 100));
            let question = message("user", &text(&format!("question {question} to {prompt}"), 4));
            answers.push(ask(stack, strategy, &[system, question]).await);
        }
    }
    answers
}

/// Conversations that send all that was said again with each turn.
async fn multi_turn(stack: &Stack, strategy: &str) -> Vec<Tokens> {
    let mut talks: Vec<Vec<Value>> = (0..6).map(|_| Vec::new()).collect();
    let mut answers = Vec::new();
    for turn in 0..8 {
        for (talk, messages) in talks.iter_mut().enumerate() {
            let length = if turn == 0 { 60 } else { 15 };
            messages.push(message("user", &text(&format!("{strategy} talk {talk} turn {turn}"), length)));
            answers.push(ask(stack, strategy, messages).await);
            messages.push(message("assistant", "So it is."));
        }
    }
    answers
}

/// Share of the prompt tokens that were cached.
fn hit_rate(answers: &[Tokens]) -> f64 {
    let sum = |part: fn(&Tokens) -> u64| answers.iter().map(part).sum::<u64>() as f64;
    sum(|(_, cached)| *cached) / sum(|(prompt, _)| *prompt)
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies_that_go_by_prefixes_hit_caches_more_often_than_chance_and_know_it() {
    let stack = stack(QUICKSTART, &format!("{CONFIG}routing: {{ observe_answers: always }}\n"), ENGINES).await;
    let mut rates = Vec::new();
    for strategy in STRATEGIES {
        let shared = hit_rate(&shared_prefix(&stack, strategy).await);
        let turns = hit_rate(&multi_turn(&stack, strategy).await);
        eprintln!("{strategy:32} shared prefix {:5.1} %, multi-turn {:5.1} %", shared * 100.0, turns * 100.0);
        rates.push([shared, turns]);
    }
    let chance = rates.first().unwrap();
    for (strategy, rate) in STRATEGIES.iter().zip(&rates).skip(2) {
        for (hits, by_chance) in rate.iter().zip(chance) {
            assert!(*hits > by_chance + 0.2, "{strategy}: {hits:.2} against {by_chance:.2}");
        }
    }
    settle(&stack).await;
    // What was expected is what engines found, within a tenth.
    let names = ["answers", "prompt_tokens", "expected_tokens", "reported_tokens", "error_tokens"];
    let mut known = Vec::new();
    for name in names {
        known.push(metric(&stack, &format!("fairlead_prefix_{name}_total")).await);
    }
    eprintln!("{names:?} {known:?}");
    let &[answers, prompt, _, reported, error] = known.as_slice() else { unreachable!("as many as names") };
    // Six prompts of eight questions, and as many turns, for four strategies.
    assert_eq!(answers, 4 * 2 * 48);
    assert!(reported > prompt / 2 && error * 10 < prompt, "{known:?}");
}
