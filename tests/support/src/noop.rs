//! An `ext_proc` service that lets everything pass: what Envoy and gRPC cost by themselves, the floor of benchmarks.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use anyhow::Context as _;
use clap::Args;
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Told;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, ProcessingRequest,
    ProcessingResponse, StreamedBodyResponse, TrailersResponse, body_mutation::Mutation,
};
use futures_util::Stream;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// A whole BUFFERED body is one gRPC message; tonic's default of 4 MiB would refuse it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// h2 drops the whole connection after 20 resets that it has not yet seen to; Envoy resets every stream.
const PENDING_RESETS_MAX: usize = 100_000;

/// Where the service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `ip:port`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp),
        }
    }
}

/// A no-op external processor: answers CONTINUE to everything.
///
/// It speaks every body mode; a duplex body is echoed. Prints its address as its first line. Ends on Ctrl-C.
#[derive(Debug, Args)]
pub struct NoopArgs {
    /// ip:port or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: Listen,
    /// Sets target-pod and x-gateway-destination-endpoint to this address in the header answer.
    #[arg(long, value_name = "IP:PORT")]
    target: Option<SocketAddr>,
}

impl NoopArgs {
    /// Serves until Ctrl-C.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let bound = Noop::bind(&self.listen, self.target).await?;
        writeln!(out, "{}", bound.address())?;
        out.flush()?;
        tokio::select! {
            served = bound.serve() => served,
            stopped = tokio::signal::ctrl_c() => stopped.context("waiting for Ctrl-C"),
        }
    }
}

/// The service; one for all streams.
#[derive(Debug, Clone)]
pub struct Noop {
    target: Option<HeaderMutation>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A service with its listener, ready to [`Bound::serve`].
#[derive(Debug)]
pub struct Bound {
    service: Noop,
    listener: Listener,
    address: String,
}

impl Noop {
    /// Opens the listener; a stale socket file is replaced.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn bind(listen: &Listen, target: Option<SocketAddr>) -> anyhow::Result<Bound> {
        let service = Self { target: target.map(|address| target_headers(&address.to_string())) };
        let (listener, address) = match listen {
            Listen::Tcp(address) => {
                let listener =
                    TcpListener::bind(address).await.with_context(|| format!("cannot listen on '{address}'"))?;
                let address = listener.local_addr().context("own address")?.to_string();
                (Listener::Tcp(listener), address)
            }
            Listen::Unix(path) => (Listener::Unix(bind_unix(path)?), format!("unix:{}", path.display())),
        };
        Ok(Bound { service, listener, address })
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path).with_context(|| format!("cannot replace '{}'", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on '{}'", path.display()))
}

impl Bound {
    /// `ip:port` or `unix:PATH`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// The listener breaks.
    pub async fn serve(self) -> anyhow::Result<()> {
        let service = ExternalProcessorServer::new(self.service).max_decoding_message_size(MESSAGE_BYTES_MAX);
        // An Envoy that checks the health of its `ext_proc` cluster asks for the empty name, which is SERVING from the start.
        let (_reporter, health) = tonic_health::server::health_reporter();
        let router = Server::builder()
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .add_service(health)
            .add_service(service);
        match self.listener {
            // The builder's own tcp_nodelay does nothing for a listener from outside.
            Listener::Tcp(listener) => {
                router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await
            }
            Listener::Unix(listener) => router.serve_with_incoming(UnixListenerStream::new(listener)).await,
        }
        .context("ext_proc server")
    }
}

fn target_headers(address: &str) -> HeaderMutation {
    let set = ["x-gateway-destination-endpoint", "target-pod"].map(|key| HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            raw_value: address.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    });
    HeaderMutation { set_headers: set.into(), remove_headers: Vec::new() }
}

#[tonic::async_trait]
impl ExternalProcessor for Noop {
    type ProcessStream = Session;

    async fn process(&self, request: Request<Streaming<ProcessingRequest>>) -> Result<Response<Session>, Status> {
        let session = Session {
            inbound: request.into_inner(),
            target: self.target.clone(),
            request_duplex: false,
            response_duplex: false,
        };
        Ok(Response::new(session))
    }
}

/// One HTTP exchange: polling the answers polls the messages, without a task or a channel in between.
#[derive(Debug)]
pub struct Session {
    inbound: Streaming<ProcessingRequest>,
    target: Option<HeaderMutation>,
    request_duplex: bool,
    response_duplex: bool,
}

impl Stream for Session {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            // Envoy ends every stream with a reset, so an error is the normal end.
            let Some(Ok(message)) = ready!(Pin::new(&mut self.inbound).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if let Some(told) = self.answer(message) {
                return Poll::Ready(Some(Ok(ProcessingResponse {
                    response: Some(told),
                    ..ProcessingResponse::default()
                })));
            }
        }
    }
}

impl Session {
    fn answer(&mut self, message: ProcessingRequest) -> Option<Told> {
        if let Some(config) = message.protocol_config {
            let duplex = BodySendMode::FullDuplexStreamed as i32;
            self.request_duplex = config.request_body_mode == duplex;
            self.response_duplex = config.response_body_mode == duplex;
        }
        Some(match message.request? {
            Asked::RequestHeaders(_) => {
                let common = CommonResponse { header_mutation: self.target.take(), ..CommonResponse::default() };
                Told::RequestHeaders(HeadersResponse { response: Some(common) })
            }
            Asked::ResponseHeaders(_) => Told::ResponseHeaders(HeadersResponse::default()),
            Asked::RequestBody(body) => Told::RequestBody(body_answer(body, self.request_duplex)),
            Asked::ResponseBody(body) => Told::ResponseBody(body_answer(body, self.response_duplex)),
            Asked::RequestTrailers(_) => Told::RequestTrailers(TrailersResponse::default()),
            Asked::ResponseTrailers(_) => Told::ResponseTrailers(TrailersResponse::default()),
        })
    }
}

/// In duplex mode what is not sent back is lost; in every other mode a streamed answer is an error.
fn body_answer(body: HttpBody, duplex: bool) -> BodyResponse {
    if !duplex {
        return BodyResponse::default();
    }
    let echo =
        StreamedBodyResponse { body: body.body, end_of_stream: body.end_of_stream, ..StreamedBodyResponse::default() };
    let mutation = BodyMutation { mutation: Some(Mutation::StreamedResponse(echo)) };
    BodyResponse { response: Some(CommonResponse { body_mutation: Some(mutation), ..CommonResponse::default() }) }
}
