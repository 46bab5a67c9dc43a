//! One HTTP/1.1 connection that is kept alive, and one request over it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::bodies::Body;
use super::options::LoadOptions;
use super::report::{End, Recorder, Sample};
use super::sse::SseScan;

/// Carried from an answer to the conversation's next request.
const SESSION: &str = "x-session-id";

/// Where requests go, and what they have in common.
#[derive(Debug)]
pub(super) struct Target {
    authority: String,
    path: Uri,
    headers: HeaderMap,
}

impl Target {
    pub(super) fn new(options: &LoadOptions) -> anyhow::Result<Self> {
        let url: Uri = options.url.parse().with_context(|| format!("not a URL: '{}'", options.url))?;
        ensure!(url.scheme_str() == Some("http"), "only http:// URLs are called, not '{url}'");
        let authority = url.authority().context("URL without a host")?;
        let host = HeaderValue::from_str(authority.as_str()).context("URL host")?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &options.headers {
            headers.append(name, value.clone());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            path: Uri::from_static(options.api.path()),
            headers,
        })
    }

    fn request(&self, body: &Body, session: Option<HeaderValue>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.bytes.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(session) = session {
            request.headers_mut().insert(SESSION, session);
        }
        request
    }

    async fn connect(&self) -> Result<Connection, Fail> {
        let stream =
            TcpStream::connect(&self.authority).await.map_err(|error| Fail(format!("connect: {}", error.kind())))?;
        // A failure only means that the peer has left already; the request will tell.
        stream.set_nodelay(true).ok();
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Fail(format!("connect: {error}")))?;
        let driver = tokio::task::spawn_local(async move {
            // Its errors reach the request that they break.
            driver.await.ok();
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// An open connection; dropping it closes the socket at once.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

struct Fail(String);

/// One request: what is sent, when it counts from, and when it is dropped.
pub(super) struct Shot<'a> {
    pub(super) target: &'a Target,
    pub(super) body: &'a Body,
    /// What the conversation was told to send.
    pub(super) session: Option<&'a RefCell<Option<HeaderValue>>>,
    pub(super) since: Instant,
    pub(super) timeout: Duration,
    /// Drops the connection after so long.
    pub(super) abort_after: Option<Duration>,
}

#[derive(Default)]
struct Seen {
    status: Option<u16>,
    endpoint: Option<String>,
    ttft: Option<Duration>,
    moved: bool,
}

impl Shot<'_> {
    /// Sends the request over `connection` (a new one if there is none) and leaves a usable connection there or none.
    pub(super) async fn fire(self, connection: &mut Option<Connection>, recorder: &Rc<RefCell<Recorder>>) -> End {
        let mut seen = Seen::default();
        let limit = self.abort_after.unwrap_or(self.timeout);
        let outcome = tokio::time::timeout(limit, self.exchange(connection, &mut seen, recorder)).await;
        let end = match outcome {
            Ok(Ok(())) => End::Ok,
            Ok(Err(Fail(reason))) => End::Failed(reason),
            Err(_) if self.abort_after.is_some() => End::Aborted,
            Err(_) => End::Failed("timeout".to_owned()),
        };
        let status_is_final = end != End::Ok && matches!(&end, End::Failed(reason) if reason.starts_with("status "));
        if end != End::Ok && !status_is_final {
            *connection = None;
        }
        let sample = Sample {
            end: end.clone(),
            status: seen.status,
            endpoint: seen.endpoint,
            latency: self.since.elapsed(),
            ttft: seen.ttft,
            moved: seen.moved,
        };
        recorder.borrow_mut().add(sample);
        end
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        seen: &mut Seen,
        recorder: &Rc<RefCell<Recorder>>,
    ) -> Result<(), Fail> {
        let answer = self.send(connection).await?;
        let (head, body) = answer.into_parts();
        seen.status = Some(head.status.as_u16());
        if let (Some(session), Some(issued)) = (self.session, head.headers.get(SESSION)) {
            let moved = session.borrow().as_ref().is_some_and(|last| last != issued);
            seen.moved = moved;
            *session.borrow_mut() = Some(issued.clone());
        }
        let by = head.headers.get("target-pod-ip").or_else(|| head.headers.get("x-engine"));
        seen.endpoint = by.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_stream =
            head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let fault = self.read(body, is_stream, seen, recorder).await?;
        if !head.status.is_success() {
            return Err(Fail(format!("status {}", head.status.as_u16())));
        }
        if self.body.streamed && !is_stream {
            return Err(Fail("asked for a stream, got a plain answer".to_owned()));
        }
        fault.map_or(Ok(()), |fault| Err(Fail(fault.to_owned())))
    }

    async fn send(&self, slot: &mut Option<Connection>) -> Result<Response<Incoming>, Fail> {
        let mut request = self.target.request(self.body, self.session.and_then(|session| session.borrow().clone()));
        if let Some(connection) = slot.as_mut() {
            // A connection that the server closed while it was idle gives the request back unsent; that is no failure.
            let usable = connection.sender.ready().await.is_ok();
            if usable {
                match connection.sender.try_send_request(request).await {
                    Ok(answer) => return Ok(answer),
                    Err(mut refused) => match refused.take_message() {
                        Some(unsent) => request = unsent,
                        None => {
                            return Err(Fail(format!("before headers: {}", refused.into_error())));
                        }
                    },
                }
            }
        }
        let connection = slot.insert(self.target.connect().await?);
        connection.sender.send_request(request).await.map_err(|error| Fail(format!("before headers: {error}")))
    }

    async fn read(
        &self,
        mut body: Incoming,
        is_stream: bool,
        seen: &mut Seen,
        recorder: &Rc<RefCell<Recorder>>,
    ) -> Result<Option<&'static str>, Fail> {
        let mut scan = is_stream.then(SseScan::new);
        let mut last = self.since;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Fail(format!("in the answer: {error}")))?;
            let (Some(scan), Some(piece)) = (&mut scan, frame.data_ref()) else {
                continue;
            };
            let events = scan.feed(piece);
            if events == 0 {
                continue;
            }
            let now = Instant::now();
            if seen.ttft.is_none() {
                seen.ttft = Some(now - self.since);
            } else {
                recorder.borrow_mut().gap(now - last, events);
            }
            last = now;
        }
        Ok(scan.and_then(|scan| scan.fault()))
    }
}
