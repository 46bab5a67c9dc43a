//! `fairlead-lab bench`: what Fairlead costs, side by side with the no-op service, through the real Envoy.
//!
//! Every case runs in the same minute on the same machine, in turns, so that the ratios mean something even where the
//! absolute figures do not. CPU is what the kernel says each process used (`/proc/PID/task/*/schedstat`).

mod report;
pub(crate) mod rig;
mod streams;
pub(crate) mod way;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::load::{LoadOptions, Pace, run as load};
use report::{Report, Sample};
use rig::{Case, Rig};

/// What Fairlead costs beside the no-op service, through the real Envoy.
///
/// Cases: no ext_proc at all, the no-op service, and Fairlead with each of --strategies; BUFFERED and full-duplex bodies;
/// each size of --prompt-bytes. They take turns for --rounds rounds; the table shows medians. Then 2,000 streams are opened
/// at once for memory.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The fairlead binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    fairlead: Option<PathBuf>,
    /// The Envoy binary [default: .envoy/envoy].
    #[arg(long, env = "ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Folder with quickstart.yaml and duplex.yaml.
    #[arg(long, default_value = "envoy", value_name = "FOLDER")]
    envoy_configs: PathBuf,
    /// Endpoints, all simulated engines that answer at once.
    #[arg(long, default_value_t = 64, value_name = "N")]
    endpoints: usize,
    /// Bytes of each prompt; may be given several times.
    #[arg(long, value_delimiter = ',', default_value = "1024,225280", value_name = "BYTES")]
    prompt_bytes: Vec<usize>,
    /// Fairlead and the no-op service at TCP ports instead of unix sockets, and Fairlead over TLS too.
    #[arg(long)]
    tls: bool,
    /// Strategies of Fairlead to measure.
    #[arg(long, value_delimiter = ',', default_value = "least-request", value_name = "NAME")]
    strategies: Vec<String>,
    /// Rounds; the table shows medians over them.
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Length of one turn of one case, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Connections of the closed loop.
    #[arg(long, default_value_t = 16, value_name = "N")]
    concurrency: usize,
    /// Streams opened at once for the memory figure; 0 leaves it out.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    streams: usize,
    /// Also write every sample as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl BenchArgs {
    /// Runs the benchmark and writes the table.
    ///
    /// # Errors
    /// A program cannot start, or a run cannot be read.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut report = Report::default();
        let rig = Rig::start(&self).await?;
        report.idle_cpu_share = rig.idle_cpu_share().await;
        for bytes in &self.prompt_bytes {
            for _ in 0..self.rounds {
                for case in rig.cases() {
                    for strategy in case.strategies(&self.strategies) {
                        report.add(*bytes, case, &case.label(strategy), self.turn(&rig, case, strategy, *bytes).await?);
                    }
                }
            }
        }
        drop(rig);
        if self.streams > 0 {
            report.streams = Some(Box::pin(streams::measure(&self)).await?);
        }
        report.write_table(out)?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)?;
            std::fs::write(path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
        }
        Ok(())
    }

    async fn turn(&self, rig: &Rig, case: &Case, strategy: &str, bytes: usize) -> anyhow::Result<Sample> {
        let headers = vec![("routing-strategy".parse()?, strategy.parse()?)];
        let options = LoadOptions {
            url: case.url(),
            pace: Pace::Closed { concurrency: self.concurrency },
            duration: Some(Duration::from_secs_f64(self.seconds)),
            prompt_bytes: bytes,
            headers: if case.is_fairlead() { headers } else { Vec::new() },
            ..LoadOptions::default()
        };
        let before = rig.cpu(case)?;
        let load = Box::pin(load(options)).await?;
        let after = rig.cpu(case)?;
        let per_request = |before: Duration, after: Duration| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / load.requests.max(1) as f64
        };
        Ok(Sample {
            requests_per_second: load.rps,
            p50_ms: load.latency.p50_ms,
            p99_ms: load.latency.p99_ms,
            envoy_cpu_us: per_request(before.envoy, after.envoy),
            own_cpu_us: per_request(before.own, after.own),
            failed: load.failed,
        })
    }
}
