//! The programs that a benchmark runs: engines, no-op service, Fairlead, and an Envoy for each case.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::BenchArgs;
use crate::harness::{Child, Folder, find_envoy, free_address, quickstart};

const READY: Duration = Duration::from_secs(20);
/// Switches the `ext_proc` filter off for the route.
const DISABLED: &str = "- match: { prefix: \"/\" }
                typed_per_filter_config: { envoy.filters.http.ext_proc: { \"@type\": \
                        type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute, disabled: true } }";

/// Who answers `ext_proc` in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Nobody,
    Noop,
    Fairlead,
}

/// One thing to measure: a body mode and a service, with an Envoy of its own.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) mode: &'static str,
    service: Service,
    envoy: Child,
    address: SocketAddr,
}

impl Case {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn is_fairlead(&self) -> bool {
        self.service == Service::Fairlead
    }

    /// The strategies to measure here: one nameless where nobody routes.
    pub(super) fn strategies<'a>(&self, all: &'a [String]) -> Vec<&'a str> {
        match self.service {
            Service::Nobody => vec!["no ext_proc"],
            Service::Noop => vec!["no-op"],
            Service::Fairlead => all.iter().map(String::as_str).collect(),
        }
    }
}

/// CPU time used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) envoy: Duration,
    pub(super) own: Duration,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Rig {
    // Dropped in this order: Envoys first.
    cases: Vec<Case>,
    fairlead: Child,
    noop: Child,
    _engines: Child,
    _folder: Folder,
}

impl Rig {
    pub(super) async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let folder = Folder::temporary()?;
        let own = std::env::current_exe().context("path of this program")?;
        let engines = start_engines(&own, args.endpoints, &folder).await?;
        let fairlead = start_fairlead(args.fairlead.as_deref(), &own, &folder, "").await?;
        let socket = format!("unix:{}", folder.join("noop.sock").display());
        let noop = Child::spawn("no-op", &own, &["noop", "--listen", &socket], &folder.join("noop.log"))?;
        let envoy = find_envoy(args.envoy.as_deref())?;
        let mut cases = Vec::new();
        for (mode, file) in [("BUFFERED", "quickstart.yaml"), ("duplex", "duplex.yaml")] {
            for service in [Service::Nobody, Service::Noop, Service::Fairlead] {
                if mode == "BUFFERED" || service != Service::Nobody {
                    let text = fs::read_to_string(args.envoy_configs.join(file))
                        .with_context(|| format!("Envoy configuration '{file}'"))?;
                    cases.push(start_case(&envoy, &text, mode, service, &folder).await?);
                }
            }
        }
        Ok(Self { cases, fairlead, noop, _engines: engines, _folder: folder })
    }

    pub(super) fn cases(&self) -> &[Case] {
        &self.cases
    }

    pub(super) fn cpu(&self, case: &Case) -> anyhow::Result<Cpu> {
        let own = match case.service {
            Service::Nobody => Duration::ZERO,
            Service::Noop => cpu_of(self.noop.id())?,
            Service::Fairlead => cpu_of(self.fairlead.id())?,
        };
        Ok(Cpu { envoy: cpu_of(case.envoy.id())?, own })
    }

    /// The share of a core that Fairlead uses without any request: reading the engines' metrics.
    pub(super) async fn idle_cpu_share(&self) -> f64 {
        let window = Duration::from_secs(3);
        let before = cpu_of(self.fairlead.id()).unwrap_or_default();
        tokio::time::sleep(window).await;
        let after = cpu_of(self.fairlead.id()).unwrap_or_default();
        after.saturating_sub(before).as_secs_f64() / window.as_secs_f64()
    }
}

async fn start_engines(own: &Path, count: usize, folder: &Folder) -> anyhow::Result<Child> {
    let mut arguments = vec!["engine".to_owned(), "--fast".to_owned()];
    let mut endpoints = String::new();
    let mut last = None;
    for _ in 0..count {
        let address = free_address()?;
        arguments.extend(["--address".to_owned(), address.to_string()]);
        writeln!(endpoints, "- {{ address: \"{address}\", models: [llama-3-8b] }}")?;
        last = Some(address);
    }
    folder.write("endpoints.yaml", &endpoints)?;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut engines = Child::spawn("engines", own, &arguments, &folder.join("engines.log"))?;
    let last = last.context("at least one endpoint")?;
    engines.wait_ready(&format!("http://{last}/health"), READY).await?;
    Ok(engines)
}

/// Starts Fairlead on the folder's endpoints, with more of its configuration in `extra`.
pub(crate) async fn start_fairlead(
    binary: Option<&Path>,
    own: &Path,
    folder: &Folder,
    extra: &str,
) -> anyhow::Result<Child> {
    let binary = binary.map_or_else(|| own.with_file_name("fairlead"), Path::to_owned);
    let (admin, run) = (free_address()?, folder.path().display());
    let config = format!(
        "listen: {{ ext_proc: \"unix:{run}/fairlead.sock\", admin: \"{admin}\" }}\n\
         discovery: {{ file: {{ path: \"{run}/endpoints.yaml\" }} }}\n\
         envoy: {{ eds_file: \"{run}/eds/endpoints.yaml\" }}\n{extra}"
    );
    let path = folder.write("fairlead.yaml", &config)?;
    let path = path.to_str().context("the folder's path is not text")?;
    let mut child = Child::spawn("fairlead", &binary, &["serve", "--config", path], &folder.join("fairlead.log"))?;
    child.wait_ready(&format!("http://{admin}/readyz"), READY).await?;
    Ok(child)
}

/// `http://ip:port` of the admin page of the Fairlead that was started in that folder.
pub(crate) fn admin_url(folder: &Folder) -> anyhow::Result<String> {
    let config = fs::read_to_string(folder.join("fairlead.yaml"))?;
    let address = config.split("admin: \"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(format!("http://{}", address.context("admin address")?))
}

async fn start_case(
    envoy: &Path,
    text: &str,
    mode: &'static str,
    service: Service,
    folder: &Folder,
) -> anyhow::Result<Case> {
    let (socket, name) = match service {
        Service::Nobody => ("noop.sock", "nobody"),
        Service::Noop => ("noop.sock", "noop"),
        Service::Fairlead => ("fairlead.sock", "fairlead"),
    };
    let (child, address) =
        start_envoy(envoy, text, service == Service::Nobody, socket, folder, &format!("{mode}-{name}")).await?;
    Ok(Case { mode, service, envoy: child, address })
}

/// Starts Envoy on a configuration of the repository, talking to `socket` of the folder.
pub(crate) async fn start_envoy(
    envoy: &Path,
    text: &str,
    is_disabled: bool,
    socket: &str,
    folder: &Folder,
    name: &str,
) -> anyhow::Result<(Child, SocketAddr)> {
    let (address, admin) = (free_address()?, free_address()?);
    let mut text = quickstart(text, folder.path(), address, admin)?.replace("ext_proc.sock", socket);
    if is_disabled {
        text = text.replace("- match: { prefix: \"/\" }", DISABLED);
    }
    let config: PathBuf = folder.write(&format!("envoy-{name}.yaml"), &text)?;
    let config = config.to_str().context("the folder's path is not text")?;
    let arguments = ["-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"];
    let mut child = Child::spawn("Envoy", envoy, &arguments, &folder.join(&format!("envoy-{name}.log")))?;
    child.wait_ready(&format!("http://{admin}/ready"), READY).await?;
    Ok((child, address))
}

/// CPU time of all threads of a process.
pub(crate) fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0u64;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("CPU time is read from /proc, on Linux")? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process, in KiB.
pub(crate) fn memory_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
