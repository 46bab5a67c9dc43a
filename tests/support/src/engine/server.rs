//! Listener and connections of an engine.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::fault::Gate;
use super::service;

const BACKLOG: u32 = 4096;
/// Pause after a failed accept or bind, so that a full file table does not become a busy loop.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Accepts until `stop`; closes and opens the listener as the fault board says.
pub(super) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut gate = shared.faults.gate();
    let serve = async {
        let mut listener = listener;
        loop {
            accept_while_open(&shared, &listener, &mut gate, &tasks, &stop).await;
            drop(listener);
            listener = closed(&shared, address, &mut gate).await;
        }
    };
    stop.run_until_cancelled(serve).await;
}

async fn accept_while_open(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    gate: &mut watch::Receiver<Gate>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    while *gate.borrow_and_update() == Gate::Open {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.tally.connections.fetch_add(1, Ordering::Relaxed);
                    tasks.spawn(connection(Arc::clone(shared), stream, shared.faults.gate(), stop.clone()));
                }
                Err(_) => sleep(RETRY_PAUSE).await,
            },
            _ = gate.changed() => {}
        }
    }
}

/// Holds the port without listening, so that connections are refused and nobody else can take it, until the gate opens.
async fn closed(shared: &Shared, address: SocketAddr, gate: &mut watch::Receiver<Gate>) -> TcpListener {
    loop {
        let placeholder = bind(address);
        wait_for_open(shared, gate).await;
        let listener = match placeholder {
            Ok(socket) => socket.listen(BACKLOG),
            Err(_) => bind(address).and_then(|socket| socket.listen(BACKLOG)),
        };
        match listener {
            Ok(listener) => return listener,
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn wait_for_open(shared: &Shared, gate: &mut watch::Receiver<Gate>) {
    loop {
        let state = *gate.borrow_and_update();
        let until = match state {
            Gate::Open => return,
            Gate::Refusing { until } | Gate::Crashed { until } => until,
        };
        tokio::select! {
            _ = gate.changed() => {}
            () = until_or_never(until) => shared.faults.reopen(),
        }
    }
}

async fn until_or_never(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection. An error (also one made by a fault) and a crash end it with a TCP reset.
async fn connection(shared: Arc<Shared>, stream: TcpStream, mut gate: watch::Receiver<Gate>, stop: CancellationToken) {
    // Without it small chunks wait for acknowledgements; a failure only means that the peer has left already.
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| Box::pin(service::answer(Arc::clone(&shared), request)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    gate.mark_unchanged();
    let clean = loop {
        tokio::select! {
            outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => break outcome.is_ok(),
            Ok(()) = gate.changed() => match *gate.borrow_and_update() {
                Gate::Open => {}
                Gate::Refusing { .. } => Pin::new(&mut connection).graceful_shutdown(),
                Gate::Crashed { .. } => break false,
            },
            () = stop.cancelled() => break false,
        }
    };
    let stream = connection.into_parts().io.into_inner();
    if !clean {
        // Fails only on a socket that is gone.
        stream.set_zero_linger().ok();
    }
}
