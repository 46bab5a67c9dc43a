//! Connections of the admin port: how many there may be, and how long each may take.
//!
//! It is a side door: whoever reaches it must not be able to use up what the front door needs, nor keep probes out.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Connections at once. For a further one the oldest that has no request under way is closed.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// Longest time until the head of a request is there, from the start or from the last answer on.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes, and what is read ahead of a body.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Longest time that a client may leave an answer lying.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// Longest life of a connection.
const LIFE_MAX: Duration = Duration::from_mins(10);
/// How long requests under way may take to end once they must.
const GRACE: Duration = Duration::from_secs(1);

/// What became of connections, for metrics.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, Open>>,
    /// Those that were closed or refused for want of room.
    pub(super) crowded_out: AtomicU64,
}

/// One connection.
#[derive(Debug)]
struct Open {
    /// Requests under way.
    busy: Arc<AtomicUsize>,
    close: CancellationToken,
}

impl Connections {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Makes room for one more, and enters it; `None` if all are busy.
    fn enter(&self, id: u64) -> Option<(Arc<AtomicUsize>, CancellationToken)> {
        let mut open = self.lock();
        if open.len() >= CONNECTIONS_MAX {
            self.crowded_out.fetch_add(1, Relaxed);
            let idle = open.iter().find(|(_, open)| open.busy.load(Relaxed) == 0).map(|(id, _)| *id)?;
            open.remove(&idle)?.close.cancel();
        }
        let (busy, close) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        open.insert(id, Open { busy: Arc::clone(&busy), close: close.clone() });
        Some((busy, close))
    }

    fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until `cancel` fires, and then for a moment what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    cancel: CancellationToken,
) {
    let (tasks, mut next) = (TaskTracker::new(), 0);
    loop {
        let stream = match cancel.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                debug!(%error, "admin connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        next += 1;
        let Some((busy, close)) = connections.enter(next) else { continue };
        let (id, connections, cancel, router) = (next, Arc::clone(&connections), cancel.clone(), router.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve_one(stream, router, &busy, &cancel) => {}
                () = close.cancelled() => {}
            }
            connections.leave(id);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(stream: TcpStream, router: Router, busy: &Arc<AtomicUsize>, cancel: &CancellationToken) {
    // The kernel sees what we do not: whether what was written is taken.
    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(TAKE_MAX)) {
        debug!(%error, "no limit for answers that nobody takes");
    }
    stream.set_nodelay(true).ok();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (busy, answer) = (Busy::new(busy), router.call(request));
        async move {
            let answer = answer.await;
            drop(busy);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                debug!(%error, "admin connection ended");
            }
            return;
        }
        () = cancel.cancelled() => {}
        () = sleep(LIFE_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(GRACE, connection).await);
}

/// A request under way, counted until dropped.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_that_is_idle() {
        let connections = Connections::default();
        let (first, _) = connections.enter(0).unwrap();
        let _busy = Busy::new(&first);
        let (_, second) = connections.enter(1).unwrap();
        let rest: Vec<_> = (2..CONNECTIONS_MAX as u64).map(|id| connections.enter(id).unwrap()).collect();
        assert!(connections.enter(1000).is_some() && second.is_cancelled());
        assert_eq!((connections.count(), connections.crowded_out.load(Relaxed)), (CONNECTIONS_MAX, 1));
        let last = connections.enter(1001).unwrap();
        let _all: Vec<_> = rest.iter().skip(1).chain([&last]).map(|(busy, _)| Busy::new(busy)).collect();
        assert!(rest.first().unwrap().1.is_cancelled());
        connections.leave(1000);
        assert!(connections.enter(1002).is_some());
        for open in connections.open.lock().unwrap().values() {
            open.busy.fetch_add(1, Relaxed);
        }
        assert!(connections.enter(1003).is_none(), "all are busy");
    }
}
