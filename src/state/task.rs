//! The task that owns the registry.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Applied, Change, Registry, Snapshot};

/// Told of every publication, right after it, on the registry's task: must not block.
pub type Observer = Box<dyn Fn(&Applied, &Snapshot) + Send>;

/// Changes folded into one publication at most.
const BATCH_MAX: usize = 256;

/// Applies what the sources send until they are all gone or `cancel` fires: one publication for all changes that wait.
///
/// Endpoints that do not fit are left out and logged; nothing else here fails.
pub async fn run_registry(
    mut registry: Registry,
    mut changes: mpsc::Receiver<Change>,
    observers: Vec<Observer>,
    cancel: CancellationToken,
) {
    let reader = registry.reader();
    let mut batch = Vec::new();
    loop {
        let received = tokio::select! {
            () = cancel.cancelled() => 0,
            received = changes.recv_many(&mut batch, BATCH_MAX) => received,
        };
        if received == 0 {
            return;
        }
        let (applied, result) = registry.apply(batch.drain(..));
        if let Err(error) = result {
            warn!(%error, "endpoints left out");
        }
        let snapshot = reader.load();
        if !(applied.added.is_empty() && applied.removed.is_empty()) {
            let (added, removed, total) = (applied.added.len(), applied.removed.len(), snapshot.endpoints().len());
            info!(version = snapshot.version(), added, removed, total, "endpoints changed");
        }
        for observer in &observers {
            observer(&applied, &snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    use crate::domain::EndpointSpec;
    use crate::state::SourceId;

    use super::*;

    fn replace(source: u16, ports: &[u16]) -> Change {
        let spec = |port: &u16| EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], *port)));
        Change::Replace(SourceId(source), ports.iter().map(spec).collect())
    }

    #[tokio::test]
    async fn waiting_changes_become_one_publication_that_observers_see() {
        let (sink, changes) = mpsc::channel(8);
        for change in [replace(0, &[1, 2]), replace(1, &[3]), replace(0, &[1])] {
            sink.send(change).await.unwrap();
        }
        drop(sink);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let observer: Observer = Box::new(move |applied, snapshot| {
            log.lock().unwrap().push((snapshot.version(), applied.added.len(), snapshot.endpoints().len()));
        });
        run_registry(Registry::new(), changes, vec![observer], CancellationToken::new()).await;
        assert_eq!(*seen.lock().unwrap(), [(1, 2, 2)]);
    }

    #[tokio::test]
    async fn cancelling_ends_the_task_while_sources_live() {
        let (_sink, changes) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        cancel.cancel();
        run_registry(Registry::new(), changes, Vec::new(), cancel).await;
    }
}
