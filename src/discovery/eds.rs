//! The endpoints as a file for a plain Envoy: its EDS over the file system.
//!
//! Envoy's `override_host` policy sends only to hosts of its cluster, so a plain Envoy must know every endpoint that
//! we may name. It watches the folder and takes a file that is renamed into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::state::{Endpoint, Reader, Snapshot};

use super::atomic_file;

/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps `file` equal to the endpoints, as a `ClusterLoadAssignment` for `cluster`, until `cancel` fires or `versions`
/// closes. `versions` changes with each snapshot.
///
/// If there is no file at the start, an empty one is written, because Envoy does not start without. One that is there
/// stays until the first snapshot, so that our restart does not empty Envoy's cluster.
pub async fn run_eds(
    reader: Reader,
    mut versions: watch::Receiver<u64>,
    file: PathBuf,
    cluster: String,
    cancel: CancellationToken,
) {
    let mut written: Option<Value> = None;
    loop {
        versions.mark_unchanged();
        let snapshot = reader.load();
        let resource = resource(&snapshot, &cluster);
        let mut failed = false;
        if written.as_ref() != Some(&resource) && !(snapshot.version() == 0 && exists(&file).await) {
            match atomic_file::replace(&file, &format!("{resource:#}\n")).await {
                Ok(()) => {
                    let endpoints = snapshot.endpoints().len();
                    info!(file = %file.display(), endpoints, "endpoints written for Envoy");
                    written = Some(resource);
                }
                Err(error) => {
                    warn!(file = %file.display(), %error, "endpoints not written for Envoy, trying again");
                    failed = true;
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = versions.changed() => if changed.is_err() { return },
            () = time::sleep(RETRY), if failed => {}
        }
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
