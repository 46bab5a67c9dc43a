//! An ext_proc client that speaks as a gateway does, to whatever picker listens at an address.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest message that is taken, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How the gateway says that it shows bodies, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    None,
    Buffered,
    Partial,
    Streamed,
    Duplex,
}

pub(crate) const MODES: [Mode; 5] = [Mode::None, Mode::Buffered, Mode::Partial, Mode::Streamed, Mode::Duplex];

impl Mode {
    fn wire(self) -> i32 {
        let mode = match self {
            Self::None => BodySendMode::None,
            Self::Buffered => BodySendMode::Buffered,
            Self::Partial => BodySendMode::BufferedPartial,
            Self::Streamed => BodySendMode::Streamed,
            Self::Duplex => BodySendMode::FullDuplexStreamed,
        };
        mode.into()
    }
}

/// The hint of those among whom to choose.
#[derive(Debug, Clone)]
pub(crate) enum Hint {
    Absent,
    List(Vec<String>),
    Text(String),
}

impl Hint {
    fn metadata(&self) -> Option<Metadata> {
        let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
        let value = match self {
            Self::Absent => return None,
            Self::List(texts) => {
                Value { kind: Some(Kind::ListValue(ListValue { values: texts.iter().map(text).collect() })) }
            }
            Self::Text(words) => text(words),
        };
        Some(metadata("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", value))
    }
}

fn metadata(namespace: &str, key: &str, value: Value) -> Metadata {
    let fields = Struct { fields: [(key.to_owned(), value)].into() };
    Metadata { filter_metadata: [(namespace.to_owned(), fields)].into(), ..Metadata::default() }
}

/// Header values are in `raw_value`, as Envoy has them, or in `value`.
pub(crate) fn header_map(pairs: &[(&str, &str)], is_raw: bool) -> HeaderMap {
    let header = |(key, text): &(&str, &str)| {
        let (value, raw_value) =
            if is_raw { (String::new(), text.as_bytes().to_vec()) } else { ((*text).to_owned(), Vec::new()) };
        HeaderValue { key: (*key).to_owned(), value, raw_value }
    };
    HeaderMap { headers: pairs.iter().map(header).collect() }
}

pub(crate) fn request_headers(map: HeaderMap, end_of_stream: bool) -> ProcessingRequest {
    message(Request::RequestHeaders(HttpHeaders { headers: Some(map), end_of_stream, ..HttpHeaders::default() }))
}

pub(crate) fn request_body(body: &[u8], end_of_stream: bool) -> ProcessingRequest {
    message(Request::RequestBody(HttpBody { body: body.to_vec(), end_of_stream, ..HttpBody::default() }))
}

pub(crate) fn request_trailers() -> ProcessingRequest {
    message(Request::RequestTrailers(HttpTrailers::default()))
}

pub(crate) fn response_headers(pairs: &[(&str, &str)], served: Option<&str>, end_of_stream: bool) -> ProcessingRequest {
    let headers = Some(header_map(pairs, true));
    let mut sent = message(Request::ResponseHeaders(HttpHeaders { headers, end_of_stream, ..HttpHeaders::default() }));
    sent.metadata_context = served.map(|served| {
        let value = Value { kind: Some(Kind::StringValue(served.to_owned())) };
        metadata("envoy.lb", "x-gateway-destination-endpoint-served", value)
    });
    sent
}

pub(crate) fn response_body(body: &[u8], end_of_stream: bool) -> ProcessingRequest {
    message(Request::ResponseBody(HttpBody { body: body.to_vec(), end_of_stream, ..HttpBody::default() }))
}

pub(crate) fn response_trailers() -> ProcessingRequest {
    message(Request::ResponseTrailers(HttpTrailers::default()))
}

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

/// Says how bodies are shown; on the first message of a stream.
pub(crate) fn in_mode(mut first: ProcessingRequest, mode: Mode) -> ProcessingRequest {
    let (request_body_mode, response_body_mode) = (mode.wire(), mode.wire());
    first.protocol_config =
        Some(ProtocolConfiguration { request_body_mode, response_body_mode, ..ProtocolConfiguration::default() });
    first
}

pub(crate) fn hinted(mut sent: ProcessingRequest, hint: &Hint) -> ProcessingRequest {
    sent.metadata_context = hint.metadata();
    sent
}

/// One ext_proc stream.
#[derive(Debug)]
pub(crate) struct Talk {
    /// None once we have no more to say.
    sender: Option<mpsc::Sender<ProcessingRequest>>,
    answers: Streaming<ProcessingResponse>,
}

impl Talk {
    /// Opens a stream with its first message.
    pub(crate) async fn open(channel: &Channel, first: ProcessingRequest) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(first).await.map_err(|error| error.to_string())?;
        let mut client = ExternalProcessorClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answers = client.process(ReceiverStream::new(receiver)).await.map_err(|status| status.to_string())?;
        Ok(Self { sender: Some(sender), answers: answers.into_inner() })
    }

    pub(crate) async fn say(&self, sent: ProcessingRequest) -> Result<(), String> {
        let sender = self.sender.as_ref().ok_or("nothing may follow the end")?;
        sender.send(sent).await.map_err(|_| "the picker ended the stream".to_owned())
    }

    /// Says all of these, while somebody else listens; then never ends.
    pub(crate) fn write_all(&self, messages: Vec<ProcessingRequest>) -> impl Future<Output = ()> + use<> {
        let sender = self.sender.clone();
        async move {
            for message in messages {
                // One that is refused early hears no more.
                if let Some(sender) = &sender {
                    sender.send(message).await.ok();
                }
            }
            std::future::pending::<()>().await;
        }
    }

    /// Ends our side.
    pub(crate) fn finish(&mut self) {
        self.sender = None;
    }

    /// The next answer; `None` when the picker has ended the stream well.
    pub(crate) async fn hear(&mut self) -> Result<Option<ProcessingResponse>, String> {
        let heard = tokio::time::timeout(ANSWER, self.answers.message()).await;
        heard
            .map_err(|_| format!("no answer within {ANSWER:?}"))?
            .map_err(|status| format!("the stream broke: {status}"))
    }

    /// The next answer, which has to come.
    pub(crate) async fn answer(&mut self) -> Result<ProcessingResponse, String> {
        self.hear().await?.ok_or_else(|| "the picker ended the stream instead of answering".to_owned())
    }

    pub(crate) async fn ask(&mut self, sent: ProcessingRequest) -> Result<ProcessingResponse, String> {
        self.say(sent).await?;
        self.answer().await
    }
}

/// Connects to `http://ip:port`, or over TLS to `https://ip:port`, whatever certificate is shown.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Channel> {
    let plain = url.replacen("https://", "http://", 1);
    let endpoint = Endpoint::from_shared(plain.clone())?.connect_timeout(ANSWER);
    if plain == url {
        return Ok(endpoint.connect().await?);
    }
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = plain.trim_start_matches("http://").to_owned();
    let connect = move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("fairlead").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    };
    Ok(endpoint.connect_with_connector(tower::service_fn(connect)).await?)
}

/// Takes every certificate, as gateways do with endpoint pickers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
