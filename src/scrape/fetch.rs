//! Fetching one metrics page: plain HTTP/1 over a kept connection, within a time and a size.
//!
//! Nobody is woken by what arrives. A read looks for its answer by itself at moments that all reads share, so that one
//! wake-up serves many of them: waking up costs more than a page does.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use super::answer::{Answer, BadAnswer, Whole};

/// Moments at which answers are looked for are so far apart. Times of requests' ends are known no better than that.
const GLANCE: Duration = Duration::from_millis(2);
/// An answer that takes long is looked for ever more rarely: after this part of the time that it took so far.
const PATIENCE: u32 = 4;

/// Memory for a page at first, whatever length it announces; twice as much each time that it is not enough.
const PAGE_BYTES_MIN: usize = 64 << 10;
/// Memory of a page that is kept for others.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Of so many pages. One is enough while answers come at once.
const KEPT_MAX: usize = 8;

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
    #[error("the path cannot be asked for: {0}")]
    Path(#[from] http::uri::InvalidUri),
    #[error("no connection: {0}")]
    Connection(#[from] io::Error),
    #[error("no answer: {0}")]
    Answer(BadAnswer),
}

/// A page of one server.
#[derive(Debug)]
pub(super) struct PageAddress {
    server: SocketAddr,
    request: Box<[u8]>,
}

impl PageAddress {
    pub(super) fn new(server: SocketAddr, path: &str) -> Result<Self, FetchError> {
        let path = PathAndQuery::try_from(path)?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\naccept: text/plain;version=0.0.4\r\n\r\n");
        Ok(Self { server, request: request.into_bytes().into() })
    }
}

/// The connection to a server, where one is kept.
#[derive(Debug, Default)]
pub(super) struct Line(Option<std::net::TcpStream>);

/// Fetches pages. Cheap to share by reference.
#[derive(Debug)]
pub(super) struct Fetcher {
    /// Memory of former pages.
    buffers: Mutex<Vec<Vec<u8>>>,
    timeout: Duration,
    page_bytes_max: usize,
    /// Where the grid of moments begins.
    start: Instant,
}

impl Fetcher {
    /// `timeout` is for all of one read, connecting included; answers are looked for at moments of a grid from `start` on.
    pub(super) fn new(timeout: Duration, page_bytes_max: usize, start: Instant) -> Self {
        Self { buffers: Mutex::default(), timeout, page_bytes_max, start }
    }

    /// Reads the page and gives it to `take`. The line must be one to the page's server, and is kept if that can be.
    pub(super) async fn page<T>(
        &self,
        page: &PageAddress,
        line: &mut Line,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, FetchError> {
        let deadline = Instant::now() + self.timeout;
        let kept = line.0.take().filter(is_quiet);
        let was_kept = kept.is_some();
        let mut stream = if let Some(stream) = kept { stream } else { self.connect(page.server, deadline).await? };
        let mut read = self.exchange(&stream, &page.request, deadline).await;
        if was_kept && matches!(read, Err(FetchError::Connection(_) | FetchError::Answer(BadAnswer::BrokeOff))) {
            // The server had given the connection up.
            stream = self.connect(page.server, deadline).await?;
            read = self.exchange(&stream, &page.request, deadline).await;
        }
        let (buffer, whole) = read?;
        if whole.stays {
            line.0 = Some(stream);
        }
        let taken = take(buffer.get(whole.body).unwrap_or_default());
        self.keep(buffer);
        Ok(taken)
    }

    async fn connect(&self, server: SocketAddr, deadline: Instant) -> Result<std::net::TcpStream, FetchError> {
        let connecting = time::timeout_at(deadline, TcpStream::connect(server)).await;
        let stream = connecting.map_err(|_| FetchError::TimedOut(self.timeout))??;
        stream.set_nodelay(true)?;
        // It stays one that never blocks, and leaves the runtime's list of those that wake it.
        Ok(stream.into_std()?)
    }

    /// Asks, and waits for the answer.
    async fn exchange(
        &self,
        mut stream: &std::net::TcpStream,
        request: &[u8],
        deadline: Instant,
    ) -> Result<(Vec<u8>, Whole), FetchError> {
        // So few bytes always fit where nothing else is on the way.
        stream.write_all(request)?;
        let (asked, mut answer) = (Instant::now(), Answer::new(self.page_bytes_max));
        let (mut held, mut filled) = (None, 0);
        loop {
            self.wait(asked, deadline).await?;
            let mut buffer = held.take().unwrap_or_else(|| self.buffer());
            if let Some(whole) = self.read(stream, &mut buffer, &mut filled, &mut answer)? {
                return Ok((buffer, whole));
            }
            if filled > 0 {
                held = Some(buffer);
            } else {
                self.keep(buffer);
            }
        }
    }

    /// Takes what has come; `None` if that is not all.
    fn read(
        &self,
        mut stream: &std::net::TcpStream,
        buffer: &mut Vec<u8>,
        filled: &mut usize,
        answer: &mut Answer,
    ) -> Result<Option<Whole>, FetchError> {
        loop {
            if buffer.len() == *filled {
                // Only what surrounds the body, such as trailers without end, can come to so much.
                if buffer.len() > self.page_bytes_max + PAGE_BYTES_MIN {
                    return Err(FetchError::TooLarge(self.page_bytes_max));
                }
                buffer.resize(buffer.len() * 2, 0);
            }
            let came = match stream.read(buffer.get_mut(*filled..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                came => came?,
            };
            *filled += came;
            let whole = if came == 0 { answer.closed(*filled).map(Some) } else { answer.take(buffer, filled) };
            let whole = whole.map_err(|bad| self.refuse(bad))?;
            if whole.is_some() {
                return Ok(whole);
            }
        }
    }

    fn refuse(&self, bad: BadAnswer) -> FetchError {
        match bad {
            BadAnswer::Status(status) => FetchError::Status(status),
            BadAnswer::TooLarge => FetchError::TooLarge(self.page_bytes_max),
            bad => FetchError::Answer(bad),
        }
    }

    /// Until the next moment to look for an answer to what was asked then.
    async fn wait(&self, asked: Instant, deadline: Instant) -> Result<(), FetchError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(FetchError::TimedOut(self.timeout));
        }
        let at = now + GLANCE.max((now - asked) / PATIENCE);
        time::sleep_until(on_grid(self.start, GLANCE, at).min(deadline)).await;
        Ok(())
    }

    fn buffer(&self) -> Vec<u8> {
        let kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; PAGE_BYTES_MIN])
    }

    fn keep(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() <= KEPT_BYTES_MAX && buffers.len() < KEPT_MAX {
            buffers.push(buffer);
        }
    }
}

/// The last moment of a grid that is not after `at`.
pub(super) fn on_grid(start: Instant, step: Duration, at: Instant) -> Instant {
    let beyond = (at - start).as_nanos() % step.as_nanos().max(1);
    at - Duration::from_nanos(beyond as u64)
}

/// Whether nothing has come since, not even an end: then it can be asked again.
fn is_quiet(mut stream: &std::net::TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
