//! `fairlead-lab compare`: every strategy in turn against the same simulated engines, through Fairlead and Envoy.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::bench::rig::{FAIRLEAD, admin_url, start_envoy, start_fairlead};
use crate::bench::way::Way;
use crate::harness::{Child, Folder, find_envoy, get, wait_until};
use crate::load::{LoadOptions, Pace, Report, Spread, Table, run as load};

const READY: Duration = Duration::from_secs(20);

/// Every strategy in turn against the same simulated engines, some of them slow, through Fairlead and Envoy.
///
/// For each strategy engines, Fairlead and Envoy start afresh, so that no cache is warm from the one before; arrivals and
/// prompts are the same by --seed. Times to the first token are compared with the first strategy's.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The fairlead binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    fairlead: Option<PathBuf>,
    /// The Envoy binary [default: .envoy/envoy].
    #[arg(long, env = "ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Envoy configuration to start from.
    #[arg(long, default_value = "envoy/quickstart.yaml", value_name = "FILE")]
    envoy_config: PathBuf,
    /// Strategies [default: random first, then all others that Fairlead lists].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    strategies: Vec<String>,
    /// Simulated engines.
    #[arg(long, default_value_t = 8, value_name = "N")]
    engines: usize,
    /// How many of them are slow.
    #[arg(long, default_value_t = 2, value_name = "N")]
    slow: usize,
    /// Speed of the slow ones.
    #[arg(long, default_value_t = 0.5, value_name = "FACTOR")]
    slow_speed: f64,
    /// Requests per second.
    #[arg(long, default_value_t = 40.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Length of each run in seconds.
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    duration: f64,
    /// Bytes of each prompt.
    #[arg(long, default_value_t = 4000, value_name = "BYTES")]
    prompt_bytes: usize,
    /// Leading bytes that the prompts of a group have in common.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    shared_prefix_bytes: usize,
    /// Number of different shared prefixes.
    #[arg(long, default_value_t = 1, value_name = "N")]
    groups: usize,
    /// Share of the requests with a prompt of --long-prompt-bytes.
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    long_share: f64,
    /// Bytes of those.
    #[arg(long, default_value_t = 100_000, value_name = "BYTES")]
    long_prompt_bytes: usize,
    /// Limit of the answers' length.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    max_tokens: u32,
    /// Conversations that keep the x-session-id that they are given.
    #[arg(long, default_value_t = 0, value_name = "N")]
    sessions: usize,
    /// Adapters that requests name; each engine holds two at once.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    loras: Vec<String>,
    /// More of Fairlead's configuration, as YAML; may be given several times.
    #[arg(long, value_name = "YAML")]
    config: Vec<String>,
    /// Seed of prompts, arrivals and engines.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl CompareArgs {
    /// Runs all strategies and writes the table.
    ///
    /// # Errors
    /// A program cannot start.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let strategies = if self.strategies.is_empty() { self.listed().await? } else { self.strategies.clone() };
        let mut table = Table::default();
        for strategy in &strategies {
            eprintln!("{strategy}");
            let mut report = Box::pin(self.turn(strategy)).await?;
            report.spread = Spread::over(self.engines, report.endpoints.values().copied());
            for (reason, count) in &report.failures {
                eprintln!("  failed: {reason} ({count})");
            }
            table.add(strategy, report);
        }
        table.write(self.json, out)
    }

    async fn turn(&self, strategy: &str) -> anyhow::Result<Report> {
        let (folder, own) = (Folder::temporary()?, std::env::current_exe().context("path of this program")?);
        let _engines = self.start_engines(&folder).await?;
        let _fairlead = start_fairlead(self.fairlead.as_deref(), &own, &folder, &self.config.join("\n"), &[]).await?;
        let text = std::fs::read_to_string(&self.envoy_config)
            .with_context(|| format!("Envoy configuration '{}'", self.envoy_config.display()))?;
        let envoy = find_envoy(self.envoy.as_deref())?;
        let (_envoy, address) = start_envoy(&envoy, &text, Way::Unix(FAIRLEAD), &folder, "compare").await?;
        let mut models = vec!["llama-3-8b".to_owned()];
        models.splice(..usize::from(!self.loras.is_empty()), self.loras.iter().cloned());
        let options = LoadOptions {
            url: format!("http://{address}"),
            pace: Pace::Open { rate: self.rate, in_flight_max: 4096 },
            duration: Some(Duration::from_secs_f64(self.duration)),
            model: models.remove(0),
            other_models: models,
            stream_share: 1.0,
            tokens_max: Some(self.max_tokens),
            prompt_bytes: self.prompt_bytes,
            shared_prefix_bytes: self.shared_prefix_bytes,
            groups: self.groups,
            long_share: self.long_share,
            long_prompt_bytes: self.long_prompt_bytes,
            sessions: self.sessions,
            seed: self.seed,
            ..LoadOptions::default()
        };
        load(options.strategy(strategy)?).await
    }

    async fn start_engines(&self, folder: &Folder) -> anyhow::Result<Child> {
        let own = std::env::current_exe().context("path of this program")?;
        let list = folder.join("endpoints.yaml");
        let path = list.to_str().context("the folder's path is not text")?;
        let numbers =
            [self.engines.to_string(), self.slow.to_string(), self.slow_speed.to_string(), self.seed.to_string()];
        let [engines, slow, slow_speed, seed] = &numbers;
        let mut arguments = vec![
            "engine",
            "--engines",
            engines,
            "--slow",
            slow,
            "--slow-speed",
            slow_speed,
            "--seed",
            seed,
            "--write",
            path,
        ];
        for lora in &self.loras {
            arguments.extend(["--lora", lora]);
        }
        if !self.loras.is_empty() {
            arguments.extend(["--max-loras", "2"]);
        }
        let engines = Child::spawn("engines", &own, &arguments, &folder.join("engines.log"))?;
        wait_until("the engines' list", READY, || std::future::ready(list.exists())).await?;
        Ok(engines)
    }

    /// The strategies that Fairlead lists, `random` first.
    async fn listed(&self) -> anyhow::Result<Vec<String>> {
        let (folder, own) = (Folder::temporary()?, std::env::current_exe().context("path of this program")?);
        folder.write("endpoints.yaml", "[]\n")?;
        let _fairlead = start_fairlead(self.fairlead.as_deref(), &own, &folder, &self.config.join("\n"), &[]).await?;
        let (_, page) = get(&format!("{}/api/strategies", admin_url(&folder)?)).await?;
        strategy_names(&page)
    }
}

fn strategy_names(page: &str) -> anyhow::Result<Vec<String>> {
    let page: Value = serde_json::from_str(page).context("/api/strategies")?;
    let rows = page.as_array().or_else(|| page.get("strategies")?.as_array()).context("no list of strategies")?;
    let mut names: Vec<String> = rows.iter().filter_map(|row| row.get("name")?.as_str().map(str::to_owned)).collect();
    names.sort_by_key(|name| name != "random");
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_comes_first() {
        let page = r#"[{"name":"least-request","summary":""},{"name":"random"},{"name":"round-robin"}]"#;
        assert_eq!(strategy_names(page).unwrap(), ["random", "least-request", "round-robin"]);
        assert!(strategy_names("{}").is_err());
    }
}
