//! Fetching one metrics page: plain HTTP/1 over a kept connection, within a time and a size.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Body as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time;

/// A connection that was not used for so long is closed. Above the longest back-off at the default pace.
const IDLE: Duration = Duration::from_secs(30);

/// Memory of a connection for what arrives, kept while it is idle. Without a limit it grows to the size of the page, which
/// for a thousand endpoints is 50 MB; a smaller one costs no CPU that can be measured. Response headers must fit in it.
const READ_BYTES_MAX: usize = 16 << 10;
/// Memory set aside before a page has come, whatever length it announces.
const FIRST_BYTES_MAX: usize = 64 << 10;
/// Memory of a page that is kept for the next one.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no whole page within {0:?}")]
    TimedOut(Duration),
    #[error("the page has more than {0} bytes")]
    TooLarge(usize),
    #[error("the page has none of the engine's metrics, or nonsense in them")]
    NothingKnown,
    #[error("the answer has status {0}")]
    Status(StatusCode),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("no answer: {0}")]
    Answer(#[from] legacy::Error),
    #[error("the page broke off: {0}")]
    Body(#[from] hyper::Error),
}

/// Fetches pages. Cheap to share by reference; keeps one idle connection per endpoint.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// Memory of former pages; at most one for each read that is under way at once.
    buffers: Mutex<Vec<Vec<u8>>>,
    timeout: Duration,
    page_bytes_max: usize,
}

impl Fetcher {
    /// `timeout` is for all of one read, connecting included.
    pub(super) fn new(timeout: Duration, page_bytes_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(READ_BYTES_MAX)
            .build(connector);
        Self { client, buffers: Mutex::default(), timeout, page_bytes_max }
    }

    /// Reads the page and gives it to `take`.
    pub(super) async fn page<T>(&self, uri: &Uri, take: impl FnOnce(&[u8]) -> T) -> Result<T, FetchError> {
        let mut page = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let read = time::timeout(self.timeout, self.read(uri.clone(), &mut page)).await;
        let taken = read.unwrap_or(Err(FetchError::TimedOut(self.timeout))).map(|()| take(&page));
        if page.capacity() <= KEPT_BYTES_MAX {
            page.clear();
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(page);
        }
        taken
    }

    async fn read(&self, uri: Uri, page: &mut Vec<u8>) -> Result<(), FetchError> {
        let request = Request::get(uri).header(header::ACCEPT, "text/plain;version=0.0.4").body(Empty::new())?;
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = response.into_body();
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.page_bytes_max {
            return Err(FetchError::TooLarge(self.page_bytes_max));
        }
        page.reserve(announced.min(FIRST_BYTES_MAX));
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if page.len() + data.len() > self.page_bytes_max {
                    return Err(FetchError::TooLarge(self.page_bytes_max));
                }
                page.extend_from_slice(&data);
            }
        }
        Ok(())
    }
}

/// The address of a page.
pub(super) fn uri(address: SocketAddr, path: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path).build()
}
