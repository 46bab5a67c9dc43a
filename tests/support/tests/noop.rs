//! The no-op service through a gRPC client, in each body mode.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Told;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration,
};
use fairlead_lab::noop::{Listen, Noop};
use tokio_util::task::TaskTracker;

fn exchange(mode: BodySendMode) -> Vec<ProcessingRequest> {
    let body = |bytes: &[u8], end_of_stream| HttpBody { body: bytes.to_vec(), end_of_stream, ..HttpBody::default() };
    let config = ProtocolConfiguration {
        request_body_mode: mode.into(),
        response_body_mode: mode.into(),
        ..ProtocolConfiguration::default()
    };
    let mut messages: Vec<ProcessingRequest> = [
        Asked::RequestHeaders(HttpHeaders::default()),
        Asked::RequestBody(body(b"ask", false)),
        Asked::RequestBody(body(b"", true)),
        Asked::ResponseHeaders(HttpHeaders::default()),
        Asked::ResponseBody(body(b"told", true)),
        Asked::ResponseTrailers(HttpTrailers::default()),
    ]
    .map(|asked| ProcessingRequest { request: Some(asked), ..ProcessingRequest::default() })
    .into();
    messages.first_mut().unwrap().protocol_config = Some(config);
    messages
}

async fn answers(address: &str, mode: BodySendMode) -> Vec<Told> {
    let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
    let mut client = ExternalProcessorClient::new(channel);
    let mut stream = client.process(tokio_stream::iter(exchange(mode))).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(answer) = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.unwrap().unwrap() {
        told.push(answer.response.unwrap());
    }
    told
}

fn echoed(told: &Told) -> Option<&[u8]> {
    let (Told::RequestBody(body) | Told::ResponseBody(body)) = told else {
        return None;
    };
    match body.response.as_ref()?.body_mutation.as_ref()?.mutation.as_ref()? {
        Mutation::StreamedResponse(echo) => Some(&echo.body),
        other => panic!("a plain mutation: {other:?}"),
    }
}

#[tokio::test]
async fn every_mode_gets_one_answer_a_message_and_only_duplex_is_echoed() {
    let target = "127.0.0.1:9".parse().unwrap();
    let bound = Noop::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), Some(target)).await.unwrap();
    let address = bound.address().to_owned();
    TaskTracker::new().spawn(bound.serve());
    for mode in [
        BodySendMode::Buffered,
        BodySendMode::BufferedPartial,
        BodySendMode::Streamed,
        BodySendMode::FullDuplexStreamed,
    ] {
        let told = answers(&address, mode).await;
        assert_eq!(told.len(), 6, "{mode:?}");
        let Some(Told::RequestHeaders(headers)) = told.first() else { panic!("first answer: {told:?}") };
        let set = &headers.response.as_ref().unwrap().header_mutation.as_ref().unwrap().set_headers;
        assert_eq!(set.len(), 2);
        assert!(set.iter().all(|option| option.header.as_ref().unwrap().raw_value == b"127.0.0.1:9"));
        let echoes: Vec<&[u8]> = told.iter().filter_map(echoed).collect();
        let expected: &[&[u8]] = if mode == BodySendMode::FullDuplexStreamed { &[b"ask", b"", b"told"] } else { &[] };
        assert_eq!(echoes, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let path = std::env::temp_dir().join(format!("fairlead-noop-{}.sock", std::process::id()));
    for _ in 0..2 {
        let bound = Noop::bind(&Listen::Unix(path.clone()), None).await.unwrap();
        assert_eq!(bound.address(), format!("unix:{}", path.display()));
    }
    std::fs::remove_file(path).unwrap();
}
