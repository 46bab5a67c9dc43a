//! The serving threads: one single-threaded runtime each, which halves the CPU of a stream against a work-stealing
//! pool.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessorServer;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server as GrpcServer;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::config::{Config, Listen};
use crate::exchange::Core;
use crate::telemetry::Metrics;

use super::driver::Service;
use super::listener::{Connection, Handed, Listener, Outlet};
use super::settings::Settings;
use super::tls::{self, Door};

/// Streams that clients may reset before we accepted them. The default of h2 (20) drops the whole connection of an
/// Envoy, and every innocent request on it, when a burst of clients vanishes.
const PENDING_RESETS_MAX: usize = 100_000;
/// Bytes above the largest body that one message may have, so that a body somewhat too large gets our 413 and not a
/// broken stream. Envoy's own buffer limit ends what is larger still.
const MESSAGE_SLACK_BYTES: usize = 17 << 20;
/// Connections of one serving thread that shake hands at once; others wait.
const HANDSHAKES_MAX: usize = 256;
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
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
}

impl From<&Config> for ServerOptions {
    fn from(config: &Config) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            listen: config.listen.clone(),
            threads: if config.listen.threads == 0 { cores() } else { config.listen.threads },
            streams_per_connection_max: config.limits.streams_per_connection_max,
            body_bytes_max: config.limits.body_bytes_max,
        }
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
    /// Binds and starts serving. Connections are accepted on the runtime that this is called on. Should a serving thread
    /// end by itself, or `parent` be cancelled, everything ends, and `parent` is cancelled as well.
    pub async fn start<H: Health>(
        options: &ServerOptions,
        core: Arc<Core>,
        settings: Arc<Settings>,
        health: HealthServer<H>,
        tasks: &TaskTracker,
        parent: &CancellationToken,
    ) -> io::Result<Self> {
        let (door, certificate) = tls::open(&options.listen).await?.unzip();
        let listener = Listener::bind(&options.listen.ext_proc).await?;
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
                service: Service { core: Arc::clone(&core), settings: Arc::clone(&settings) },
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
        Ok(Self { threads, address, drain, stop })
    }

    /// The TCP address, with the port that the system chose if it was 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops accepting and says so to the clients (GOAWAY); waits until running streams have ended, at most `grace`;
    /// then ends whatever is left. Returns whether all ended by themselves.
    pub async fn shut_down(self, grace: Duration) -> bool {
        self.drain.cancel();
        let is_idle = || self.threads.iter().all(JoinHandle::is_finished);
        let ended = tokio::time::timeout(grace, async {
            while !is_idle() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let ended = ended.await.is_ok();
        self.stop.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an ext_proc thread had panicked");
            }
        }
        ended
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
    service: Service,
    health: HealthServer<H>,
    options: ServerOptions,
    door: Option<Door>,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl<H: Health> Worker<H> {
    async fn serve(self, connections: mpsc::Receiver<Handed>) {
        let (door, metrics) = (self.door, Arc::clone(&self.service.core.metrics));
        let incoming = ReceiverStream::new(connections)
            .map(move |handed| Connection::adopt(handed, door.clone()))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(move |adopted| std::future::ready(told(adopted, &metrics)));
        let message_bytes_max = self.options.body_bytes_max.saturating_add(MESSAGE_SLACK_BYTES);
        let ext_proc = ExternalProcessorServer::new(self.service)
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        let served = GrpcServer::builder()
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .max_concurrent_streams(self.options.streams_per_connection_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(self.health)
            .add_service(ext_proc)
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
