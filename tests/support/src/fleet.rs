//! `fairlead-lab fleet`: many endpoints that only have metrics, cheap enough that reading them is what is measured.
//!
//! All endpoints tell the same page. It is made anew ten times a second at most, its counts grow with time, and it is sent
//! without a copy.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Dialect, PageMaker};

/// How long a page stays as it is.
const TICK: Duration = Duration::from_millis(100);

/// Many endpoints that answer /metrics and nothing else, for measuring what reading them costs.
///
/// Writes an endpoint list for Fairlead and prints its length. Ends on Ctrl-C.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Number of endpoints, each on a port of its own.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    endpoints: usize,
    /// Requests run and wait, and all counts grow; without it nothing ever happens.
    #[arg(long)]
    busy: bool,
    /// Whose metrics are shown.
    #[arg(long, value_enum, default_value_t = Dialect::Vllm)]
    dialect: Dialect,
    /// Model of all endpoints.
    #[arg(long, default_value = "llama-3-8b", value_name = "NAME")]
    model: String,
    /// Where to write the endpoint list.
    #[arg(long, default_value = "endpoints.yaml", value_name = "FILE")]
    write: PathBuf,
}

/// The page of all endpoints.
struct Page {
    maker: PageMaker,
    busy: bool,
    since: Instant,
    made: Mutex<Option<(Instant, Bytes)>>,
}

impl Page {
    fn text(&self) -> Bytes {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((at, text)) if !self.busy || at.elapsed() < TICK => text.clone(),
            _ => {
                let age = self.busy.then(|| self.since.elapsed());
                let text = Bytes::from(self.maker.page(age));
                *made = Some((Instant::now(), text.clone()));
                text
            }
        }
    }
}

impl FleetArgs {
    /// Serves until Ctrl-C.
    ///
    /// # Errors
    /// A port or the list cannot be had.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let maker = PageMaker::new(self.dialect, &self.model);
        let page = Arc::new(Page { maker, busy: self.busy, since: Instant::now(), made: Mutex::default() });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut list = String::new();
        for _ in 0..self.endpoints {
            let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
            let listener = TcpListener::bind(any).await.context("a port for an endpoint (see 'ulimit -n')")?;
            let (address, model, engine) = (listener.local_addr()?, &self.model, self.dialect.engine());
            writeln!(list, "- {{ address: \"{address}\", models: [{model}], engine: {engine} }}")?;
            tasks.spawn(listen(listener, Arc::clone(&page), tasks.clone(), stop.clone()));
        }
        write_whole(&self.write, &list).with_context(|| format!("cannot write '{}'", self.write.display()))?;
        writeln!(out, "{} endpoints, listed in {}", self.endpoints, self.write.display())?;
        out.flush()?;
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        stop.cancel();
        Ok(())
    }
}

/// A reader sees the old file or the new one.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, path)
}

async fn listen(listener: TcpListener, page: Arc<Page>, tasks: TaskTracker, stop: CancellationToken) {
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tasks.spawn(serve(stream, Arc::clone(&page)))),
                // A full file table; do not spin on it.
                Err(_) => tokio::time::sleep(TICK).await,
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn serve(stream: TcpStream, page: Arc<Page>) {
    // Fails only when the peer has left already.
    stream.set_nodelay(true).ok();
    let path = page.maker.path();
    let service = service_fn(move |request: Request<Incoming>| {
        let is_page = Some(request.uri().path()) == path;
        let mut answer = Response::new(Full::new(if is_page { page.text() } else { Bytes::new() }));
        if !is_page {
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    // A peer that goes away is no failure here.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}
