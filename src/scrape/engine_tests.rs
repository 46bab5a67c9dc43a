use super::*;

const RANK: &str = r#"{"loads":[{"num_running_reqs":3,"num_waiting_reqs":1,"token_usage":0.5}]}"#;
const LOADS: &str = "/v1/loads?include=core,memory,queues";
const SGLANG: &str =
    "sglang:num_running_reqs 9\nsglang:num_queue_reqs 9\nsglang:token_usage 0.9\nsglang:cache_hit_rate 0.25\n";
const TRTLLM: &str = "trtllm_num_requests_running 3\ntrtllm_kv_cache_utilization 0.5\n";

fn auto(fleet: &mut Fleet) {
    for endpoint in &mut fleet.endpoints {
        let spec = EndpointSpec { engine: EngineKind::Auto, ..endpoint.spec.clone() };
        *endpoint = Arc::new(Endpoint::new(endpoint.id, spec, Arc::default()));
    }
    fleet.publish(2);
}

fn engine(fleet: &Fleet, at: usize) -> Option<EngineKind> {
    fleet.endpoints[at].live.signals.engine()
}

#[tokio::test]
async fn engines_are_recognised_wherever_their_metrics_are() {
    let manners = [
        Manner::Serves(&[("/metrics", PAGE)]),
        Manner::Serves(&[("/metrics", SGLANG), (LOADS, RANK)]),
        Manner::Serves(&[(LOADS, RANK)]),
        Manner::Serves(&[("/metrics", "[]"), ("/prometheus/metrics", TRTLLM)]),
        Manner::Serves(&[("/metrics", "llamacpp:requests_processing 3\n")]),
        Manner::Serves(&[("/metrics", "up 1\n")]),
    ];
    let mut fleet = Fleet::start(&manners, config()).await;
    auto(&mut fleet);
    let expected = [EngineKind::Vllm, EngineKind::Sglang, EngineKind::Sglang, EngineKind::Trtllm, EngineKind::Llamacpp];
    until("all known", || (0..5).all(|at| engine(&fleet, at) == Some(expected[at]))).await;
    // The page of the first look may tell other numbers than the loads that are read from then on.
    let running = |at| fleet.gauge(at, Gauge::Running);
    until("all read", || running(0) == Some(2.0) && (1..5).all(|at| running(at) == Some(3.0))).await;
    assert_eq!((engine(&fleet, 5), running(5)), (None, None));
}

#[tokio::test]
async fn sglang_tells_its_load_at_its_own_path_and_the_rest_in_its_metrics() {
    let manners = [Manner::Serves(&[("/metrics", SGLANG), (LOADS, RANK)]), Manner::Serves(&[("/metrics", SGLANG)])];
    let wanted = Demand::new(GaugeSet::of(&[Gauge::KvUsage, Gauge::PrefixHitRate]), []);
    let mut fleet = Fleet::start_with(&manners, config(), wanted).await;
    auto(&mut fleet);
    until("both", || (0..2).all(|at| fleet.gauge(at, Gauge::PrefixHitRate) == Some(0.25))).await;
    until("loads", || fleet.gauge(0, Gauge::Running) == Some(3.0)).await;
    assert_eq!((fleet.gauge(0, Gauge::KvUsage), fleet.gauge(1, Gauge::KvUsage)), (Some(0.5), Some(0.9)));
}

#[tokio::test]
async fn a_generic_engine_is_read_as_the_configuration_says() {
    let metric = |names: &[&str]| config::GenericMetric {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        fold: config::GenericFold::Sum,
        scale: 1.0,
        only: std::collections::BTreeMap::new(),
    };
    let usage = config::GenericMetric { fold: config::GenericFold::Mean, scale: 0.01, ..metric(&["cache_percent"]) };
    let waiting = config::GenericMetric {
        only: [("state".to_owned(), "queued".to_owned())].into(),
        ..metric(&["absent", "requests"])
    };
    let metrics = [("kv_usage".to_owned(), usage), ("waiting".to_owned(), waiting)].into();
    let generic = config::GenericEngine { path: "/stats".to_owned(), metrics };
    let page = "cache_percent{gpu=\"0\"} 20\ncache_percent{gpu=\"1\"} 40\nrequests{state=\"queued\"} 7\nrequests{state=\"done\"} 9\n";
    let manners = [Manner::Serves(Box::leak(Box::new([("/stats", page)])))];
    let mut fleet = Fleet::start(&manners, config::Scrape { generic, ..config() }).await;
    let spec = EndpointSpec { engine: EngineKind::Generic, ..fleet.endpoints[0].spec.clone() };
    fleet.endpoints[0] = Arc::new(Endpoint::new(fleet.endpoints[0].id, spec, Arc::default()));
    fleet.publish(2);
    until("read", || fleet.gauge(0, Gauge::Waiting) == Some(7.0)).await;
    assert!(fleet.gauge(0, Gauge::KvUsage).is_some_and(|usage| (usage - 0.3).abs() < 1e-9));
}
