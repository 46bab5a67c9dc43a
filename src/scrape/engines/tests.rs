use crate::domain::{GaugeSet, Gauges};
use crate::scrape::lens::Lens;
use crate::scrape::reading::Reading;

use super::*;

const BUSY: &str = include_str!("../../../tests/fixtures/vllm-0.32.0-metrics-busy.txt");
const RANKS: &str = include_str!("../../../tests/fixtures/vllm-0.32.0-metrics-dp2.txt");
const LLAMA: &str = include_str!("../../../tests/fixtures/llama-server-b11434-metrics.txt");

fn read(kind: EngineKind, page: &str) -> (Gauges, Reading) {
    let lens = Lens::of(engine(kind).unwrap(), GaugeSet::of(&Gauge::ALL));
    let mut reading = Reading::default();
    assert_eq!(reading.read(page.as_bytes(), &lens).unreadable_lines, 0);
    (reading.levels(&lens), reading)
}

fn told<const N: usize>(kind: EngineKind, page: &str, gauges: [Gauge; N]) -> [Option<f64>; N] {
    let (levels, _) = read(kind, page);
    gauges.map(|gauge| levels.get(gauge))
}

const LOAD: [Gauge; 3] = [Gauge::Running, Gauge::Waiting, Gauge::KvUsage];
const CACHE: [Gauge; 2] = [Gauge::KvCapacity, Gauge::BlockTokens];

#[test]
fn a_busy_vllm_tells_its_load_its_cache_and_that_it_is_awake() {
    assert_eq!(told(EngineKind::Vllm, BUSY, LOAD), [Some(2.0), Some(4.0), Some(0.260_869_565_217_391_35)]);
    // 24 blocks of 32 tokens, one of which holds nothing; the page twice shows six used of 23.
    assert_eq!(told(EngineKind::Vllm, BUSY, CACHE), [Some(23.0 * 32.0), Some(32.0)]);
    assert_eq!(told(EngineKind::Vllm, BUSY, [Gauge::Awake, Gauge::MaxAdapters]), [Some(1.0), Some(1.0)]);
}

#[test]
fn data_parallel_ranks_of_vllm_are_one_engine() {
    assert_eq!(told(EngineKind::Vllm, RANKS, LOAD), [Some(0.0), Some(0.0), Some(0.0)]);
    assert_eq!(told(EngineKind::Vllm, RANKS, CACHE), [Some(2.0 * 736.0), Some(32.0)]);
    let busy = RANKS
        .replace("running{engine=\"1\",model_name=\"tiny\"} 0.0", "running{engine=\"1\",model_name=\"tiny\"} 3.0")
        .replace("waiting{engine=\"0\",model_name=\"tiny\"} 0.0", "waiting{engine=\"0\",model_name=\"tiny\"} 5.0")
        .replace("perc{engine=\"1\",model_name=\"tiny\"} 0.0", "perc{engine=\"1\",model_name=\"tiny\"} 0.5")
        .replace(
            "{engine=\"1\",model_name=\"tiny\",sleep_state=\"awake\"} 1.0",
            "{engine=\"1\",sleep_state=\"awake\"} 0.0",
        );
    assert_eq!(told(EngineKind::Vllm, &busy, LOAD), [Some(3.0), Some(5.0), Some(0.25)]);
    assert_eq!(told(EngineKind::Vllm, &busy, [Gauge::Awake]), [Some(0.0)]);
}

#[test]
fn the_newest_list_of_adapters_is_true_wherever_it_stands() {
    let (_, mut reading) = read(EngineKind::Vllm, BUSY);
    let lists = reading.take_adapters().unwrap();
    let line = |running: &str, waiting: &str, at: &str| {
        format!(
            "vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} {at}\n"
        )
    };
    assert!(lists.running.iter().chain(&lists.waiting).all(|name| !name.is_empty()));
    let page = line("", "", "1.7952e+09") + &line("a, b", "c", "1.7953e+09") + &line("old", "", "1.7951e+09");
    let (levels, mut reading) = read(EngineKind::Vllm, &page);
    let lists = reading.take_adapters().unwrap();
    assert_eq!((lists.running, lists.waiting), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
    assert_eq!(levels.get(Gauge::MaxAdapters), Some(4.0));
}

#[test]
fn a_vllm_of_former_years_is_read_by_its_old_names_and_a_newer_name_wins_in_whatever_order() {
    let (old, new) = ("vllm:gpu_cache_usage_perc 0.9\n", "vllm:kv_cache_usage_perc 0.2\n");
    for (page, usage) in [(old.to_owned(), 0.9), (format!("{old}{new}"), 0.2), (format!("{new}{old}"), 0.2)] {
        assert_eq!(told(EngineKind::Vllm, &page, [Gauge::KvUsage]), [Some(usage)]);
    }
}

#[test]
fn one_lying_rank_makes_a_gauge_unknown() {
    for lie in ["NaN", "+Inf", "-1"] {
        let page =
            format!("vllm:num_requests_running{{engine=\"0\"}} 2\nvllm:num_requests_running{{engine=\"1\"}} {lie}\n");
        assert_eq!(told(EngineKind::Vllm, &page, [Gauge::Running]), [None]);
    }
    assert_eq!(told(EngineKind::Vllm, "vllm:kv_cache_usage_perc 57\n", [Gauge::KvUsage]), [None]);
}

#[test]
fn sglang_counts_each_data_parallel_rank_once_however_many_tensor_ranks_report() {
    let series = |name: &str, dp: u8, tp: u8, value: f64| {
        format!("sglang:{name}{{dp_rank=\"{dp}\",engine_type=\"unified\",pp_rank=\"0\",tp_rank=\"{tp}\"}} {value}\n")
    };
    let mut page = String::new();
    for (dp, tp) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        page += &series("num_running_reqs", dp, tp, 3.0);
        page += &series("num_queue_reqs", dp, tp, 1.0);
        page += &series("token_usage", dp, tp, 0.25 + 0.5 * f64::from(dp));
        page += &series("max_total_num_tokens", dp, tp, 1000.0);
        page += &series("page_size", dp, tp, 16.0);
    }
    assert_eq!(told(EngineKind::Sglang, &page, LOAD), [Some(6.0), Some(2.0), Some(0.5)]);
    assert_eq!(told(EngineKind::Sglang, &page, CACHE), [Some(2000.0), Some(16.0)]);
}

