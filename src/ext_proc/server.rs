//! The serving threads: one single-threaded runtime each, which halves the CPU of a stream against a work-stealing
//! pool.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server as GrpcServer;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::config::{Config, Listen};
use crate::telemetry::Metrics;

use super::listener::{Bound, Connection, Handed, Outlet};
use super::processor::Processor;
use super::tls::{self, Certificate, Door};

/// Streams that clients may reset before we accepted them. The default of h2 (20) drops the whole connection of an
/// Envoy, and every innocent request on it, when a burst of clients vanishes.
const PENDING_RESETS_MAX: usize = 100_000;
/// Connections of one serving thread that shake hands at once; others wait.
const HANDSHAKES_MAX: usize = 256;
/// How long threads may take to end once they must.
const STOP_MAX: Duration = Duration::from_secs(2);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen, and whether over TLS.
    pub listen: Listen,
    /// Serving threads; at least 1.
    pub threads: usize,
    /// Streams on one connection.
    pub streams_per_connection_max: u32,
}

impl From<&Config> for ServerOptions {
    fn from(config: &Config) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            listen: config.listen.clone(),
            threads: if config.listen.threads == 0 { cores() } else { config.listen.threads },
            streams_per_connection_max: config.limits.streams_per_connection_max,
        }
    }
}

/// A socket that is ours and does not listen yet: connections are refused, so that a gateway goes elsewhere.
#[derive(Debug)]
pub struct BoundServer {
    options: ServerOptions,
    socket: Bound,
    door: Option<Door>,
    certificate: Option<Arc<Certificate>>,
}

impl BoundServer {
    /// Reads the certificate and binds.
    ///
    /// # Errors
    /// The certificate cannot be used, or the address cannot be bound.
    pub async fn bind(options: ServerOptions) -> io::Result<Self> {
        let (door, certificate) = tls::open(&options.listen).await?.unzip();
        let socket = Bound::new(&options.listen.ext_proc)?;
        Ok(Self { options, socket, door, certificate })
    }

    /// Listens and serves. Connections are accepted on the runtime that this is called on. Should a serving thread end by
    /// itself, or `parent` be cancelled, everything ends, and `parent` is cancelled as well.
    ///
    /// # Errors
    /// The socket cannot listen, or a thread cannot be started.
    pub fn serve<H: Health>(
        self,
        processor: &Processor,
        metrics: &Arc<Metrics>,
        health: &HealthServer<H>,
        tasks: &TaskTracker,
        parent: &CancellationToken,
    ) -> io::Result<Server> {
        let Self { options, socket, door, certificate } = self;
        let listener = socket.listen()?;
        let address = listener.tcp_address();
        let (drain, stop) = (parent.child_token(), parent.child_token());
        if let Some(certificate) = certificate {
            tasks.spawn(drain.clone().run_until_cancelled_owned(certificate.follow()));
        }
        let mut threads = Vec::with_capacity(options.threads);
        let mut outlets = Vec::with_capacity(options.threads);
        for number in 0..options.threads {
            let (outlet, receiver) = Outlet::new();
            outlets.push(outlet);
            let worker = Worker {
                processor: processor.clone(),
                metrics: Arc::clone(metrics),
                health: health.clone(),
                options: options.clone(),
                door: door.clone(),
                drain: drain.clone(),
                stop: stop.clone(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let name = format!("ext-proc-{number}");
            threads
                .push(std::thread::Builder::new().name(name).spawn(move || runtime.block_on(worker.serve(receiver)))?);
        }
        let (draining, parent) = (drain.clone(), parent.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = listener.hand_out(outlets) => {
                    tracing::error!("an ext_proc thread is gone");
                    parent.cancel();
                }
                () = draining.cancelled() => {}
            }
        });
        Ok(Server { threads, address, drain, stop })
    }
}

/// The running gRPC server.
#[derive(Debug)]
pub struct Server {
    threads: Vec<JoinHandle<()>>,
    address: Option<SocketAddr>,
    /// Ends the accepting of connections and lets running streams finish.
    drain: CancellationToken,
    /// Ends everything.
    stop: CancellationToken,
}

impl Server {
    /// The TCP address, with the port that the system chose if it was 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops accepting and says so to the clients (GOAWAY); waits until running streams have ended, at most `grace`;
    /// then ends whatever is left. Returns whether all ended by themselves.
    pub async fn shut_down(self, grace: Duration) -> bool {
        self.drain.cancel();
        let ended = self.threads_end_within(grace).await;
        self.stop.cancel();
        // One that computes for ever, or waits for what never comes, is left behind.
        if !self.threads_end_within(STOP_MAX).await {
            tracing::warn!("an ext_proc thread did not end");
        }
        for thread in self.threads.into_iter().filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("an ext_proc thread had panicked");
            }
        }
        ended
    }

    async fn threads_end_within(&self, limit: Duration) -> bool {
        let ended = async {
            while !self.threads.iter().all(JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

/// A connection that was taken in; of one that was not, a word. A client that leaves without one, as a probe does, has
/// done nothing wrong.
fn told(adopted: io::Result<Connection>, metrics: &Metrics) -> Option<io::Result<Connection>> {
    if let Err(error) = &adopted {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            metrics.protocol_fault("handshake");
        }
        tracing::debug!(%error, "connection not taken");
    }
    adopted.is_ok().then_some(adopted)
}

/// One serving thread's part.
struct Worker<H: Health> {
    processor: Processor,
    metrics: Arc<Metrics>,
    health: HealthServer<H>,
    options: ServerOptions,
    door: Option<Door>,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl<H: Health> Worker<H> {
    async fn serve(self, connections: mpsc::Receiver<Handed>) {
        let (door, metrics) = (self.door, self.metrics);
        let incoming = ReceiverStream::new(connections)
            .map(move |handed| Connection::adopt(handed, door.clone()))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(move |adopted| std::future::ready(told(adopted, &metrics)));
        let served = GrpcServer::builder()
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .max_concurrent_streams(self.options.streams_per_connection_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(self.health)
            .add_service(self.processor)
            .serve_with_incoming_shutdown(incoming, self.drain.cancelled_owned());
        tokio::select! {
            // tonic's graceful end can hang (hyper issue 4170), so the hard end is ours.
            () = self.stop.cancelled() => {}
            served = served => {
                if let Err(error) = served {
                    tracing::error!(%error, "an ext_proc thread ended");
                }
            }
        }
    }
}
