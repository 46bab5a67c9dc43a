//! Endpoints from a watched file: the discovery source that needs nothing else.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::FileDiscovery;
use crate::domain::EndpointSpec;
use crate::state::{Change, SourceId};

use super::{Fault, SourceStatus, WatchedFile, parse_endpoints};

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
    let parse = |text: String| parse_endpoints(&text).map_err(|faults| tell(&faults));
    match WatchedFile::start(&config.path, config.poll, FILE_BYTES_MAX, parse) {
        Ok(file) => drop(cancel.run_until_cancelled(follow(&config, file, source, &sink, &status)).await),
        // Our end then says that something is amiss.
        Err(error) => warn!(%error, "no thread to read the endpoint file on"),
    }
}

async fn follow(
    config: &FileDiscovery,
    mut file: WatchedFile<Vec<EndpointSpec>>,
    source: SourceId,
    sink: &mpsc::Sender<Change>,
    status: &SourceStatus,
) {
    let path = config.path.display();
    loop {
        match file.next().await {
            Ok(specs) => {
                info!(%path, endpoints = specs.len(), "endpoint file loaded");
                if sink.send(Change::Replace(source, specs)).await.is_err() {
                    return;
                }
                status.succeeded();
            }
            Err(error) => {
                warn!(%path, %error, "endpoint file refused, the last good one stays");
                status.failed(format!("\"{path}\": {error}"));
            }
        }
    }
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
