//! One question to an engine or a service beside it: plain HTTP/1 over kept connections. The time limit is the caller's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A connection that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept to one address.
const IDLE_MAX: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not a 200.
    #[error("the answer has status {0}")]
    Status(StatusCode),
    /// Longer than is taken.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// No address that can be asked.
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    /// Nobody answered.
    #[error("no answer: {0}")]
    Answer(#[from] legacy::Error),
    /// It broke off.
    #[error("the answer broke off: {0}")]
    Body(#[from] hyper::Error),
}

/// Asks. Cheap to share by reference.
#[derive(Debug)]
pub struct Asker {
    client: Client<HttpConnector, Full<Bytes>>,
    answer_bytes_max: usize,
}

impl Asker {
    /// Takes answers of at most so many bytes.
    pub fn new(answer_bytes_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self { client, answer_bytes_max }
    }

    /// What is at a path of an engine.
    ///
    /// # Errors
    /// If there is no whole answer with status 200.
    pub async fn get(&self, engine: SocketAddr, path: &str) -> Result<Vec<u8>, AskError> {
        self.get_at(uri(engine, path)?).await
    }

    /// What is at an address.
    ///
    /// # Errors
    /// If there is no whole answer with status 200.
    pub async fn get_at(&self, uri: Uri) -> Result<Vec<u8>, AskError> {
        self.ask(Method::GET, uri, Bytes::new()).await
    }

    /// The answer to JSON.
    ///
    /// # Errors
    /// If there is no whole answer with status 200.
    pub async fn post(&self, uri: Uri, body: Bytes) -> Result<Vec<u8>, AskError> {
        self.ask(Method::POST, uri, body).await
    }

    async fn ask(&self, method: Method, uri: Uri, body: Bytes) -> Result<Vec<u8>, AskError> {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Status(response.status()));
        }
        let (mut body, mut answer) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if answer.len() + data.len() > self.answer_bytes_max {
                    return Err(AskError::TooLarge(self.answer_bytes_max));
                }
                answer.extend_from_slice(&data);
            }
        }
        Ok(answer)
    }
}

/// The address of a path at an engine.
///
/// # Errors
/// If the path is none.
pub fn uri(engine: SocketAddr, path: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme("http").authority(engine.to_string()).path_and_query(path).build()
}
