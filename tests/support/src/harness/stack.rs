//! The stack: engines, `ext_proc` service, Envoy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use tokio_util::task::AbortOnDropHandle;

use super::launch::{Ports, eds_yaml, endpoints_yaml, fill, start_envoy, start_fairlead};
use super::{Child, Folder, config, free_address, get};
use crate::engine::{Engine, EngineHandle, EngineOptions};
use crate::noop::{Listen, Noop};

/// Who answers Envoy's `ext_proc` calls.
#[derive(Debug, Clone)]
pub enum ExtProc {
    /// The `fairlead` program.
    Fairlead {
        /// Path of the binary.
        binary: PathBuf,
        /// Text of its configuration, with the placeholders of [`StackBuilder`].
        config: String,
    },
    /// The no-op service, in this process.
    Noop {
        /// Sets the destination headers to this address.
        target: Option<SocketAddr>,
    },
}

#[derive(Debug, Clone)]
enum EnvoyConfig {
    Placeholders(String),
    Quickstart(String),
}

/// What a stack is made of.
///
/// Configuration texts may contain `{run}` (the folder), `{ext_proc}` (path of the unix socket), `{admin}` (Fairlead's admin
/// `ip:port`), `{endpoints}` (path of the discovery file), `{eds}` (path of the EDS file), `{eds_folder}`, `{access_log}`,
/// `{envoy_port}`, `{envoy_admin_port}`, and `{engine0}`, `{engine1}`… (`ip:port`).
#[derive(Debug)]
pub struct StackBuilder {
    engines: Vec<EngineOptions>,
    endpoints: Option<String>,
    eds_service: Option<String>,
    ext_proc: ExtProc,
    environment: Vec<(String, String)>,
    envoy: EnvoyConfig,
    envoy_binary: Option<PathBuf>,
    folder: Option<PathBuf>,
    deadline: Duration,
}

/// A running stack; dropping it ends every program of it.
#[derive(Debug)]
pub struct Stack {
    // Dropped in this order: Envoy first, so that nothing is sent to what has ended.
    envoy: Child,
    fairlead: Option<Child>,
    _noop: Option<AbortOnDropHandle<anyhow::Result<()>>>,
    engines: Vec<EngineHandle>,
    ext_proc: ExtProc,
    environment: Vec<(String, String)>,
    ports: Ports,
    deadline: Duration,
    folder: Folder,
}

impl StackBuilder {
    /// A stack with an Envoy configuration that has placeholders in it.
    pub fn new(ext_proc: ExtProc, envoy_config: impl Into<String>) -> Self {
        Self {
            engines: Vec::new(),
            endpoints: None,
            eds_service: None,
            ext_proc,
            environment: Vec::new(),
            envoy: EnvoyConfig::Placeholders(envoy_config.into()),
            envoy_binary: None,
            folder: None,
            deadline: Duration::from_secs(20),
        }
    }

    /// A stack with the quickstart's Envoy configuration (see [`super::quickstart`]).
    pub fn quickstart(ext_proc: ExtProc, envoy_config: impl Into<String>) -> Self {
        Self { envoy: EnvoyConfig::Quickstart(envoy_config.into()), ..Self::new(ext_proc, "") }
    }

    /// Adds `count` engines like `options`, named `engine-0`, `engine-1`…
    #[must_use]
    pub fn engines(mut self, count: usize, options: &EngineOptions) -> Self {
        for _ in 0..count {
            let name = format!("engine-{}", self.engines.len());
            self.engines.push(EngineOptions { name, ..options.clone() });
        }
        self
    }

    /// Text of the discovery file at the start, instead of a list of the stack's engines.
    #[must_use]
    pub fn endpoints(mut self, yaml: impl Into<String>) -> Self {
        self.endpoints = Some(yaml.into());
        self
    }

    /// Sets a variable of Fairlead's environment.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Writes an EDS file with all engines for this cluster before Envoy starts (nobody else does with the no-op service).
    #[must_use]
    pub fn eds_service(mut self, name: impl Into<String>) -> Self {
        self.eds_service = Some(name.into());
        self
    }

    /// Envoy's binary, instead of `ENVOY` or `.envoy/envoy`.
    #[must_use]
    pub fn envoy_binary(mut self, path: Option<PathBuf>) -> Self {
        self.envoy_binary = path;
        self
    }

