//! The programs that a benchmark runs: engines, no-op service, Fairlead, and an Envoy for each case.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::BenchArgs;
use super::report::TLS;
use super::way::Way;
use crate::harness::{Child, Folder, find_envoy, free_address, quickstart};

const READY: Duration = Duration::from_secs(20);
/// Fairlead's unix socket in the run folder.
pub(crate) const FAIRLEAD: &str = "fairlead.sock";
const NOOP: &str = "noop.sock";

/// Who answers `ext_proc` in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Nobody,
    Noop,
    Fairlead,
    /// The same process, over TLS.
    FairleadTls,
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
        matches!(self.service, Service::Fairlead | Service::FairleadTls)
    }

    /// The strategies to measure here: one nameless where nobody routes.
    pub(super) fn strategies<'a>(&self, all: &'a [String]) -> Vec<&'a str> {
        match self.service {
            Service::Nobody => vec!["no ext_proc"],
            Service::Noop => vec!["no-op"],
            Service::Fairlead | Service::FairleadTls => all.iter().map(String::as_str).collect(),
        }
    }

    /// What a row of the table is called.
    pub(super) fn label(&self, strategy: &str) -> String {
        match self.service {
            Service::FairleadTls => format!("{strategy}{TLS}"),
            _ => strategy.to_owned(),
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
        let ports = if args.tls { Some((free_address()?, free_address()?)) } else { None };
        let port = ports.map(|(_, fairlead)| fairlead.to_string());
        let flags = port.as_ref().map(|port| ["--listen-ext-proc", port, "--listen-tls", "accepted"]);
        let flags = flags.as_ref().map_or(&[][..], |flags| &flags[..]);
        let fairlead = start_fairlead(args.fairlead.as_deref(), &own, &folder, "", flags).await?;
        let listen =
            ports.map_or_else(|| format!("unix:{}", folder.join(NOOP).display()), |(noop, _)| noop.to_string());
        let noop = Child::spawn("no-op", &own, &["noop", "--listen", &listen], &folder.join("noop.log"))?;
        let envoy = find_envoy(args.envoy.as_deref())?;
        let mut cases = Vec::new();
        for (mode, file) in [("BUFFERED", "quickstart.yaml"), ("duplex", "duplex.yaml")] {
            let text = fs::read_to_string(args.envoy_configs.join(file))
                .with_context(|| format!("Envoy configuration '{file}'"))?;
            for service in [Service::Nobody, Service::Noop, Service::Fairlead, Service::FairleadTls] {
                let way = match (service, ports) {
                    (Service::Nobody, _) if mode == "BUFFERED" => Way::Nobody,
                    (Service::Nobody, _) | (Service::FairleadTls, None) => continue,
                    (Service::Noop, None) => Way::Unix(NOOP),
                    (Service::Noop, Some((noop, _))) => Way::Tcp(noop),
                    (Service::Fairlead, None) => Way::Unix(FAIRLEAD),
                    (Service::Fairlead, Some((_, fairlead))) => Way::Tcp(fairlead),
                    (Service::FairleadTls, Some((_, fairlead))) => Way::Tls(fairlead),
                };
                let name = format!("{mode}-{service:?}");
                let (envoy, address) = start_envoy(&envoy, &text, way, &folder, &name).await?;
                cases.push(Case { mode, service, envoy, address });
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
            Service::Fairlead | Service::FairleadTls => cpu_of(self.fairlead.id())?,
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

/// Starts Fairlead on the folder's endpoints, with more of its configuration in `extra`, overruled by `flags`.
pub(crate) async fn start_fairlead(
    binary: Option<&Path>,
    own: &Path,
    folder: &Folder,
    extra: &str,
    flags: &[&str],
) -> anyhow::Result<Child> {
    let binary = binary.map_or_else(|| own.with_file_name("fairlead"), Path::to_owned);
    let (admin, run) = (free_address()?, folder.path().display());
    let config = format!(
        "listen: {{ ext_proc: \"unix:{run}/{FAIRLEAD}\", admin: \"{admin}\" }}\n\
         discovery: {{ file: {{ path: \"{run}/endpoints.yaml\" }} }}\n\
         envoy: {{ eds_file: \"{run}/eds/endpoints.yaml\" }}\n{extra}"
    );
    let path = folder.write("fairlead.yaml", &config)?;
    let path = path.to_str().context("the folder's path is not text")?;
    let arguments = [&["serve", "--config", path], flags].concat();
    let mut child = Child::spawn("fairlead", &binary, &arguments, &folder.join("fairlead.log"))?;
    child.wait_ready(&format!("http://{admin}/readyz"), READY).await?;
    Ok(child)
}

/// `http://ip:port` of the admin page of the Fairlead that was started in that folder.
pub(crate) fn admin_url(folder: &Folder) -> anyhow::Result<String> {
    let config = fs::read_to_string(folder.join("fairlead.yaml"))?;
    let address = config.split("admin: \"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(format!("http://{}", address.context("admin address")?))
}

/// Starts Envoy on a configuration of the repository.
pub(crate) async fn start_envoy(
    envoy: &Path,
    text: &str,
    way: Way,
    folder: &Folder,
    name: &str,
) -> anyhow::Result<(Child, SocketAddr)> {
    let (address, admin) = (free_address()?, free_address()?);
    let text = way.fill(&quickstart(text, folder.path(), address, admin)?, folder.path())?;
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
