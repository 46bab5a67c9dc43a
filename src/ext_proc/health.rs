//! gRPC health: the names that gateways and probes ask for, and a port that serves nothing else.

use std::io;
use std::net::SocketAddr;

use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as GrpcServer;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

/// Names that follow readiness: everything, the service, and those that manifests of endpoint pickers probe.
const FOLLOWING: [&str; 4] = ["", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension", "readiness"];
/// The name that is answered well as long as the process answers at all.
const ALIVE: &str = "liveness";

/// What gRPC health says.
#[derive(Clone)]
pub struct HealthBoard(HealthReporter);

impl std::fmt::Debug for HealthBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HealthBoard")
    }
}

impl HealthBoard {
    /// A board that says not to be ready, and the service that shows it.
    pub async fn new() -> (Self, HealthServer<impl Health>) {
        let (reporter, server) = tonic_health::server::health_reporter();
        let board = Self(reporter);
        board.0.set_service_status(ALIVE, ServingStatus::Serving).await;
        board.set_ready(false).await;
        (board, server)
    }

    /// Says whether requests are welcome.
    pub async fn set_ready(&self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in FOLLOWING {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// Serves health alone at `address`, in plaintext. Binds before it returns; the future that it gives ends when cancelled.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_health<H: Health>(
    address: SocketAddr,
    health: HealthServer<H>,
    cancel: CancellationToken,
) -> io::Result<impl Future<Output = ()>> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let served = GrpcServer::builder()
        .add_service(health)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), cancel.cancelled_owned());
    Ok(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "gRPC health can no longer be served at its own port");
        }
    })
}
