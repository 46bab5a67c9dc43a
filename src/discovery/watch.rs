//! Being told that a file may have changed.

use std::ffi::OsStr;
use std::path::Path;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::debug;

use super::atomic_file::folder;

/// Watches the folder of a file, not the file: Kubernetes swaps a symbolic link beside it, and editors rename a new file
/// into its place. `None` where the file system tells nothing: then only polling is left, which is enough.
pub(super) fn watch(file: &Path, changed: impl Fn() + Send + 'static) -> Option<RecommendedWatcher> {
    let (folder, name) = (folder(file), file.file_name().map(OsStr::to_owned));
    let started = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.map_or(true, |event| may_change(&event, name.as_deref())) {
            changed();
        }
    })
    .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    match started {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            debug!(folder = %folder.display(), %error, "folder is not watched, only polled");
            None
        }
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
