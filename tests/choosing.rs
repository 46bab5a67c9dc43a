//! Which strategy a request gets, through a real Envoy: lock, header, profile, default; combinations and named ones.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common_traffic;

use std::time::Duration;

use fairlead_lab::harness::wait_until;

use common_traffic::{ADAPTER, Answer, CHAT, Lab, MODEL, Mode, Net, OTHER_MODEL};

/// Longest wait for anything that ought to happen soon.
const SOON: Duration = Duration::from_secs(10);

const SETTINGS: &str = "
routing:
  algorithm: 'least-request:2,least-tokens'
  strategies:
    drawn: { scorers: [{ use: least-request }, { use: least-kv-cache, scale: 0.2 }], picker: weighted-random }
    turns: { use: round-robin, fallback: [least-request] }
  models:
    other-model: { locked: turns }
    llama-3-8b:
      profiles:
        default: {}
        long: { strategy: drawn, when: { prompt_tokens_gte: 500 } }
        capped: { strategy: random, requests_per_second: 5, when: { max_tokens_lt: 8 } }
";

async fn chat(lab: &Lab, model: &str, headers: &[(&str, &str)], words: usize, max_tokens: u32) -> Answer {
    let prompt = "word ".repeat(words);
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":{max_tokens}}}"#
    );
    lab.call("POST", CHAT, headers, body).await
}

/// Strategy and profile of a short request, as its answer tells.
async fn chosen(lab: &Lab, model: &str, headers: &[(&str, &str)]) -> (String, String) {
    told(&chat(lab, model, headers, 2, 16).await)
}

fn told(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.header("routing-strategy").to_owned(), answer.header("x-aibrix-config-profile").to_owned())
}

