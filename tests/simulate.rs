//! `fairlead simulate` from its command line to its results: laws that hold whatever the numbers, and rankings that must
//! come out as they are known to.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use fairlead::cli::{Action, parse};
use fairlead::routing::names;
use fairlead::simulate::workload::WORKLOADS;
use fairlead::simulate::{self, Cell, Options, Summary};

fn options(line: &str) -> Options {
    let words = ["fairlead", "simulate"].into_iter().chain(line.split_whitespace());
    match parse(words.map(OsString::from)).unwrap() {
        Action::Simulate(options) => *options,
        other => panic!("{other:?}"),
    }
}

fn cells(line: &str) -> Vec<Cell> {
    simulate::sweep(&options(line)).unwrap().run(|_, _, _| {}).unwrap()
}

/// Results by strategy of a line that names one workload and one demand.
fn by_strategy(line: &str) -> BTreeMap<String, Summary> {
    cells(line).into_iter().map(|cell| (cell.strategy, cell.summary)).collect()
}

fn one(line: &str) -> Summary {
    cells(&format!("{line} --no-oracle")).remove(0).summary
}

/// A file of this test process.
fn file(name: &str, text: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("fairlead-simulate-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let line = "--workload conversation,adapters --load 0.5,0.9 --requests 600 --engines llama-3-8b-a100:4";
    let bytes = |more: &str| {
        let options = options(&format!("{line} {more}"));
        let sweep = simulate::sweep(&options).unwrap();
        let cells = sweep.run(|_, _, _| {}).unwrap();
        (simulate::table(&cells), simulate::json(&sweep.scenario, &cells).unwrap(), simulate::plots(&cells))
    };
    let first = bytes("--seed 5 --threads 1");
    assert_eq!(first, bytes("--seed 5 --threads 3"));
    assert_ne!(first.1, bytes("--seed 6").1);
}

#[test]
fn every_workload_runs_with_every_strategy_and_loses_nothing() {
    let all: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
    let cells = cells(&format!("--workload {} --load 0.7 --requests 300 --engines qwen3-32b-2xh100:3", all.join(",")));
    assert_eq!(cells.len(), all.len() * (names().len() + 1));
    for cell in &cells {
        let s = &cell.summary;
        assert_eq!((s.sent, s.answered + s.failed + s.refused, s.failed), (300, 300, 0), "{cell:?}");
        assert!(s.ttft_ms.p50 > 0.0 && s.ttft_ms.p99 >= s.ttft_ms.p90 && s.e2e_ms.mean > s.ttft_ms.mean, "{cell:?}");
    }
}

#[test]
fn twice_the_engines_carry_twice_the_load() {
    let most = |engines: u32| {
        let line = "--workload small --strategy least-request --requests 6000 --concurrency";
        one(&format!("{line} {} --engines llama-3-8b-a100:{engines}", 200 * engines)).requests_per_s
    };
    let ratio = most(4) / most(2);
    assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
}

#[test]
fn in_a_closed_loop_requests_are_rate_times_latency() {
    let s = one("--workload shared-prefix-chat --strategy least-request --concurrency 60 --requests 3000 --engines \
                 qwen3-32b-2xh100:4");
    let little = s.requests_per_s * s.e2e_ms.mean / 1e3;
    assert!((little / 60.0 - 1.0).abs() < 0.05, "{little}");
}

#[test]
fn whoever_sees_load_beats_chance_and_nobody_beats_the_oracle_by_much() {
    let all = by_strategy("--workload shared-prefix-chat --load 0.85 --requests 4000 --engines qwen3-32b-2xh100:8");
    assert_eq!(all.len(), names().len() + 1);
    let (random, least, two) = (&all["random"], &all["least-request"], &all["power-of-two"]);
    assert!(least.ttft_ms.p99 < random.ttft_ms.p99 && two.ttft_ms.p99 < random.ttft_ms.p99);
    assert!(least.spread < two.spread && two.spread < random.spread);
    for (name, s) in &all {
        assert!(s.regret.unwrap() > -0.05, "{name} beats the oracle: {s:?}");
    }
    assert!(all["(oracle)"].hit_rate > 2.0 * least.hit_rate);
}

#[test]
fn a_combination_is_simulated_like_any_strategy() {
    let line = "--workload adapters --load 0.5 --requests 2000 --engines llama-3-8b-a100:4 --no-oracle --strategy \
                random,least-request --strategy least-request:1,lora-affinity:2";
    let all = by_strategy(line);
    let combined = all.iter().find(|(name, _)| name.contains("lora-affinity")).unwrap().1;
    assert_eq!(all.len(), 3);
    assert!(combined.ttft_ms.p90 < all["least-request"].ttft_ms.p90, "{all:#?}");
}

#[test]
fn a_slow_engine_hurts_those_who_do_not_look() {
    let all = by_strategy(
        "--workload small --load 0.7 --requests 6000 --strategy round-robin,least-request --no-oracle --engines \
         llama-3-8b-a100:7,llama-3-8b-a100:1*0.25",
    );
    assert!(all["round-robin"].e2e_ms.p99 > 1.5 * all["least-request"].e2e_ms.p99, "{all:#?}");
}

#[test]
fn replicas_that_do_not_see_each_other_spread_load_worse() {
    let spread = |replicas: u32| {
        // The metrics would tell of the others' requests: read them too rarely to help.
        let line = "--workload small --load 0.6 --requests 8000 --strategy least-request --scrape-interval 100s";
        one(&format!("{line} --engines llama-3-8b-a100:8 --replicas {replicas}")).spread
    };
    assert!(spread(8) > 1.5 * spread(1));
}

#[test]
fn an_engine_that_dies_fails_its_requests_and_is_then_left_alone() {
    let s = one("--workload small --load 0.6 --requests 8000 --strategy least-request --engines llama-3-8b-a100:4 \
                 --fault 1:down@10+20");
    assert_eq!(s.answered + s.failed, 8000);
    assert!(s.failed > 0 && s.failed < 400, "{}", s.failed);
}

#[test]
fn a_prompt_that_fits_nowhere_is_refused() {
    let s = one("--workload code-generation --rate 1 --requests 200 --strategy random --engines llama-3-8b-l4:4");
    assert!(s.refused > 100 && s.answered + s.refused == 200, "{s:?}");
}

#[test]
fn a_trace_is_replayed_at_its_times_or_at_a_rate() {
    let lines: Vec<_> = (0..100)
        .map(|n| {
            let (time, group) = (n * 250, n % 4);
            format!(
                "{{\"timestamp\": {time}, \"input_length\": 2100, \"output_length\": 20, \"hash_ids\": [{group}, 9{group}, \
                 8{group}, 7{group}, 1000{n}]}}\n"
            )
        })
        .collect();
    let path = file("trace.jsonl", &lines.concat());
    let line = format!("--trace {} --strategy least-request --engines llama-3-8b-a100:1", path.display());
    let recorded = one(&line);
    assert_eq!(recorded.answered, 100);
    assert!(recorded.hit_rate > 0.9 && (recorded.duration_s - 24.75).abs() < 2.0, "{recorded:?}");
    assert!((one(&format!("{line} --rate 1")).duration_s - 99.0).abs() < 4.0);
}

#[test]
fn a_calibrated_model_is_what_cost_takes() {
    let sample = |prompt: u32| {
        let (ttft, itl) = (12.0 + 0.09 * f64::from(prompt), 11.0 + 0.0001 * f64::from(prompt));
        format!("{{\"prompt_tokens\":{prompt},\"output_tokens\":50,\"ttft_ms\":{ttft},\"itl_ms\":{itl}}}\n")
    };
    let samples = file("samples.jsonl", &[100, 400, 1600, 6400].map(sample).concat());
    let mut out = Vec::new();
    simulate::execute(&options(&format!("calibrate --samples {}", samples.display())), &mut out).unwrap();
    let cost = file("cost.json", &String::from_utf8(out).unwrap());
    let line = "--workload small --strategy random --rate 1 --requests 200 --engines llama-3-8b-l4:1";
    let s = one(&format!("{line} --cost {}", cost.display()));
    // 200 tokens alone: 12 + 18 ms, at times behind another's.
    assert!((29.0..40.0).contains(&s.ttft_ms.p50), "{s:?}");
}

#[test]
fn results_are_written_where_they_are_asked_for() {
    let folder = file("x", "").parent().unwrap().join("plots");
    let json = folder.with_file_name("results.json");
    let line = "--workload small --rate 5,10 --requests 100 --engines llama-3-8b-a100:2";
    let mut out = Vec::new();
    let options = options(&format!("{line} --json {} --svg {}", json.display(), folder.display()));
    simulate::execute(&options, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("small, 10/s"));
    let parsed: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(parsed["runs"].as_array().unwrap().len(), 2 * (names().len() + 1));
    let svg = fs::read_to_string(folder.join("small.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("TTFT p90"));
}

#[test]
fn what_does_not_exist_is_said_with_what_does() {
    for (line, words) in [
        ("--workload chess", ["\"chess\"", "reasoning"]),
        ("--engines h100:2", ["\"h100:2\"", "llama-3-8b-a100"]),
        ("--load 0", ["--load", "more than 0"]),
        ("--trace /nowhere.jsonl", ["trace", "nowhere"]),
    ] {
        let error = simulate::sweep(&options(line)).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let error = simulate::sweep(&options("--strategy fastest")).unwrap_err().to_string();
    assert!(error.contains("fastest") && error.contains("random"), "{error}");
}

#[test]
fn prompts_that_share_beginnings_are_found_again_without_a_session() {
    let all = by_strategy(
        "--workload shared-prefix-chat --load 0.8 --requests 4000 --engines qwen3-32b-2xh100:8 --strategy \
         least-request,prefix-cache",
    );
    let (least, prefix) = (&all["least-request"], &all["prefix-cache"]);
    assert!(prefix.hit_rate > 0.85 && prefix.hit_rate > 2.0 * least.hit_rate, "{all:#?}");
    assert!(prefix.ttft_ms.p90 < 0.5 * least.ttft_ms.p90 && prefix.regret < least.regret, "{all:#?}");
}

#[test]
fn an_engine_that_lost_its_cache_is_used_again() {
    let line = "--workload conversation --load 0.6 --requests 6000 --strategy prefix-cache --engines llama-3-8b-a100:4";
    let (lost, calm) = (one(&format!("{line} --fault 1:down@40+10")), one(line));
    assert_eq!(lost.answered + lost.failed, 6000);
    assert!(lost.failed > 0 && lost.hit_rate > calm.hit_rate - 0.1, "{lost:?}");
}

#[test]
fn an_engine_that_slows_down_for_a_while_is_given_less() {
    let line = "--workload small --load 0.7 --requests 8000 --strategy least-request,round-robin --no-oracle --engines \
                llama-3-8b-a100:4 --fault 1:slow*0.3@5+20";
    let all = by_strategy(line);
    assert!(all["least-request"].ttft_ms.p99 < all["round-robin"].ttft_ms.p99, "{all:#?}");
}
