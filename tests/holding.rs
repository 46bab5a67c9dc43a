//! A gateway whose API cannot set response trailers: Fairlead notices that its streams are not held, and asks.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use fairlead_lab::load::{self, LoadOptions};

use common_life::{CONFIG, QUICKSTART, nothing_failed, open, row, settle, soon, stack, traffic};

/// Teaches Fairlead how this gateway behaves, then streams one long answer: how many are in flight after a while?
async fn counted_while_streaming(envoy: &str, expected: u32) {
    let stack = stack(envoy, CONFIG, 2).await;
    let streams = LoadOptions { requests: Some(150), stream_share: 1.0, ..traffic(&stack) };
    nothing_failed("streams that are not held", &load::run(streams).await.unwrap());
    settle(&stack).await;
    let mut running = open(&stack, 20_000, true).await;
    for _ in 0..20 {
        assert!(running.piece().await.is_some());
    }
    soon("the count to be what it stays", async || {
        row(&stack, 0).await.in_flight + row(&stack, 1).await.in_flight == expected
    })
    .await;
    for _ in 0..20 {
        assert!(running.piece().await.is_some());
    }
    assert_eq!(row(&stack, 0).await.in_flight + row(&stack, 1).await.in_flight, expected);
    drop(running);
    settle(&stack).await;
    stack.stop().await.unwrap();
}

/// A filter that shows the request headers and nothing else, so that Envoy is done with us once they are answered.
fn silent() -> String {
    let mut silent = QUICKSTART.to_owned();
    for (shown, hidden) in [
        ("request_body_mode: BUFFERED", "request_body_mode: NONE"),
        ("response_header_mode: SEND", "response_header_mode: SKIP"),
        ("response_trailer_mode: SEND", "response_trailer_mode: SKIP"),
    ] {
        assert!(silent.contains(shown));
        silent = silent.replace(shown, hidden);
    }
    silent
}

#[tokio::test]
async fn streams_are_held_by_override_where_the_filter_does_not_say_so() {
    Box::pin(counted_while_streaming(&silent(), 1)).await;
}

#[tokio::test]
async fn without_leave_to_override_the_running_answer_goes_uncounted() {
    let strict = silent().replace("allow_mode_override: true", "allow_mode_override: false");
    assert_ne!(strict, silent());
    Box::pin(counted_while_streaming(&strict, 0)).await;
}