fn told_as(strategy: &str, profile: &str) -> (String, String) {
    (strategy.to_owned(), profile.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_is_chosen_by_lock_then_header_then_profile_then_default() {
    for mode in [Mode::Buffered, Mode::Duplex] {
        let lab = Lab::start(mode, Net::Removed, SETTINGS).await.unwrap();
        everything(&lab).await;
        lab.settled("choosing").await;
    }
}

async fn everything(lab: &Lab) {
    let combination = "least-request:2,least-tokens:1";
    assert_eq!(chosen(lab, MODEL, &[]).await, told_as(combination, "default"));
    assert_eq!(chosen(lab, ADAPTER, &[]).await, told_as(combination, "default"), "an adapter has its model's profiles");
    for (header, strategy) in [
        ("drawn", "drawn"),
        ("turns", "turns"),
        ("least-gpu-cache", "least-kv-cache"),
        (" least-request : 3 , drawn:0", "least-request"),
        ("least-request:3,least-kv-cache", "least-request:3,least-kv-cache:1"),
    ] {
        assert_eq!(chosen(lab, MODEL, &[("routing-strategy", header)]).await, told_as(strategy, "default"));
        assert_eq!(chosen(lab, OTHER_MODEL, &[("routing-strategy", header)]).await, told_as("turns", ""), "locked");
    }
    assert_eq!(chosen(lab, MODEL, &[("config-profile", "long")]).await, told_as("drawn", "long"));
    assert_eq!(chosen(lab, MODEL, &[("config-profile", "nonsense")]).await, told_as(combination, "default"));
    let both = [("config-profile", "long"), ("routing-strategy", "random")];
    assert_eq!(chosen(lab, MODEL, &both).await, told_as("random", "long"), "the header goes before the profile");

    let auto = [("config-profile", "auto")];
    assert_eq!(told(&chat(lab, MODEL, &auto, 2, 16).await), told_as(combination, "default"));
    assert_eq!(told(&chat(lab, MODEL, &auto, 1000, 16).await), told_as("drawn", "long"));
    assert_eq!(told(&chat(lab, MODEL, &auto, 2, 4).await), told_as("random", "capped"));
    refused(lab).await;
    let (_, metrics) = lab.stack.admin_get("/metrics").await.unwrap();
    for series in ["strategy=\"combination\"", "strategy=\"drawn\"", "strategy=\"turns\""] {
        let counted = metrics.lines().find(|line| line.contains(series)).unwrap();
        assert!(!counted.ends_with(" 0"), "{counted}");
    }
}

async fn refused(lab: &Lab) {
    for (header, code, message) in [
        ("fastest", "unknown_strategy", "least-request"),
        ("least-request,random", "invalid_strategy", "cannot be combined"),
        ("least-request:1.5", "invalid_strategy", "item 1"),
        ("least-request,", "invalid_strategy", "item 2 is empty"),
    ] {
        let answer = chat(lab, MODEL, &[("routing-strategy", header)], 2, 4).await;
        assert_eq!((answer.status, answer.header("x-error-routing")), (400, "true"), "{answer:?}");
        assert!(answer.text().contains(message), "{header}: {}", answer.text());
        assert!(answer.text().contains(code) || answer.text().contains("routing-strategy"), "{}", answer.text());
        // A lock goes before whatever the client wrote.
        let locked = chat(lab, OTHER_MODEL, &[("routing-strategy", header)], 2, 4).await;
        assert_eq!(locked.status, 200, "{locked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_choose_only_where_they_may() {
    let settings = "routing: { algorithm: random, header: false }";
    let lab = Lab::start(Mode::Buffered, Net::Removed, settings).await.unwrap();
    for header in ["round-robin", "nonsense"] {
        assert_eq!(chosen(&lab, MODEL, &[("routing-strategy", header)]).await, told_as("random", ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_goes_before_the_file_and_behind_profile_and_header() {
    let environment = [("ROUTING_ALGORITHM", "power-of-two")];
    let lab = Lab::start_in(&environment, Mode::Buffered, Net::Removed, SETTINGS, |envoy| envoy).await.unwrap();
    assert_eq!(chosen(&lab, MODEL, &[]).await, told_as("power-of-two", "default"));
    assert_eq!(chosen(&lab, MODEL, &[("config-profile", "long")]).await, told_as("drawn", "long"));
    let both = [("config-profile", "long"), ("routing-strategy", "random")];
    assert_eq!(chosen(&lab, MODEL, &both).await, told_as("random", "long"));
    assert_eq!(chosen(&lab, OTHER_MODEL, &both).await, told_as("turns", ""), "locked");
}

/// The list of endpoints with an annotation at one engine of each model.
fn annotated(lab: &Lab) -> String {
    let profiles = r#"{"defaultProfile": "calm", "profiles": {
        "calm": {"routingStrategy": "least-kv-cache"},
        "drawn": {"routingStrategy": "drawn"},
        "short": {"routingStrategy": "random", "routingConfig": {"maxTokensLt": 8}}}}"#;
    let lock = r#"{"lockedRoutingStrategy": "round-robin", "profiles": {"default": {}}}"#;
    let line = |(engine, model, annotation): (usize, &str, Option<&str>)| {
        let address = lab.stack.engine(engine).unwrap().address();
        let profiles = annotation.map_or(String::new(), |text| format!(", profiles: {text:?}"));
        format!("- {{ address: \"{address}\", models: [{model}]{profiles} }}\n")
    };
    [(0, MODEL, None), (1, MODEL, Some(profiles)), (2, MODEL, None), (3, OTHER_MODEL, Some(lock))].map(line).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_of_an_endpoint_counts_as_the_profiles_of_its_model() {
    let (_, rest) = SETTINGS.split_once("  models:").unwrap();
    let settings = SETTINGS.replace("  models:", "").replace(rest, "");
    let lab = Lab::start(Mode::Buffered, Net::Removed, &settings).await.unwrap();
    assert_eq!(chosen(&lab, MODEL, &[]).await, told_as("least-request:2,least-tokens:1", ""));
    lab.stack.write_endpoints(&annotated(&lab)).unwrap();
    let taken = async || chosen(&lab, MODEL, &[]).await == told_as("least-kv-cache", "calm");
    wait_until("the annotation is known", SOON, taken).await.unwrap();

    assert_eq!(chosen(&lab, MODEL, &[("config-profile", "drawn")]).await, told_as("drawn", "drawn"));
    let both = [("config-profile", "drawn"), ("routing-strategy", "least-tokens")];
    assert_eq!(chosen(&lab, MODEL, &both).await, told_as("least-tokens", "drawn"), "the header goes first");
    assert_eq!(
        chosen(&lab, OTHER_MODEL, &both).await,
        told_as("round-robin", "default"),
        "a lock goes before the header"
    );
    let auto = [("config-profile", "auto")];
    assert_eq!(told(&chat(&lab, MODEL, &auto, 2, 4).await), told_as("random", "short"));
    assert_eq!(told(&chat(&lab, MODEL, &auto, 2, 16).await), told_as("least-kv-cache", "calm"));
}
