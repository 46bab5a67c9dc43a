//! The folder of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

/// Longest path of a unix socket that every system takes (`sun_path` less a name in the folder).
const PATH_BYTES_MAX: usize = 85;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A folder for configuration, sockets and logs.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// A new folder that is removed when dropped, unless the test fails: then its logs are what one wants to see.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary() -> anyhow::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fairlead-{}-{number}", std::process::id()));
        Self::open(&path, true)
    }

    /// A folder that stays; made if missing.
    ///
    /// # Errors
    /// It cannot be made, or its path is too long for a unix socket.
    pub fn lasting(path: &Path) -> anyhow::Result<Self> {
        Self::open(path, false)
    }

    fn open(path: &Path, temporary: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(path.join("eds")).with_context(|| format!("cannot make folder '{}'", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("folder '{}'", path.display()))?;
        let length = path.as_os_str().len();
        anyhow::ensure!(length <= PATH_BYTES_MAX, "'{}' is too long for a unix socket in it", path.display());
        Ok(Self { path, temporary })
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a file in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file so that a watcher never sees half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        let draft = path.with_extension("draft");
        fs::write(&draft, text).with_context(|| format!("cannot write '{}'", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("cannot write '{}'", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary && std::thread::panicking() {
            eprintln!("logs of the failed run: {}", self.path.display());
        } else if self.temporary {
            // What cannot be removed is in the system's folder for temporary files.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}
