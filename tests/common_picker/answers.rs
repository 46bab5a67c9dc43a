//! Cases of the response side and of a stream's life.

use std::time::Duration;

use envoy_types::pb::envoy::service::ext_proc::v3::{body_mutation::Mutation, processing_response::Response};
use fairlead_lab::harness::{get, wait_until};
use futures_util::future::try_join_all;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{
    Mode, Talk, header_map, in_mode, request_body, request_headers, response_body, response_headers, response_trailers,
};
use super::run::{Asked, PIECE_BYTES_MAX, Picked, Picker, chat, ensure, pick};

type Done = Result<(), String>;

async fn chat_sent(picker: &Picker, mode: Mode) -> Result<Picked, String> {
    pick(picker, &Asked::chat(mode)).await?.picked()
}

const STREAM: [(&str, &str); 2] = [(":status", "200"), ("content-type", "text/event-stream")];

/// Shows a piece of the response, and gives what came back of it.
async fn echoed(choice: &mut Picked, mode: Mode, piece: &[u8], is_last: bool) -> Result<Vec<u8>, String> {
    choice.talk.say(response_body(piece, is_last)).await?;
    let mut back = Vec::new();
    loop {
        let Some(Response::ResponseBody(body)) = choice.talk.answer().await?.response else {
            return Err("a response body was answered with something else".to_owned());
        };
        let common = body.response.unwrap_or_default();
        match (mode, common.body_mutation.and_then(|body| body.mutation)) {
            (Mode::Duplex, Some(Mutation::StreamedResponse(part))) => {
                ensure(part.body.len() <= PIECE_BYTES_MAX, || format!("a piece of {} bytes", part.body.len()))?;
                back.extend(part.body);
                if back.len() >= piece.len() {
                    ensure(part.end_of_stream == is_last, || "the end is flagged wrongly".to_owned())?;
                    return Ok(back);
                }
            }
            (Mode::Duplex, other) => return Err(format!("a duplex body is answered with {other:?}")),
            (_, None) => return Ok(piece.to_vec()),
            (_, Some(other)) => return Err(format!("the body is changed: {other:?}")),
        }
    }
}

pub(crate) async fn answers_pass_piece_by_piece_and_unchanged(picker: &Picker) -> Done {
    for mode in [Mode::Streamed, Mode::Duplex] {
        let mut choice = chat_sent(picker, mode).await?;
        choice.talk.ask(response_headers(&STREAM, None, false)).await?;
        let usage = br#"data: {"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
        let large = vec![b'z'; 150_000];
        for piece in
            [&b"data: {\"choices\":[]}\n\n"[..], b"", &large, b"\x1f\x8b\x00\xff", usage, b"\n\ndata: [DONE]\n\n"]
        {
            let back = echoed(&mut choice, mode, piece, false).await?;
            ensure(back == piece, || format!("{mode:?}: {} bytes came back changed", piece.len()))?;
        }
        echoed(&mut choice, mode, b"", true).await?;
    }
    Ok(())
}

pub(crate) async fn response_trailers_and_other_statuses_are_taken(picker: &Picker) -> Done {
    for status in ["200", "404", "500", "503"] {
        let mut choice = chat_sent(picker, Mode::Duplex).await?;
        choice.talk.ask(response_headers(&[(":status", status)], None, false)).await?;
        echoed(&mut choice, Mode::Duplex, b"{}", false).await?;
        let answer = choice.talk.ask(response_trailers()).await?.response;
        ensure(matches!(answer, Some(Response::ResponseTrailers(_))), || format!("{status}: {answer:?}"))?;
    }
    Ok(())
}

pub(crate) async fn whoever_served_is_taken_note_of(picker: &Picker) -> Done {
    let other = picker.endpoints.last().map(ToString::to_string);
    for served in [None, other.as_deref(), Some("192.0.2.77:80"), Some("no address")] {
        let mut choice = chat_sent(picker, Mode::Duplex).await?;
        let answer = choice.talk.ask(response_headers(&[(":status", "200")], served, true)).await?;
        ensure(matches!(answer.response, Some(Response::ResponseHeaders(_))), || format!("{served:?}: {answer:?}"))?;
    }
    Ok(())
}

pub(crate) async fn an_observed_exchange_is_never_answered(picker: &Picker) -> Done {
    let pairs = [(":method", "POST"), (":path", "/v1/chat/completions"), ("content-type", "application/json")];
    let mut first = in_mode(request_headers(header_map(&pairs, true), false), Mode::Streamed);
    first.observability_mode = true;
    let mut talk = Talk::open(&picker.channel, first).await?;
    let rest = [request_body(&chat(10), true), response_headers(&STREAM, None, true)];
    for mut message in rest {
        message.observability_mode = true;
        talk.say(message).await?;
    }
    talk.finish();
    match talk.hear().await? {
        None => Ok(()),
        Some(answer) => Err(format!("{answer:?}")),
    }
}

pub(crate) async fn streams_that_vanish_leave_nothing_behind(picker: &Picker) -> Done {
    for turn in 0..60 {
        let mut choice = chat_sent(picker, Mode::Duplex).await?;
        if turn % 3 > 0 {
            choice.talk.ask(response_headers(&STREAM, None, false)).await?;
        }
        if turn % 3 > 1 {
            echoed(&mut choice, Mode::Duplex, b"data: {}\n\n", false).await?;
        }
    }
    let Some(admin) = &picker.admin else { return Ok(()) };
    let settled = wait_until("nothing in flight", Duration::from_secs(10), || async {
        let endpoints = get(&format!("{admin}/api/endpoints")).await.map(|(_, page)| page).unwrap_or_default();
        let metrics = get(&format!("{admin}/metrics")).await.map(|(_, page)| page).unwrap_or_default();
        metrics.contains("fairlead_streams_open 0\n") && !endpoints.contains("\"in_flight\":1")
    });
    settled.await.map_err(|error| error.to_string())
}

pub(crate) async fn a_thousand_streams_are_open_on_one_connection(picker: &Picker) -> Done {
    let mut open: Vec<Picked> = Vec::with_capacity(1000);
    for _ in 0..10 {
        open.extend(try_join_all((0..100).map(|_| chat_sent(picker, Mode::Duplex))).await?);
    }
    for choice in &mut open {
        choice.talk.ask(response_headers(&[(":status", "200")], None, true)).await?;
    }
    Ok(())
}

pub(crate) async fn health_is_answered_by_every_name_that_is_asked_for(picker: &Picker) -> Done {
    for service in ["", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension", "readiness", "liveness"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(picker.channel.clone()).check(request).await;
        let status = answer.map_err(|status| format!("{service:?}: {status}"))?.into_inner().status();
        ensure(status == ServingStatus::Serving, || format!("{service:?}: {status:?}"))?;
    }
    Ok(())
}
