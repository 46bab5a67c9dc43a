use crate::domain::Work;
use crate::state::Ticket;

use super::*;

const IDLE: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n";

const AGAIN: &str = "process_start_time_seconds 2000\nvllm:num_requests_running 1\nvllm:generation_tokens_total 5\n";

fn reads(fleet: &Fleet) -> u64 {
    fleet.status.reads_ok.load(Relaxed)
}

#[tokio::test]
async fn while_nothing_is_needed_nothing_is_read_and_the_first_use_begins() {
    let demand = Demand::new(GaugeSet::NONE, [GaugeSet::NONE, GaugeSet::of(&[Gauge::KvUsage])]);
    let fleet = Fleet::start_with(&[Manner::Answers(PAGE)], config(), demand).await;
    until("looked", || fleet.status.needs_nothing.load(Relaxed)).await;
    fleet.demand.mark(0, fleet.clock.now());
    time::sleep(LOOK * 2).await;
    assert_eq!((reads(&fleet), fleet.failed()), (0, 0));
    fleet.demand.mark(1, fleet.clock.now());
    until("read", || fleet.gauge(0, Gauge::KvUsage) == Some(0.25)).await;
    assert!(!fleet.status.needs_nothing.load(Relaxed));
}

#[tokio::test]
async fn an_idle_engine_is_read_rarely_and_at_once_when_something_is_sent_there() {
    let slow = config::Scrape { interval_max: Duration::from_hours(1), ..config() };
    let fleet = Fleet::start(&[Manner::Answers(IDLE), Manner::Answers(PAGE)], slow).await;
    until("busy one is read often", || reads(&fleet) > 200).await;
    let (idle, busy) = (&fleet.endpoints[0].live, &fleet.endpoints[1].live);
    let (long, short) = (Some(Duration::from_millis(400)), Some(Duration::from_millis(100)));
    until("idle one is left alone", || idle.signals.age(fleet.clock.now()) > long).await;
    until("busy one is not", || busy.signals.age(fleet.clock.now()) < short).await;
    let _ticket = Ticket::open(Arc::clone(&fleet.endpoints[0]), Work::default(), &fleet.clock);
    until("read again", || idle.signals.age(fleet.clock.now()) < short).await;
}

#[tokio::test]
async fn a_large_fleet_is_read_no_faster_than_allowed() {
    let spare = config::Scrape { reads_per_second_max: 100, interval_min: Duration::from_millis(1), ..config() };
    let fleet = Fleet::start(&[Manner::Answers(PAGE); 20], spare).await;
    until("all read", || (0..20).all(|at| fleet.gauge(at, Gauge::Running).is_some())).await;
    let (before, start) = (reads(&fleet), Instant::now());
    until("some more", || reads(&fleet) >= before + 60).await;
    // Twenty may have been due at once.
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_page_of_fifty_megabytes_is_dropped_before_it_is_held() {
    let roomy = config::Scrape { page_bytes_max: 4 << 20, ..config() };
    let fleet = Fleet::start(&[Manner::Huge(50 << 20), Manner::Endless, Manner::Answers(PAGE)], roomy).await;
    until("both dropped", || fleet.status.pages_too_large.load(Relaxed) >= 2).await;
    until("the third is read", || fleet.gauge(2, Gauge::Running) == Some(2.0)).await;
    assert_eq!((fleet.gauge(0, Gauge::Running), fleet.gauge(1, Gauge::Running)), (None, None));
}

#[tokio::test]
async fn a_restarted_engine_is_counted() {
    let mut fleet = Fleet::start_with(
        &[Manner::Answers(
            "process_start_time_seconds 1000\nvllm:num_requests_running 1\nvllm:generation_tokens_total 900\n",
        )],
        config(),
        Demand::new(GaugeSet::of(&[Gauge::GenerationTokensRate]), []),
    )
    .await;
    until("read", || fleet.gauge(0, Gauge::Running) == Some(1.0)).await;
    assert_eq!(fleet.status.engine_restarts.load(Relaxed), 0);
    // Another engine at the same address.
    let address = fleet.endpoints[0].spec.address;
    fleet.engines[0].abort();
    until("gone", || fleet.engines[0].is_finished()).await;
    let listener = TcpListener::bind(address).await.unwrap();
    fleet.tasks.spawn(engine(listener, Manner::Answers(AGAIN)));
    until("counted", || fleet.status.engine_restarts.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_thousand_endpoints_are_all_read_from_one_task() {
    let mut fleet = Fleet::start(&[], config::Scrape { interval_min: Duration::from_millis(100), ..config() }).await;
    for at in 0..1000_u16 {
        // An address for each: connections to one are bounded by its ports.
        let ip = [127, 0, (at >> 8) as u8 + 1, (at & 255) as u8];
        let listener = TcpListener::bind(SocketAddr::from((ip, 0))).await.unwrap();
        fleet.add(listener.local_addr().unwrap());
        fleet.tasks.spawn(engine(listener, Manner::Answers(PAGE)));
    }
    fleet.publish(2);
    until("all read", || (0..1000).all(|at| fleet.gauge(at, Gauge::Running) == Some(2.0))).await;
    assert_eq!(fleet.failed(), 0);
}