    /// A folder that stays, instead of a temporary one.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Longest wait for each program to become ready.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A program is missing, ends, or is not ready in time; the error shows the end of its log.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let envoy_binary = config::find_envoy(self.envoy_binary.as_deref())?;
        let folder = self.folder.as_deref().map_or_else(Folder::temporary, Folder::lasting)?;
        let ports = Ports { admin: free_address()?, envoy: free_address()?, envoy_admin: free_address()? };
        let mut engines = Vec::new();
        for options in &self.engines {
            engines.push(Engine::start(options.clone()).await?);
        }
        folder.write(
            "endpoints.yaml",
            &self.endpoints.clone().unwrap_or_else(|| endpoints_yaml(&self.engines, &engines)),
        )?;
        if let Some(service) = &self.eds_service {
            folder.write("eds/endpoints.yaml", &eds_yaml(service, &engines))?;
        }
        let (fairlead, noop) = match &self.ext_proc {
            ExtProc::Fairlead { binary, config } => {
                folder.write("fairlead.yaml", &fill(config, &folder, ports, &engines))?;
                let started = start_fairlead(binary, &self.environment, &folder, ports, self.deadline);
                (Some(started.await?), None)
            }
            ExtProc::Noop { target } => {
                let bound = Noop::bind(&Listen::Unix(folder.join("ext_proc.sock")), *target).await?;
                (None, Some(AbortOnDropHandle::new(tokio_util::task::TaskTracker::new().spawn(bound.serve()))))
            }
        };
        let text = match &self.envoy {
            EnvoyConfig::Placeholders(text) => fill(text, &folder, ports, &engines),
            EnvoyConfig::Quickstart(text) => config::quickstart(text, folder.path(), ports.envoy, ports.envoy_admin)?,
        };
        let envoy = start_envoy(&envoy_binary, &text, &folder, ports, self.deadline).await?;
        let Self { ext_proc, environment, deadline, .. } = self;
        Ok(Stack { envoy, fairlead, _noop: noop, engines, ext_proc, environment, ports, deadline, folder })
    }
}

impl Stack {
    /// `http://ip:port` of Envoy's listener.
    pub fn envoy_url(&self) -> String {
        format!("http://{}", self.ports.envoy)
    }

    /// `http://ip:port` of Envoy's admin page.
    pub fn envoy_admin_url(&self) -> String {
        format!("http://{}", self.ports.envoy_admin)
    }

    /// `http://ip:port` of Fairlead's admin page.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.ports.admin)
    }

    /// Status and text of a page of Fairlead's admin port.
    ///
    /// # Errors
    /// No answer.
    pub async fn admin_get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        get(&format!("{}{path}", self.admin_url())).await
    }

    /// The engine with that number.
    ///
    /// # Errors
    /// The stack has fewer.
    pub fn engine(&self, index: usize) -> anyhow::Result<&EngineHandle> {
        self.engines.get(index).with_context(|| format!("the stack has no engine {index}"))
    }

    /// All engines.
    pub fn engines(&self) -> &[EngineHandle] {
        &self.engines
    }

    /// The folder with configuration, sockets and logs.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where Envoy's access log goes, if its configuration uses `{access_log}`.
    pub fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    /// Process ids of Envoy and, if it runs, Fairlead.
    pub fn process_ids(&self) -> (u32, Option<u32>) {
        (self.envoy.id(), self.fairlead.as_ref().map(Child::id))
    }

    /// Replaces the discovery file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_endpoints(&self, yaml: &str) -> anyhow::Result<()> {
        self.folder.write("endpoints.yaml", yaml).map(drop)
    }

    /// Ends Fairlead with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_fairlead(&mut self) -> anyhow::Result<()> {
        self.fairlead.take().context("fairlead does not run")?.kill()
    }

    /// Ends Fairlead with SIGTERM and waits for it.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub async fn terminate_fairlead(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.fairlead.take().context("fairlead does not run")?.terminate(deadline).await
    }

    /// Starts Fairlead (again) and waits until it is ready; one that runs is killed first.
    ///
    /// # Errors
    /// As at the start of the stack.
    pub async fn restart_fairlead(&mut self) -> anyhow::Result<()> {
        let ExtProc::Fairlead { binary, .. } = &self.ext_proc else {
            anyhow::bail!("the stack runs the no-op service")
        };
        if let Some(running) = self.fairlead.take() {
            running.kill()?;
        }
        let started = start_fairlead(binary, &self.environment, &self.folder, self.ports, self.deadline);
        self.fairlead = Some(started.await?);
        Ok(())
    }

    /// Ends everything in order: Envoy, Fairlead, engines.
    ///
    /// # Errors
    /// A program does not end in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.envoy.terminate(self.deadline).await?;
        if let Some(fairlead) = self.fairlead {
            fairlead.terminate(self.deadline).await?;
        }
        for engine in self.engines {
            engine.stop().await;
        }
        Ok(())
    }
}
