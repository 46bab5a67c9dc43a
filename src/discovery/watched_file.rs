//! A file that is read again whenever it may have changed.
//!
//! Everything that touches the file system happens on a thread of its own: a mount that hangs holds up that thread and
//! nothing else, and the process can end without it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::RecommendedWatcher;
use tokio::sync::mpsc;

use crate::files::read_regular;

use super::watch;

/// Longest time that one reading may take, before it counts as failed.
const READ_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether a reading takes too long.
const LOOK: Duration = Duration::from_millis(500);
/// After a first event, others of the same save follow within this time.
const SETTLE: Duration = Duration::from_millis(50);

/// What a reading gave: what the text means, or why it cannot be used.
pub type Reading<T> = Result<T, String>;

/// A file that is followed until this is dropped.
#[derive(Debug)]
pub struct WatchedFile<T> {
    readings: mpsc::Receiver<Reading<T>>,
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    /// It was said that a reading hangs.
    is_hung: bool,
}

/// What the thread and its owner tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Since when the thread has been in the file system's hands.
    busy_since: Mutex<Option<Instant>>,
    /// The next reading is to be given whether or not it differs from the last.
    is_wanted: AtomicBool,
}

impl Shared {
    fn set_busy(&self, since: Option<Instant>) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_hung(&self) -> bool {
        self.busy_since.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() > READ_MAX)
    }
}

impl<T: Send + 'static> WatchedFile<T> {
    /// Follows `path`, which is read at once, when its folder tells of a change, and every `poll`. `parse` runs on the
    /// same thread. The same text, or the same error, is given only once.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        path: &Path,
        poll: Duration,
        bytes_max: u64,
        parse: impl Fn(String) -> Reading<T> + Send + 'static,
    ) -> io::Result<Self> {
        let (sink, readings) = mpsc::channel(1);
        let (wake, woken) = sync_channel(1);
        let shared = Arc::<Shared>::default();
        let follower =
            Follower { path: path.to_owned(), poll, bytes_max, shared: Arc::clone(&shared), wake: wake.clone(), woken };
        std::thread::Builder::new().name("file".to_owned()).spawn(move || follower.follow(&sink, parse))?;
        Ok(Self { readings, shared, wake, is_hung: false })
    }

    /// The next reading that differs from the one before. One that takes too long is an error, once; should it end after
    /// all, it is the next. Nothing is lost if this is dropped while it waits.
    pub async fn next(&mut self) -> Reading<T> {
        loop {
            tokio::select! {
                reading = self.readings.recv() => match reading {
                    Some(reading) => {
                        self.is_hung = false;
                        return reading;
                    }
                    // The thread has panicked: nothing will be read again.
                    None if self.is_hung => std::future::pending().await,
                    None => {
                        self.is_hung = true;
                        return Err("is no longer followed, for reading it failed badly".to_owned());
                    }
                },
                () = tokio::time::sleep(LOOK), if !self.is_hung => {
                    if self.shared.is_hung() {
                        self.is_hung = true;
                        self.shared.is_wanted.store(true, Relaxed);
                        return Err(format!("cannot be read: the file system has not answered for {READ_MAX:?}"));
                    }
                }
            }
        }
    }

    /// Has it read now; [`next`](Self::next) gives the result also if it is the same as before.
    pub fn read_now(&self) {
        self.shared.is_wanted.store(true, Relaxed);
        wake(&self.wake);
    }
}

impl<T> Drop for WatchedFile<T> {
    fn drop(&mut self) {
        self.readings.close();
        wake(&self.wake);
    }
}

fn wake(thread: &SyncSender<()>) {
    // Full means that it will wake up anyway; gone, that nobody is to be woken.
    let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = thread.try_send(());
}

/// The thread's side.
struct Follower {
    path: PathBuf,
    poll: Duration,
    bytes_max: u64,
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    woken: Receiver<()>,
}

impl Follower {
    fn follow<T>(self, sink: &mpsc::Sender<Reading<T>>, parse: impl Fn(String) -> Reading<T>) {
        // Before the first reading, so that no change falls between the two.
        let mut watcher = self.busy(|| self.watch());
        let mut last = None;
        while !sink.is_closed() {
            let text = self.busy(|| self.read());
            let print = fingerprint(&text);
            let is_new = last.replace(print) != Some(print);
            if is_new || self.shared.is_wanted.swap(false, Relaxed) {
                let reading = self.busy(|| text.and_then(&parse));
                if sink.blocking_send(reading).is_err() {
                    return;
                }
            }
            match self.woken.recv_timeout(self.poll) {
                Ok(()) => {
                    let settled = Instant::now() + SETTLE;
                    let left = || settled.saturating_duration_since(Instant::now());
                    while !left().is_zero() && self.woken.recv_timeout(left()).is_ok() {}
                }
                // The folder may have come meanwhile, or be another one now, with a watch left on the old.
                Err(RecvTimeoutError::Timeout) => watcher = self.busy(|| self.watch()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        drop(watcher);
    }

    fn busy<R>(&self, work: impl FnOnce() -> R) -> R {
        self.shared.set_busy(Some(Instant::now()));
        let done = work();
        self.shared.set_busy(None);
        done
    }

    fn watch(&self) -> Option<RecommendedWatcher> {
        let thread = self.wake.clone();
        watch::watch(&self.path, move || wake(&thread))
    }

    fn read(&self) -> Result<String, String> {
        let bytes = read_regular(&self.path, self.bytes_max).map_err(|error| match error.raw_os_error() {
            Some(_) => format!("cannot be read: {error}"),
            None => error.to_string(),
        })?;
        String::from_utf8(bytes).map_err(|_| "cannot be read: it is not UTF-8".to_owned())
    }
}

fn fingerprint(text: &Result<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
