//! The HTTP side.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use super::store::Wanted;
use super::{Fault, Shared, lock};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Lines that wait in a watch.
const LINES_MAX: usize = 256;
/// How long a watch lasts that does not say.
const WATCH: Duration = Duration::from_secs(290);

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let connections = TaskTracker::new();
    while let Ok((connection, _)) = listener.accept().await {
        connection.set_nodelay(true).ok();
        connections.spawn(connected(connection, Arc::clone(&shared)));
    }
}

async fn connected(connection: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    let answers = service_fn(|request| answer(request, Arc::clone(&shared)));
    let served = http1::Builder::new().serve_connection(TokioIo::new(connection), answers);
    let ended = async {
        if cut.recv().await == Ok(true) {
            // A watch sends half a line first, and then ends the connection itself.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        _ = served => {}
        () = ended => {}
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, io::Error> {
    let (path, text) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let query = parsed(&text);
    let flag = |name: &str| query.get(name).is_some_and(|value| value == "true" || value == "1");
    let watch = flag("watch");
    let verb = if watch { "WATCH" } else { "LIST" };
    lock(&shared.requests).push(format!("{verb} {path}?{text}"));
    let fault = *lock(&shared.fault);
    match fault {
        Fault::Refuse => return Ok(status(503, "ServiceUnavailable", "not ready")),
        Fault::RefusePods if path.ends_with("/pods") => return Ok(status(503, "ServiceUnavailable", "not ready")),
        Fault::Reset => return Err(io::Error::other("reset")),
        Fault::GoneWatch if watch => return Ok(status(410, "Expired", "too old resource version")),
        Fault::ForbidWatch if watch => return Ok(status(403, "Forbidden", "not for you")),
        Fault::ForbidList if !watch => return Ok(status(403, "Forbidden", "not for you")),
        Fault::HangList if !watch => std::future::pending().await,
        Fault::HangWatch if watch => std::future::pending().await,
        _ => {}
    }
    let known = shared.store().at(&path);
    let Some((plural, namespace)) = known else {
        return Ok(status(404, "NotFound", "the server could not find the requested resource"));
    };
    let (labels, fields) = (query.get("labelSelector").cloned(), query.get("fieldSelector").cloned());
    let wanted = Wanted { plural, namespace, labels, fields };
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    if watch {
        let seconds = number("timeoutSeconds").map_or(WATCH, Duration::from_secs);
        let from = number("resourceVersion").unwrap_or(0);
        return Ok(follow(shared, wanted, from, seconds, fault == Fault::SilentWatch));
    }
    let from = number("continue").unwrap_or(0) as usize;
    let limit = number("limit").filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
    Ok(list(&shared, &wanted, from, limit))
}

fn list(shared: &Shared, wanted: &Wanted, from: usize, limit: usize) -> Response<Body> {
    let store = shared.store();
    let (page, next) = store.page(wanted, from, limit);
    let mut metadata = json!({ "resourceVersion": store.version().to_string() });
    if let (Some(next), Some(metadata)) = (next, metadata.as_object_mut()) {
        metadata.insert("continue".to_owned(), json!(next.to_string()));
    }
    let items: Vec<&Value> = page.iter().map(|object| &**object).collect();
    json_answer(200, &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }))
}

fn follow(shared: Arc<Shared>, wanted: Wanted, from: u64, length: Duration, silent: bool) -> Response<Body> {
    let (lines, body) = mpsc::channel::<Result<Frame<Bytes>, io::Error>>(LINES_MAX);
    TaskTracker::new().spawn(async move {
        let end = Instant::now() + length;
        let mut follower = Follower { shared, wanted, lines, seen: from };
        if silent {
            follower.lines.closed().await;
        } else {
            follower.run(end).await;
        }
    });
    let body = StreamBody::new(ReceiverStream::new(body)).boxed_unsync();
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

struct Follower {
    shared: Arc<Shared>,
    wanted: Wanted,
    lines: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
    seen: u64,
}

impl Follower {
    async fn run(&mut self, end: Instant) {
        let (mut version, mut cut, mut mark) =
            (self.shared.version.subscribe(), self.shared.cut.subscribe(), self.shared.mark.subscribe());
        if !self.shared.store().remembers(self.seen) {
            let error = status_object(410, "Expired", &format!("too old resource version: {}", self.seen));
            self.say("ERROR", &error).await;
            return;
        }
        loop {
            version.mark_unchanged();
            let (happened, newest) = {
                let store = self.shared.store();
                (store.since(self.seen, &self.wanted), store.version())
            };
            for (kind, object) in happened {
                if !self.say(kind, &object).await {
                    return;
                }
            }
            self.seen = newest;
            tokio::select! {
                _ = version.changed() => {}
                _ = mark.recv() => {
                    let metadata = json!({ "resourceVersion": newest.to_string() });
                    self.say("BOOKMARK", &json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata })).await;
                }
                mid_line = cut.recv() => {
                    if mid_line == Ok(true) {
                        self.lines.send(Ok(Frame::data(Bytes::from_static(b"{\"type\":\"ADDED\",\"obj")))).await.ok();
                        // Gives the half line the time to leave.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    self.lines.send(Err(io::Error::other("cut"))).await.ok();
                    return;
                }
                () = self.lines.closed() => return,
                () = sleep_until(end) => return,
            }
        }
    }

    async fn say(&self, kind: &str, object: &Value) -> bool {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        self.lines.send(Ok(Frame::data(Bytes::from(line)))).await.is_ok()
    }
}

fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code })
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    json_answer(code, &status_object(code, reason, message))
}

fn json_answer(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

/// The query, decoded.
fn parsed(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            let value = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(value.unwrap_or(b'?'));
        } else {
            bytes.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
