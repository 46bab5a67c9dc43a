//! Starts the programs of a stack and writes the files that they read.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Child, Folder, config};
use crate::engine::{EngineHandle, EngineOptions};

/// Where the programs of one stack listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) admin: SocketAddr,
    pub(super) envoy: SocketAddr,
    pub(super) envoy_admin: SocketAddr,
}

pub(super) async fn start_fairlead(
    binary: &Path,
    environment: &[(String, String)],
    folder: &Folder,
    ports: Ports,
    deadline: Duration,
) -> anyhow::Result<Child> {
    ensure!(binary.is_file(), "no fairlead binary at '{}'; 'make build' makes it", binary.display());
    let path = folder.join("fairlead.yaml");
    let path = path.to_str().context("the run folder's path is not text")?;
    let (arguments, log) = (["serve", "--config", path], folder.join("fairlead.log"));
    let mut child = Child::spawn_with(environment, "fairlead", binary, &arguments, &log)?;
    child.wait_ready(&format!("http://{}/readyz", ports.admin), deadline).await?;
    Ok(child)
}

pub(super) async fn start_envoy(
    binary: &Path,
    text: &str,
    folder: &Folder,
    ports: Ports,
    deadline: Duration,
) -> anyhow::Result<Child> {
    let path = folder.write("envoy.yaml", text)?;
    let path = path.to_str().context("the run folder's path is not text")?;
    let arguments = ["-c", path, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"];
    let mut child = Child::spawn("Envoy", binary, &arguments, &folder.join("envoy.log"))?;
    child.wait_ready(&format!("http://{}/ready", ports.envoy_admin), deadline).await?;
    Ok(child)
}

pub(super) fn fill(text: &str, folder: &Folder, ports: Ports, engines: &[EngineHandle]) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let engines =
        engines.iter().enumerate().map(|(index, engine)| (format!("engine{index}"), engine.address().to_string()));
    let values: Vec<(String, String)> = [
        ("run", folder.path().display().to_string()),
        ("ext_proc", path("ext_proc.sock")),
        ("admin", ports.admin.to_string()),
        ("endpoints", path("endpoints.yaml")),
        ("eds", path("eds/endpoints.yaml")),
        ("eds_folder", path("eds")),
        ("access_log", path("access.log")),
        ("envoy_port", ports.envoy.port().to_string()),
        ("envoy_admin_port", ports.envoy_admin.port().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .chain(engines)
    .collect();
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    config::substitute(text, &values)
}

pub(super) fn endpoints_yaml(options: &[EngineOptions], engines: &[EngineHandle]) -> String {
    let mut text = String::new();
    for (options, engine) in options.iter().zip(engines) {
        let models = options.models.iter().chain(&options.loras).cloned().collect::<Vec<_>>().join(", ");
        writeln!(text, "- {{ address: \"{}\", models: [{models}], engine: vllm }}", engine.address()).ok();
    }
    if text.is_empty() { "[]\n".to_owned() } else { text }
}

pub(super) fn eds_yaml(service: &str, engines: &[EngineHandle]) -> String {
    let mut text = format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  \
         cluster_name: {service}\n  endpoints:\n  - lb_endpoints:\n"
    );
    for engine in engines {
        let address = engine.address();
        let (ip, port) = (address.ip(), address.port());
        writeln!(
            text,
            "    - endpoint: {{ address: {{ socket_address: {{ address: \"{ip}\", port_value: {port} }} }} }}"
        )
        .ok();
    }
    text
}
