//! `fairlead-lab demo`: engines, Fairlead and Envoy on one machine, with a first burst of requests.

mod burst;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::EngineOptions;
use crate::harness::{ExtProc, Stack, StackBuilder, get, wait_until};

const ENGINES: usize = 3;
const MODEL: &str = "llama-3-8b";
/// Fairlead's configuration; the harness fills the placeholders.
const FAIRLEAD_YAML: &str = "\
listen: { ext_proc: \"unix:{ext_proc}\", admin: \"{admin}\" }
routing: { algorithm: least-request }
destination: { list: 3 }
discovery:
  file: { path: \"{endpoints}\" }
envoy: { eds_file: \"{eds}\" }
";
/// Longest wait for Fairlead's in-flight counts to be back at 0 after the burst.
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);

/// All of it together on one machine: engines, Fairlead, Envoy and a first burst of requests.
///
/// Starts three simulated engines (or takes yours with --engines), Fairlead and Envoy, sends a burst while one engine
/// refuses connections for a moment, shows who served what, and stays until Ctrl-C. Logs and configuration are in --run-dir.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for configuration, sockets and logs.
    #[arg(long, default_value = "run/demo", value_name = "FOLDER")]
    run_dir: PathBuf,
    /// Real engines to use instead of simulated ones, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    engines: Vec<String>,
    /// The fairlead binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    fairlead: Option<PathBuf>,
    /// The Envoy binary [default: .envoy/envoy].
    #[arg(long, env = "ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Envoy configuration to start from; its two ports (10000, 9901) and its paths in run/ are replaced by this run's own.
    #[arg(long, default_value = "envoy/quickstart.yaml", value_name = "FILE")]
    envoy_config: PathBuf,
    /// Requests of the first burst.
    #[arg(long, default_value_t = 300, value_name = "N")]
    requests: u64,
    /// End after the burst; exit status 0 only if every request was answered and no endpoint has one in flight any more.
    #[arg(long)]
    once: bool,
}

impl DemoArgs {
    /// Runs the demo.
    ///
    /// # Errors
    /// Something cannot start; with `--once` also when a request failed or is still counted as in flight.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let end = wait_for_end();
        tokio::pin!(end);
        // A signal at any time drops what runs, and with it every program.
        let (stack, model) = tokio::select! {
            started = Box::pin(self.start()) => started?,
            ended = &mut end => return self.interrupted(ended),
        };
        let outcome = tokio::select! {
            outcome = Box::pin(self.first_burst(&stack, &model, out)) => outcome,
            ended = &mut end => return self.interrupted(ended),
        };
        let outcome = if self.once {
            outcome
        } else {
            if let Err(error) = outcome {
                writeln!(out, "The burst did not go well: {error:#}")?;
            }
            say_where(&stack, &model, out)?;
            end.await
        };
        stack.stop().await?;
        outcome
    }

    /// Without `--once` a signal is the normal end, also an early one.
    fn interrupted(&self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        ensure!(!self.once, "interrupted before the burst was over");
        ended
    }

    async fn first_burst(&self, stack: &Stack, model: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let report = burst::run(stack, self.requests, model, out).await?;
        settle(stack).await?;
        writeln!(out, "Fairlead counts no request in flight any more.")?;
        ensure!(report.ok == self.requests, "{} of {} requests were answered", report.ok, self.requests);
        Ok(())
    }

    async fn start(&self) -> anyhow::Result<(Stack, String)> {
        let binary = match &self.fairlead {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("own path")?.with_file_name("fairlead"),
        };
        let text = fs::read_to_string(&self.envoy_config);
        let text =
            text.with_context(|| format!("Envoy configuration '{}' (--envoy-config)", self.envoy_config.display()))?;
        let ext_proc = ExtProc::Fairlead { binary, config: FAIRLEAD_YAML.to_owned() };
        let builder = StackBuilder::quickstart(ext_proc, text).envoy_binary(self.envoy.clone()).folder(&self.run_dir);
        remove_stale(&self.run_dir)?;
        if self.engines.is_empty() {
            let stack = builder.engines(ENGINES, &EngineOptions::default()).start().await?;
            return Ok((stack, MODEL.to_owned()));
        }
        let (endpoints, model) = describe(&self.engines).await?;
        Ok((builder.endpoints(endpoints).start().await?, model))
    }
}

