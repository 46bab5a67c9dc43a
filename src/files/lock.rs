//! Who owns a path that several processes could write.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// A lock on a path, held until dropped, and given up by the system when the process ends.
///
/// It is taken on a hidden file beside the path, which stays: removing it would take the lock from whoever opens it at
/// that moment. The file holds the number of the process.
#[derive(Debug)]
pub struct PathLock(#[expect(dead_code, reason = "an open file is what holds the lock")] File);

/// Why a path cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum Locked {
    /// Another process has it.
    #[error("\"{path}\" belongs to another process{}", .process.as_ref().map(|id| format!(" ({id})")).unwrap_or_default())]
    Taken {
        /// The path.
        path: PathBuf,
        /// Its number, if it is known.
        process: Option<String>,
    },
    /// There can be no lock.
    #[error("no lock for \"{path}\"")]
    Impossible {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl PathLock {
    /// Takes the lock; makes the folder if need be.
    ///
    /// # Errors
    /// Another process has it, or the file system takes no locks.
    pub fn take(path: &Path) -> Result<Self, Locked> {
        let impossible = |source| Locked::Impossible { path: path.to_owned(), source };
        let mut file = open(path).map_err(impossible)?;
        match file.try_lock() {
            Ok(()) => {
                // Only people read it.
                file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).ok();
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
                let process = read.ok().filter(|length| *length > 0).map(|_| text);
                Err(Locked::Taken { path: path.to_owned(), process })
            }
            Err(TryLockError::Error(error)) => Err(impossible(error)),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_owner_who_is_named() {
        let folder = std::env::temp_dir().join(format!("fairlead-lock-{}", fastrand::u64(..)));
        let path = folder.join("endpoints.yaml");
        let lock = PathLock::take(&path).unwrap();
        let refused = PathLock::take(&path).unwrap_err();
        let process = Some(std::process::id().to_string());
        assert!(matches!(&refused, Locked::Taken { process: named, .. } if *named == process), "{refused:?}");
        assert!(PathLock::take(&folder.join("other.yaml")).is_ok());
        drop(lock);
        assert!(PathLock::take(&path).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
