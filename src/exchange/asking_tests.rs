use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::domain::{Clock, EndpointSpec};
use crate::exchange::{BodyOutlook, Completeness, Core, LocalReply, RequestHead};
use crate::routing::StrategySet;
use crate::state::{Change, Policies, PolicyBook, Registry, SourceId};
use crate::telemetry::Metrics;

use super::*;

/// A request with this body, for a fleet of one endpoint that takes any model.
fn asked(body: &str) -> (Exchange, Step) {
    let mut registry = Registry::new();
    let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], 1)));
    registry.apply([Change::Replace(SourceId(0), vec![spec])]).1.unwrap();
    let strategies = Arc::new(StrategySet::build("least-request").unwrap());
    let metrics = Metrics::new(&crate::routing::names());
    let core = Core::new(&Config::default(), registry.reader(), strategies, metrics, Clock::start());
    let mut exchange = Exchange::new(Arc::new(core));
    let headers = [(":method", &b"POST"[..]), (":path", b"/v1/chat/completions")];
    let head = RequestHead::read(headers.into_iter(), &[]);
    assert!(matches!(exchange.request_head(head, BodyOutlook::Coming), Step::NeedBody));
    assert!(exchange.request_body(body.as_bytes().to_vec()).is_none());
    let step = exchange.request_end(Completeness::Whole);
    (exchange, step)
}

#[test]
fn a_request_is_as_urgent_as_the_objective_that_it_names() {
    let (mut exchange, _) = asked(r#"{"model":"m","messages":[]}"#);
    assert_eq!(exchange.asked.priority, 0);
    let objectives = [("hot".into(), 9)].into();
    let policies = Policies { objectives, ..Policies::default() };
    exchange.core.policies.publish(PolicyBook::new(policies, [].into()));
    for (objective, priority) in [("hot", 9), ("unheard-of", 0)] {
        let headers =
            [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-llm-d-inference-objective", objective)];
        let head = RequestHead::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())), &[]);
        exchange.request_head(head, BodyOutlook::Unseen);
        assert_eq!(exchange.asked.priority, priority);
    }
}

#[test]
fn an_inline_image_weighs_as_an_image_and_not_as_text() {
    let image = "iVBORw0KGgo/".repeat(100_000);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}}]}}"#
    );
    let (exchange, step) = asked(&body);
    assert!(matches!(step, Step::Send));
    assert!((MEDIA_TOKENS..2 * MEDIA_TOKENS).contains(&exchange.asked.work.prompt_tokens));
}

#[test]
fn texts_too_long_to_mean_anything_are_not_kept_when_the_body_is_gone() {
    let limit = KeptHeaders::VALUE_BYTES_MAX;
    for (length, is_kept) in [(limit, true), (limit + 1, false)] {
        let text = "k".repeat(length);
        let body = format!(
            r#"{{"model":"m","messages":[],"user":"{text}","session_id":"{text}","prompt_cache_key":"{text}"}}"#
        );
        let (exchange, step) = asked(&body);
        assert!(matches!(step, Step::Send));
        let Asked { user, session_id, prompt_cache_key, .. } = &exchange.asked;
        for kept in [user, session_id, prompt_cache_key] {
            assert_eq!(kept.is_some(), is_kept, "{length}");
        }
    }
}

#[test]
fn a_model_of_endless_name_does_not_exist_even_where_any_model_is_served() {
    let send = |length: usize| asked(&format!(r#"{{"model":"{}","messages":[]}}"#, "m".repeat(length)));
    assert!(matches!(send(MODEL_BYTES_MAX).1, Step::Send));
    let (exchange, step) = send(MODEL_BYTES_MAX + 1);
    assert!(matches!(step, Step::Answer(LocalReply { status: 404, ref body, .. }) if body.len() < 1000));
    assert!(exchange.asked.model.is_empty());
}

#[test]
fn a_request_for_endless_answers_does_not_weigh_without_end() {
    let output =
        |n: &str| asked(&format!(r#"{{"model":"m","messages":[],"max_tokens":10{n}}}"#)).0.asked.work.output_tokens;
    assert_eq!([output(""), output(r#","n":3"#), output(r#","n":4000000000"#)], [10, 30, 1280]);
}