#[test]
fn the_other_engines_tell_their_load_by_their_own_names() {
    let trtllm = "trtllm_num_requests_running{engine_type=\"trtllm\"} 3\ntrtllm_num_requests_waiting 1\n\
        trtllm_kv_cache_utilization 0.5\ntrtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 10\n";
    assert_eq!(told(EngineKind::Trtllm, trtllm, LOAD), [Some(3.0), Some(1.0), Some(0.5)]);
    assert_eq!(told(EngineKind::Trtllm, trtllm, CACHE), [Some(320.0), Some(32.0)]);

    let triton = "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 1\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\"} 3\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"active\"} 9\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\"} 64\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 64\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 10\n";
    assert_eq!(told(EngineKind::Triton, triton, LOAD), [Some(3.0), Some(1.0), Some(0.5)]);
    assert_eq!(told(EngineKind::Triton, triton, CACHE), [Some(640.0), Some(64.0)]);
    assert_eq!(told(EngineKind::Triton, triton, [Gauge::MaxRunning]), [Some(64.0)]);

    let llama = LLAMA.replace("requests_processing 0", "requests_processing 2").replace("deferred 0", "deferred 5");
    assert_eq!(told(EngineKind::Llamacpp, &llama, LOAD), [Some(2.0), Some(5.0), None]);
    let tgi = "tgi_batch_current_size 3\ntgi_queue_size 1\n";
    assert_eq!(told(EngineKind::Tgi, tgi, LOAD), [Some(3.0), Some(1.0), None]);
    let xllm =
        "num_running_requests 3\nnum_waiting_requests 1\nkv_cache_utilization_perc 0.5\nengine_utilization 0.75\n";
    assert_eq!(told(EngineKind::Xllm, xllm, LOAD), [Some(3.0), Some(1.0), Some(0.5)]);
    assert_eq!(told(EngineKind::Xllm, xllm, [Gauge::Utilization]), [Some(0.75)]);
}

#[test]
fn an_engine_is_recognised_by_its_page_alone() {
    for (page, kind) in [
        (BUSY, Some(EngineKind::Vllm)),
        (RANKS, Some(EngineKind::Vllm)),
        (LLAMA, Some(EngineKind::Llamacpp)),
        ("# a comment\nsglang:token_usage 0.1\n", Some(EngineKind::Sglang)),
        ("trtllm_num_requests_running 1\n", Some(EngineKind::Trtllm)),
        ("nv_trt_llm_request_metrics 1\n", Some(EngineKind::Triton)),
        ("tgi_queue_size 1\n", Some(EngineKind::Tgi)),
        ("kv_cache_utilization_perc 0\n", Some(EngineKind::Xllm)),
        ("[{\"iter\": 1}]", None),
        ("up{job=\"vllm:x\"} 1\n# HELP vllm:num_requests_running text\n", None),
        ("", None),
    ] {
        assert_eq!(recognise(page.as_bytes()), kind, "{}", page.chars().take(40).collect::<String>());
    }
}

#[test]
fn only_what_is_needed_is_looked_for() {
    let lens = |gauges: &[Gauge]| Lens::of(engine(EngineKind::Vllm).unwrap(), GaugeSet::of(gauges));
    let seen = |gauges: &[Gauge]| Reading::default().read(BUSY.as_bytes(), &lens(gauges)).samples;
    // Beside each: when the process began.
    assert_eq!(seen(&[]), 1);
    assert_eq!(seen(&[Gauge::Running]), 2);
    assert_eq!(seen(&[Gauge::TtftMean]), 3);
    assert_eq!(seen(&[Gauge::TtftP95]), 3 + 23);
}
