//! A program that ends with its handle.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::wait_until;

/// Time between the polite and the hard end of a program whose handle is dropped.
const DROP_GRACE: Duration = Duration::from_millis(500);
const DROP_POLL: Duration = Duration::from_millis(10);
/// Lines of a program's log that an error shows.
const LOG_TAIL_LINES: usize = 15;

/// A running program whose output goes to a log file.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `program` with its output appended to `log`. It stays in our process group, so that Ctrl-C in a terminal
    /// ends it even when we are stopped before we can.
    ///
    /// # Errors
    /// The program is missing or cannot run.
    pub fn spawn(name: &str, program: &Path, arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        Self::spawn_with(&[], name, program, arguments, log)
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_with(
        environment: &[(String, String)],
        name: &str,
        program: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output =
            File::options().create(true).append(true).open(log).with_context(|| format!("log '{}'", log.display()))?;
        let errors = output.try_clone().context("log file")?;
        let process = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name} ('{}')", program.display()))?;
        Ok(Self { name: name.to_owned(), process, log: log.to_owned() })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.try_wait().with_context(|| format!("state of {}", self.name))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub async fn terminate(mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal_term();
        let what = format!("end of {} after SIGTERM", self.name);
        wait_until(&what, deadline, || std::future::ready(!matches!(self.process.try_wait(), Ok(None)))).await?;
        self.process.wait().context(what)
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until `url` answers 200.
    ///
    /// # Errors
    /// The program ends before, or the time is up; the error shows the end of its log.
    pub async fn wait_ready(&mut self, url: &str, deadline: Duration) -> anyhow::Result<()> {
        let name = self.name.clone();
        let mut ended = None;
        let waited = wait_until(&format!("{name} ready at '{url}'"), deadline, || {
            ended = self.process.try_wait().ok().flatten();
            let over = ended.is_some();
            async move { over || matches!(super::get(url).await, Ok((200, _))) }
        })
        .await;
        match ended {
            Some(status) => anyhow::bail!("{name} ended with {status}{}", self.log_tail()),
            None => waited.with_context(|| format!("{name} is not ready{}", self.log_tail())),
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default();
        format!("; end of '{}':\n{}", self.log.display(), tail.join("\n"))
    }

    /// The standard library only knows SIGKILL; the shell's own `kill` is on every system.
    fn signal_term(&self) {
        let command = format!("kill -TERM {}", self.process.id());
        // A failure means that the process is gone.
        Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status().ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let ended = |process: &mut std::process::Child| !matches!(process.try_wait(), Ok(None));
        if ended(&mut self.process) {
            return;
        }
        self.signal_term();
        let until = Instant::now() + DROP_GRACE;
        while !ended(&mut self.process) && Instant::now() < until {
            std::thread::park_timeout(DROP_POLL);
        }
        // Both fail only for a process that has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Folder;

    fn shell(folder: &Folder, script: &str) -> Child {
        Child::spawn("shell", Path::new("/bin/sh"), &["-c", script], &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_program_that_ends_too_early_is_reported_with_its_log() {
        let folder = Folder::temporary().unwrap();
        let mut child = shell(&folder, "echo port is busy; exit 3");
        let error = child.wait_ready("http://127.0.0.1:1/", Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("port is busy"), "{error}");
    }

    #[tokio::test]
    async fn terminating_lets_a_program_end_in_its_own_way() {
        let folder = Folder::temporary().unwrap();
        let ready = folder.join("ready");
        let script = format!("trap 'exit 7' TERM; touch '{}'; while :; do sleep 0.01; done", ready.display());
        let child = shell(&folder, &script);
        let trapped = || std::future::ready(ready.exists());
        wait_until("trap", Duration::from_secs(5), trapped).await.unwrap();
        assert_eq!(child.terminate(Duration::from_secs(5)).await.unwrap().code(), Some(7));
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let folder = Folder::temporary().unwrap();
        let child = shell(&folder, "exec sleep 600");
        let id = child.id();
        drop(child);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
