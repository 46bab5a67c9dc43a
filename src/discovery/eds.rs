//! The endpoints as a file for a plain Envoy: its EDS over the file system.
//!
//! Envoy's `override_host` policy sends only to hosts of its cluster, so a plain Envoy must know every endpoint that
//! we may name. It watches the folder and takes a file that is renamed into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::state::{Endpoint, Reader, Snapshot};

use super::{WatchedFile, atomic_file};

/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The file is looked at this often, should the file system not report that something else changed it.
const CHECK: Duration = Duration::from_secs(5);
/// Least pause between two repairs of the file, should another program keep writing it.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// Largest file that is looked at: ours has some 300 bytes for each endpoint.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Keeps `file` equal to the endpoints, as a `ClusterLoadAssignment` for `cluster`, until `cancel` fires or `versions`
/// closes. `versions` changes with each snapshot. If something else changes or removes the file, it is written again.
///
/// If there is no file at the start, an empty one is written, because Envoy does not start without. One that is there
/// stays until the first snapshot, so that our restart does not empty Envoy's cluster.
pub async fn run_eds(
    reader: Reader,
    versions: watch::Receiver<u64>,
    file: PathBuf,
    cluster: String,
    cancel: CancellationToken,
) {
    match WatchedFile::start(&file, CHECK, FILE_BYTES_MAX, Ok) {
        Ok(watched) => {
            let writer = Writer { reader, file, cluster, written: None, watched, repaired: None };
            cancel.run_until_cancelled(writer.run(versions)).await;
        }
        Err(error) => warn!(%error, "no thread to watch the endpoint file for Envoy on"),
    }
}

struct Writer {
    reader: Reader,
    file: PathBuf,
    cluster: String,
    /// What we wrote last.
    written: Option<String>,
    watched: WatchedFile<String>,
    /// When the file was last repaired.
    repaired: Option<Instant>,
}

impl Writer {
    async fn run(mut self, mut versions: watch::Receiver<u64>) {
        loop {
            versions.mark_unchanged();
            let failed = !self.write().await;
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return },
                () = time::sleep(RETRY), if failed => {}
                () = self.damaged() => self.written = None,
            }
        }
    }

    /// Writes the file if the endpoints are not those in it. False if that failed.
    async fn write(&mut self) -> bool {
        let snapshot = self.reader.load();
        let text = format!("{:#}\n", resource(&snapshot, &self.cluster));
        if self.written.as_ref() == Some(&text) || (snapshot.version() == 0 && exists(&self.file).await) {
            return true;
        }
        match atomic_file::replace(&self.file, &text).await {
            Ok(()) => {
                info!(file = %self.file.display(), endpoints = snapshot.endpoints().len(), "endpoints written for Envoy");
                self.written = Some(text);
                true
            }
            Err(error) => {
                warn!(file = %self.file.display(), %error, "endpoints not written for Envoy, trying again");
                false
            }
        }
    }

    /// Waits until the file is not what we wrote.
    async fn damaged(&mut self) {
        // One reading may be from before our last write; the next, which is asked for, is not.
        let mut doubts = 0;
        while doubts < 2 {
            let reading = self.watched.next().await;
            if self.written.is_none() || reading.as_ref().ok() == self.written.as_ref() {
                doubts = 0;
                // Before the first snapshot there is nothing to compare with, but the file must exist.
                if self.written.is_none() && reading.is_err() {
                    return;
                }
                continue;
            }
            doubts += 1;
            self.watched.read_now();
        }
        if let Some(repaired) = self.repaired {
            time::sleep_until(repaired + REPAIR_PAUSE).await;
        }
        self.repaired = Some(Instant::now());
        warn!(file = %self.file.display(), "the endpoint file for Envoy was changed or removed by something else; writing it again");
    }
}

async fn exists(file: &Path) -> bool {
    tokio::fs::try_exists(file).await.unwrap_or(false)
}

/// The resource as JSON, which a file named `.yaml` may hold: YAML includes it.
fn resource(snapshot: &Snapshot, cluster: &str) -> Value {
    let hosts: Vec<Value> = snapshot.endpoints().iter().map(|endpoint| host(endpoint)).collect();
    let localities = if hosts.is_empty() { json!([]) } else { json!([{ "lb_endpoints": hosts }]) };
    json!({
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": cluster,
            "endpoints": localities,
        }],
    })
}

/// The weight is for Envoy's own choice, while we are away. An IPv6 address is written without brackets.
fn host(endpoint: &Endpoint) -> Value {
    let address = endpoint.spec.address;
    json!({
        "endpoint": {
            "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
        },
        "load_balancing_weight": endpoint.spec.weight.max(1),
    })
}

#[cfg(test)]
#[path = "eds_tests.rs"]
mod tests;
