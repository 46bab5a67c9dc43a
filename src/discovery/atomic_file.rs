//! Replacing a file so that a reader sees the old text or the new one, never a part.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs;

/// Writes `text` beside `path` and renames it into place; makes the folder if need be.
///
/// Not synced to disk: after a crash of the machine the content is made anew anyway.
pub(super) async fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder(path)).await?;
    let temporary = temporary(path)?;
    let done = match fs::write(&temporary, text).await {
        Ok(()) => fs::rename(&temporary, path).await,
        Err(error) => Err(error),
    };
    if done.is_err() {
        // The first error is the one to tell; a leftover is overwritten next time.
        drop(fs::remove_file(&temporary).await);
    }
    done
}

/// The folder that holds `path`; `.` for a bare file name.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same folder, as a rename works within one file system only.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(hidden))
}
