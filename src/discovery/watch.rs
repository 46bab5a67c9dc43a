//! Being told that something in a folder changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time;
use tracing::debug;

/// After a first event, others of the same save follow within this time.
const SETTLE: Duration = Duration::from_millis(50);

/// Watches a folder, not a file: Kubernetes swaps a symbolic link beside the file, and editors rename a new file into
/// its place. Where the file system tells nothing, only the poll is left, which is enough.
pub(super) struct FolderWatch {
    folder: PathBuf,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

impl FolderWatch {
    pub(super) fn new(folder: PathBuf) -> Self {
        let mut watch = Self { folder, changed: Arc::default(), watcher: None };
        watch.begin();
        watch
    }

    /// Returns after a change in the folder has settled, or after `poll`.
    pub(super) async fn changed(&mut self, poll: Duration) {
        match time::timeout(poll, self.changed.notified()).await {
            Ok(()) => time::sleep(SETTLE).await,
            // The folder may have come meanwhile, or be another one now, with a watch left on the old.
            Err(_) => self.begin(),
        }
    }

    fn begin(&mut self) {
        let changed = Arc::clone(&self.changed);
        let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                changed.notify_one();
            }
        })
        .and_then(|mut watcher| watcher.watch(&self.folder, RecursiveMode::NonRecursive).map(|()| watcher));
        self.watcher = match started {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                debug!(folder = %self.folder.display(), %error, "folder is not watched, only polled");
                None
            }
        };
    }
}

/// Our own reading opens the file, which is an event as well: taking it for a change would never end.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
