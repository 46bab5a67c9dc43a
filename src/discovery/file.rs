//! Endpoints from a watched file: the discovery source that needs nothing else.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::FileDiscovery;
use crate::state::{Change, SourceId};

use super::watch::FileWatch;
use super::{Fault, SourceStatus, parse_endpoints};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Faults that a log line tells; the rest is counted.
const FAULTS_TOLD: usize = 20;

/// Keeps the registry's set for `source` equal to the file until `cancel` fires or the registry is gone.
///
/// The file is read whole, checked whole and swapped in at once. A faulty or missing file changes nothing: the
/// endpoints of the last good reading stay, and `status` says why. A file that is missing at the start is waited for.
pub async fn run_file(
    config: FileDiscovery,
    source: SourceId,
    sink: mpsc::Sender<Change>,
    status: Arc<SourceStatus>,
    cancel: CancellationToken,
) {
    let follow = follow(&config, source, &sink, &status);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = follow => {}
    }
}

async fn follow(config: &FileDiscovery, source: SourceId, sink: &mpsc::Sender<Change>, status: &SourceStatus) {
    let path = config.path.as_path();
    // Before the first reading, so that no change falls between the two.
    let mut watch = FileWatch::new(path);
    let mut last = None;
    loop {
        let reading = read(path).await;
        let print = fingerprint(&reading);
        // The same text, or the same error, was dealt with already.
        if last.replace(print) != Some(print) {
            match reading.and_then(|text| parse_endpoints(&text).map_err(|faults| tell(&faults))) {
                Ok(specs) => {
                    info!(path = %path.display(), endpoints = specs.len(), "endpoint file taken");
                    if sink.send(Change::Replace(source, specs)).await.is_err() {
                        return;
                    }
                    status.succeeded();
                }
                Err(error) => {
                    warn!(path = %path.display(), %error, "endpoint file refused, the last good one stays");
                    status.failed(format!("\"{}\": {error}", path.display()));
                }
            }
        }
        watch.changed(config.poll).await;
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).await.map_err(|error| format!("cannot be opened: {error}"))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).await;
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(format!("has more than {FILE_BYTES_MAX} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn fingerprint(reading: &Result<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    reading.hash(&mut hasher);
    hasher.finish()
}

fn tell(faults: &[Fault]) -> String {
    let mut told: Vec<_> = faults.iter().take(FAULTS_TOLD).map(Fault::to_string).collect();
    if faults.len() > FAULTS_TOLD {
        told.push(format!("and {} more", faults.len() - FAULTS_TOLD));
    }
    told.join("; ")
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
