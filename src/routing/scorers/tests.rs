//! The numbers that scorers put on endpoints whose readings are known.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Clock, EndpointSpec, Gauge, Gauges, Moment, Work};
use crate::routing::conformance::{fleet, view};
use crate::routing::{Asked, Candidates, Decision, Part, Picker, RequestView, Router, Scored, Trace};
use crate::state::{Endpoint, Ticket};

use super::*;

const WORK: Work = Work { prompt_tokens: 1000, output_tokens: 200 };

fn read(endpoint: &Endpoint, gauges: &[(Gauge, f64)]) {
    let page = gauges.iter().fold(Gauges::default(), |page, (gauge, value)| page.with(*gauge, *value));
    endpoint.live.publish(&page, endpoint.live.mark(), view(0).now);
}

fn number(scorer: &dyn Scorer, endpoint: &Endpoint) -> Score {
    let asked = Asked { work: WORK, ..Asked::default() };
    scorer.score(&RequestView { asked: &asked, ..view(0) }, endpoint)
}

fn open(endpoint: &Arc<Endpoint>, requests: usize) -> Vec<Ticket> {
    let clock = Clock::manual(view(0).now).0;
    (0..requests).map(|_| Ticket::open(Arc::clone(endpoint), WORK, &clock)).collect()
}

#[track_caller]
fn assert_near(score: Score, value: f64) {
    assert!((score.value - value).abs() < 1e-9, "{score:?} is not {value}");
}

#[test]
fn expected_latency_is_scaled_to_this_very_request() {
    let (fleet, scorer) = (fleet(3), ExpectedLatency { parallel: 16.0 });
    let spans = [
        (Gauge::Running, 0.0),
        (Gauge::QueueTimeMean, 0.5),
        (Gauge::PrefillTimeMean, 0.2),
        (Gauge::PromptLengthMean, 400.0),
        (Gauge::DecodeTimeMean, 2.0),
        (Gauge::OutputLengthMean, 100.0),
    ];
    read(&fleet[0], &spans);
    // 0.5 s of queue, 1,000 tokens at 0.5 ms, 200 tokens at 20 ms.
    assert_near(number(&scorer, &fleet[0]), 0.5 + 0.5 + 4.0);
    let _ahead = open(&fleet[0], 4);
    assert_near(number(&scorer, &fleet[0]), 0.5 + 2.5 + 4.0 * 1.25);
    read(&fleet[1], &[(Gauge::Running, 0.0), (Gauge::TtftMean, 0.3), (Gauge::ItlMean, 0.01)]);
    assert_near(number(&scorer, &fleet[1]), 0.3 + 2.0);
    assert_eq!(number(&scorer, &fleet[2]), Score::UNKNOWN);
}

#[test]
fn cache_use_moves_with_what_is_sent_and_an_unknown_capacity_is_assumed() {
    let (fleet, scorer) = (fleet(3), KvCache { assumed_capacity: 12_000.0 });
    read(&fleet[0], &[(Gauge::KvUsage, 0.3), (Gauge::KvCapacity, 24_000.0)]);
    read(&fleet[1], &[(Gauge::KvUsage, 0.3)]);
    let _sent = [open(&fleet[0], 1), open(&fleet[1], 1)];
    assert_near(number(&scorer, &fleet[0]), 0.35);
    assert_near(number(&scorer, &fleet[1]), 0.4);
    assert!(number(&scorer, &fleet[0]).complete && !number(&scorer, &fleet[1]).complete);
    assert_eq!(number(&scorer, &fleet[2]), Score::UNKNOWN);
}

#[test]
fn utilization_is_the_tightest_limit() {
    let (fleet, scorer) = (fleet(1), Utilization { kv: KvCache { assumed_capacity: 1e6 } });
    let cache = [(Gauge::KvUsage, 0.5), (Gauge::KvCapacity, 1e6), (Gauge::Running, 3.0), (Gauge::MaxRunning, 10.0)];
    read(&fleet[0], &cache);
    assert_near(number(&scorer, &fleet[0]), 0.5);
    let _sent = open(&fleet[0], 4);
    assert_near(number(&scorer, &fleet[0]), 0.7);
    let told = [(Gauge::Utilization, 0.9), (Gauge::Running, 4.0)];
    read(&fleet[0], &told);
    assert_near(number(&scorer, &fleet[0]), 0.9);
    let _more = open(&fleet[0], 5);
    assert_near(number(&scorer, &fleet[0]), 1.8);
}

#[test]
fn a_busy_share_is_the_engines_word_or_else_our_own() {
    let fleet = fleet(2);
    read(&fleet[0], &[(Gauge::Utilization, 0.4), (Gauge::Running, 2.0)]);
    assert_near(number(&BusyTime, &fleet[0]), 0.4 * 3.0);
    drop(open(&fleet[1], 1));
    assert_near(number(&BusyTime, &fleet[1]), 0.05);
}

#[test]
fn a_prompt_token_counts_as_two_output_tokens() {
    let (fleet, scorer) = (fleet(1), RecentTokens { prompt_weight: 2.0, answers: AnswerNeeds::default() });
    fleet[0].live.measured.tokens(100, 30, view(0).now);
    fleet[0].live.measured.tokens(0, 20, view(0).now);
    assert_near(number(&scorer, &fleet[0]), 250.0);
}

