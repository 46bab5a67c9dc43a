//! Being told that a file may have changed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time;
use tracing::debug;

use super::atomic_file::folder;

/// After a first event, others of the same save follow within this time.
const SETTLE: Duration = Duration::from_millis(50);

/// Watches the folder of a file, not the file: Kubernetes swaps a symbolic link beside it, and editors rename a new file
/// into its place. Where the file system tells nothing, only the poll is left, which is enough.
pub(super) struct FileWatch {
    file: PathBuf,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    pub(super) fn new(file: &Path) -> Self {
        let mut watch = Self { file: file.to_owned(), changed: Arc::default(), watcher: None };
        watch.begin();
        watch
    }

    /// Returns after what may be a change of the file has settled, or after `poll`.
    pub(super) async fn changed(&mut self, poll: Duration) {
        match time::timeout(poll, self.changed.notified()).await {
            Ok(()) => time::sleep(SETTLE).await,
            // The folder may have come meanwhile, or be another one now, with a watch left on the old.
            Err(_) => self.begin(),
        }
    }

    fn begin(&mut self) {
        let (changed, name) = (Arc::clone(&self.changed), self.file.file_name().map(OsStr::to_owned));
        let folder = folder(&self.file);
        let started = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| may_change(&event, name.as_deref())) {
                changed.notify_one();
            }
        })
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
        self.watcher = match started {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                debug!(folder = %folder.display(), %error, "folder is not watched, only polled");
                None
            }
        };
    }
}

/// Whether the file may be another one after an event. Others may come and go, for one of them may be a link on its way,
/// but what is written into them counts for nothing: logs in the same folder would have it read for ever. Our own reading
/// opens the file, which is an event as well.
fn may_change(event: &Event, name: Option<&OsStr>) -> bool {
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            event.paths.iter().any(|path| path.file_name() == name)
        }
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    fn counts(kind: EventKind, name: &str) -> bool {
        may_change(&Event::new(kind).add_path(Path::new("run").join(name)), Some(OsStr::new("endpoints.yaml")))
    }

    #[test]
    fn writing_counts_in_the_file_alone_and_links_count_whatever_their_name() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for kind in [written, closed] {
            assert!(counts(kind, "endpoints.yaml") && !counts(kind, "access.log"), "{kind:?}");
        }
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for kind in [renamed, EventKind::Create(CreateKind::File)] {
            assert!(counts(kind, "endpoints.yaml") && counts(kind, "..data"), "{kind:?}");
        }
        assert!(!counts(EventKind::Access(AccessKind::Open(AccessMode::Any)), "endpoints.yaml"));
    }
}