/// A socket that an earlier run left behind would look like a running service.
fn remove_stale(run: &Path) -> anyhow::Result<()> {
    for name in ["ext_proc.sock", "eds/endpoints.yaml"] {
        let path = run.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove '{}'", path.display()))?;
        }
    }
    Ok(())
}

/// The discovery file for engines that run already, and the first model that the first one serves.
async fn describe(urls: &[String]) -> anyhow::Result<(String, String)> {
    use std::fmt::Write;

    let mut yaml = String::new();
    let mut first = None;
    for url in urls {
        let url = url.trim_end_matches('/');
        let address: SocketAddr = url
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("an engine is named as http://ip:port, not '{url}'"))?;
        let (status, text) = get(&format!("{url}/v1/models")).await.with_context(|| format!("engine '{url}'"))?;
        ensure!(status == 200, "engine '{url}' answers {status} at /v1/models");
        let models = model_names(&text).with_context(|| format!("models of engine '{url}'"))?;
        let list = serde_json::to_string(&models)?;
        writeln!(yaml, "- {{ address: \"{address}\", models: {list}, engine: vllm }}")?;
        first = first.or_else(|| models.first().cloned());
    }
    Ok((yaml, first.context("the engines serve no model")?))
}

fn model_names(text: &str) -> anyhow::Result<Vec<String>> {
    let page: Value = serde_json::from_str(text)?;
    let cards = page.get("data").and_then(Value::as_array).context("no list of models")?;
    Ok(cards.iter().filter_map(|card| card.get("id")?.as_str().map(str::to_owned)).collect())
}

/// Waits until Fairlead shows 0 in flight for every endpoint.
async fn settle(stack: &Stack) -> anyhow::Result<()> {
    let what = "every 'in_flight' of /api/endpoints at 0";
    wait_until(what, SETTLE_DEADLINE, || async {
        matches!(stack.admin_get("/api/endpoints").await, Ok((200, text)) if is_settled(&text))
    })
    .await
}

fn is_settled(text: &str) -> bool {
    let Ok(page) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    let endpoints = page.get("endpoints").and_then(Value::as_array);
    endpoints.is_some_and(|all| {
        !all.is_empty() && all.iter().all(|one| one.get("in_flight").and_then(Value::as_u64) == Some(0))
    })
}

fn say_where(stack: &Stack, model: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let (gateway, admin) = (stack.envoy_url(), stack.admin_url());
    writeln!(out, "\ngateway   {gateway}\nFairlead  {admin}\nEnvoy     {}", stack.envoy_admin_url())?;
    for engine in stack.engines() {
        writeln!(out, "{}  {}", engine.name(), engine.url())?;
    }
    writeln!(out, "logs      {}\n\nTry:", stack.folder().path().display())?;
    let body =
        format!("{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}");
    writeln!(out, "  curl -iN {gateway}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")?;
    writeln!(out, "  curl -s {admin}/api/endpoints")?;
    match stack.engines().first() {
        Some(engine) => {
            writeln!(out, "  curl -d '{{\"fault\":\"refuse\",\"for_ms\":5000}}' {}/_lab/fault", engine.url())?;
        }
        None => writeln!(out, "  curl -s {admin}/metrics")?,
    }
    writeln!(out, "\nCtrl-C ends it.")?;
    out.flush()?;
    Ok(())
}

async fn wait_for_end() -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.context("waiting for Ctrl-C"),
        received = terminated.recv() => match received {
            Some(()) => Ok(()),
            None => bail!("no signal can arrive"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_everywhere_is_settled() {
        assert!(is_settled(r#"{"endpoints":[{"address":"a","in_flight":0},{"in_flight":0}]}"#));
        for page in [
            r#"{"endpoints":[{"in_flight":0},{"in_flight":1}]}"#,
            r#"{"endpoints":[]}"#,
            r#"{"endpoints":[{}]}"#,
            "",
            "{}",
        ] {
            assert!(!is_settled(page), "{page}");
        }
    }

    #[test]
    fn model_names_are_read_from_the_models_page() {
        assert_eq!(model_names(r#"{"data":[{"id":"a"},{"id":"b"}]}"#).unwrap(), ["a", "b"]);
        assert!(model_names("{}").is_err());
    }
}