#[test]
fn others_requests_count_as_large_as_this_one() {
    let (fleet, scorer) = (fleet(1), OutstandingTokens { answers: AnswerNeeds::default() });
    read(&fleet[0], &[(Gauge::Running, 2.0)]);
    let _ours = open(&fleet[0], 1);
    assert_near(number(&scorer, &fleet[0]), 1200.0 * 4.0);
}

#[test]
fn twice_the_latency_weighs_as_much_at_any_unit_and_failures_count() {
    let fleet = fleet(3);
    let weights = UsageWeights { latency: 0.4, success: 0.4, cost: 0.2 };
    for (at, seconds) in [(0, 0.1), (1, 0.2), (2, 0.1)] {
        read(&fleet[at], &[(Gauge::TtftMean, seconds), (Gauge::Running, 0.0)]);
    }
    for _ in 0..9 {
        fleet[2].live.measured.failed(view(0).now);
    }
    let scorer = Usage::new(weights, AnswerNeeds::default());
    let [base, slow, failing] = [0, 1, 2].map(|at| number(&scorer, &fleet[at]).value);
    assert!((slow / base - 2_f64.powf(0.4)).abs() < 1e-6 && (failing / base - 10_f64.powf(0.4)).abs() < 1e-6);
}

#[test]
fn a_full_endpoint_does_not_make_the_costs_of_the_others_look_alike() {
    let of = |(endpoint, cost): (&Arc<Endpoint>, f64)| {
        let spec = EndpointSpec { cost, ..endpoint.spec.clone() };
        Arc::new(Endpoint::new(endpoint.id, spec, Arc::clone(&endpoint.live)))
    };
    let fleet: Vec<_> = fleet(5).iter().zip([5.0, 1.0, 5.0, 1.0, 1000.0]).map(of).collect();
    let _full = [open(&fleet[0], 20), open(&fleet[3], 30)];
    let scorer = Spill { levels: Levels::Cost, limit: 16.0, kv_limit: 0.9 };
    let mut given = Scores::new();
    scorer.scores(&view(1), Candidates::all(&fleet).unwrap(), &mut given, &mut Trace::off());
    assert_eq!(given.iter().map(|score| score.value).collect::<Vec<_>>(), [3.0, 0.0, 1.0, 3.0, 2.0]);

    // `cost:3,least-kv-cache`, where the cheap one has a little more of its cache in use.
    for (at, usage) in [(0, 0.0), (1, 0.3), (2, 0.2)] {
        read(&fleet[at], &[(Gauge::KvUsage, usage), (Gauge::KvCapacity, 1e9), (Gauge::Running, 0.0)]);
    }
    let part = |scorer: Arc<dyn Scorer>, weight| Part { scorer, weight, scale: None };
    let kv = KvCache { assumed_capacity: 1e9 };
    let parts = [part(Arc::new(scorer), 3.0), part(Arc::new(kv), 1.0)];
    let strategy = Scored::blended(parts, Picker::Best);
    let choice = strategy.route(&view(1), Candidates::all(&fleet[..3]).unwrap(), &mut Trace::off());
    assert!(matches!(choice, Decision::Send(chosen) if chosen.id == fleet[1].id));
}

#[test]
fn the_first_tokens_that_we_saw_stand_in_for_the_engines_word() {
    let (fleet, scorer) = (fleet(3), FirstToken::new(AnswerNeeds::default()));
    read(&fleet[0], &[(Gauge::TtftP95, 0.25), (Gauge::Running, 3.0)]);
    assert_near(number(&scorer, &fleet[0]), 1.0);
    fleet[1].live.measured.first_token(Duration::from_millis(100), view(0).now);
    assert!((0.064..=0.128).contains(&number(&scorer, &fleet[1]).value));
    assert_eq!(number(&scorer, &fleet[2]), Score::UNKNOWN);
}

#[test]
fn without_any_number_the_open_requests_decide_and_a_stale_one_is_none() {
    let fleet = fleet(3);
    fleet[0].live.publish(&Gauges::default().with(Gauge::KvUsage, 0.0), fleet[0].live.mark(), Moment::from_micros(1));
    let _open = [open(&fleet[0], 2), open(&fleet[1], 2)];
    for seed in 0..50 {
        let all = Candidates::all(&fleet).unwrap();
        assert_eq!(Picker::Best.pick(&view(seed), all, &KvCache { assumed_capacity: 1e5 }).id, fleet[2].id);
    }
}

#[test]
fn what_is_nearly_the_best_counts_as_equal_and_the_open_requests_decide() {
    let fleet = fleet(3);
    for (at, usage) in [(0, 0.50), (1, 0.54), (2, 0.60)] {
        read(&fleet[at], &[(Gauge::KvUsage, usage), (Gauge::Running, 0.0)]);
    }
    let clock = Clock::manual(view(0).now).0;
    let _busy = Ticket::open(Arc::clone(&fleet[0]), Work::default(), &clock);
    let pick =
        |picker: Picker| picker.pick(&view(1), Candidates::all(&fleet).unwrap(), &KvCache { assumed_capacity: 1e9 }).id;
    assert_eq!((pick(Picker::Best), pick(Picker::BestWithin(10))), (fleet[0].id, fleet[1].id));
}
