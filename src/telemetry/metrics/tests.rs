use std::net::SocketAddr;

use crate::domain::{Clock, EndpointId, EndpointSpec, Gauge, Gauges, Work};
use crate::state::{Endpoint, Live, Snapshot, Ticket};

use super::*;

fn endpoint(port: u16) -> Arc<Endpoint> {
    let spec =
        EndpointSpec { name: format!("engine-{port}"), ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port))) };
    Arc::new(Endpoint::new(EndpointId { slot: u32::from(port), generation: 0 }, spec, Arc::<Live>::default()))
}

fn has(page: &str, line: &str) {
    assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
}

#[test]
fn what_was_counted_is_on_the_page() {
    let metrics = Metrics::new(&["random", "least-request"]);
    metrics.stream_opened();
    metrics.stream_opened();
    metrics.stream_closed();
    let counters = metrics.decision_counters(["random", "least-request"]);
    metrics.decision(&counters, 1, 3e-6);
    metrics.decision(&counters, 7, 2.0);
    metrics.response(204);
    metrics.response(999);
    metrics.refusal("model_not_found");
    metrics.endpoint_failure(Failure::Reset);
    metrics.body_bytes_held.inc_by(12);
    let page = metrics.encode();
    for line in [
        "fairlead_streams_open 1",
        "fairlead_streams_total 2",
        "fairlead_decisions_total{strategy=\"least-request\"} 1",
        "fairlead_decisions_total{strategy=\"random\"} 0",
        "fairlead_decision_seconds_count 2",
        "fairlead_decision_seconds_bucket{le=\"0.000005\"} 1",
        "fairlead_decision_seconds_bucket{le=\"+Inf\"} 2",
        "fairlead_responses_total{class=\"2xx\"} 1",
        "fairlead_responses_total{class=\"other\"} 1",
        "fairlead_refusals_total{reason=\"model_not_found\"} 1",
        "fairlead_endpoint_failures_total{failure=\"reset\"} 1",
        "fairlead_endpoint_failures_total{failure=\"refused\"} 0",
        "fairlead_body_bytes_held 12",
    ] {
        has(&page, line);
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn endpoints_are_read_when_the_page_is() {
    let (metrics, reader, clock) = (Metrics::new(&[]), Reader::default(), Clock::start());
    metrics.watch_snapshot(reader.clone(), Duration::from_mins(1), clock.clone(), PerEndpoint::Full);
    has(&metrics.encode(), "fairlead_endpoints 0.0");
    let (a, b) = (endpoint(1), endpoint(2));
    reader.publish(Snapshot::build(3, vec![Arc::clone(&a), b]));
    let page = Gauges::default().with(Gauge::Running, 2.0).with(Gauge::KvUsage, 0.25);
    a.live.publish(&page, a.live.mark(), clock.now());
    let _ticket = Ticket::open(a, Work::default(), &clock);
    let page = metrics.encode();
    has(&page, "fairlead_endpoints 2.0");
    has(&page, "fairlead_snapshot_version 3.0");
    let label = "{endpoint=\"127.0.0.1:1\",name=\"engine-1\"}";
    has(&page, &format!("fairlead_endpoint_in_flight{label} 1.0"));
    has(&page, &format!("fairlead_endpoint_sent_total{label} 1.0"));
    has(&page, &format!("fairlead_endpoint_running{label} 2.0"));
    has(&page, &format!("fairlead_endpoint_kv_usage{label} 0.25"));
    has(&page, &format!("fairlead_endpoint_requests{label} 3.0"));
    has(&page, "fairlead_endpoints_stale 1.0");
    assert!(
        !page.contains("fairlead_endpoint_waiting{")
            && !page.contains("fairlead_endpoint_running{endpoint=\"127.0.0.1:2")
    );
}

#[test]
fn stale_engine_numbers_are_left_out() {
    let (metrics, reader, clock) = (Metrics::new(&[]), Reader::default(), Clock::start());
    metrics.watch_snapshot(reader.clone(), Duration::ZERO, clock, PerEndpoint::Full);
    let a = endpoint(1);
    let page = Gauges::default().with(Gauge::Running, 2.0);
    a.live.publish(&page, a.live.mark(), crate::domain::Moment::from_micros(1));
    reader.publish(Snapshot::build(1, vec![a]));
    let page = metrics.encode();
    assert!(!page.contains("fairlead_endpoint_running{"));
    assert!(page.contains("fairlead_endpoint_scrape_age_seconds{"));
}

#[test]
fn watched_series_of_one_family_share_its_head() {
    let metrics = Metrics::new(&[]);
    metrics.watch(families::SCRAPES, &[("result", "ok")], || 5.0);
    metrics.watch(families::SCRAPES, &[("result", "failed")], || 1.0);
    let page = metrics.encode();
    has(&page, "fairlead_scrapes_total{result=\"ok\"} 5.0");
    has(&page, "fairlead_scrapes_total{result=\"failed\"} 1.0");
    assert_eq!(page.matches("# TYPE fairlead_scrapes counter").count(), 1);
}

#[test]
fn how_much_is_shown_of_each_endpoint_is_a_choice() {
    let page = |detail| {
        let (metrics, reader, clock) = (Metrics::new(&[]), Reader::default(), Clock::start());
        metrics.watch_snapshot(reader.clone(), Duration::from_mins(1), clock.clone(), detail);
        let a = endpoint(1);
        let gauges = Gauges::default().with(Gauge::Running, 2.0).with(Gauge::TtftP95, 0.25);
        a.live.publish(&gauges, a.live.mark(), clock.now());
        reader.publish(Snapshot::build(1, vec![a]));
        metrics.encode()
    };
    let shown = |detail| {
        let page = page(detail);
        ["running", "ttft_p95", "busy_share"].map(|name| page.contains(&format!("fairlead_endpoint_{name}{{")))
    };
    assert_eq!(shown(PerEndpoint::Full), [true; 3]);
    assert_eq!(shown(PerEndpoint::Basic), [true, false, false]);
    assert_eq!(shown(PerEndpoint::Off), [false; 3]);
}
