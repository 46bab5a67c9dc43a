//! `fairlead-lab scrape-cost`: the CPU that Fairlead uses for reading the metrics of many endpoints, without any request.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::bench::rig::{admin_url, cpu_of, memory_kib, start_fairlead};
use crate::engine::Dialect;
use crate::harness::{Child, Folder, get, wait_until};

/// Time for every endpoint to be read once.
const FIRST_READING: Duration = Duration::from_mins(1);

/// What reading metrics costs Fairlead, at each fleet size, idle and busy.
///
/// Starts `fairlead-lab fleet` and Fairlead, waits until as many pages were read as there are endpoints, and measures. CPU is
/// what the kernel says; pages are Fairlead's own count.
#[derive(Debug, Args)]
pub struct ScrapeCostArgs {
    /// The fairlead binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    fairlead: Option<PathBuf>,
    /// Sizes of the fleet.
    #[arg(long, value_delimiter = ',', default_value = "100,1000", value_name = "N")]
    endpoints: Vec<usize>,
    /// Default strategy, which decides what is read.
    #[arg(long, default_value = "least-request", value_name = "NAME")]
    algorithm: String,
    /// More of Fairlead's configuration, as YAML; may be given several times.
    #[arg(long, value_name = "YAML")]
    config: Vec<String>,
    /// Whose metrics are shown.
    #[arg(long, value_enum, default_value_t = Dialect::Vllm)]
    dialect: Dialect,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    seconds: f64,
}

struct Row {
    cores: f64,
    ok_per_second: f64,
    failed_per_second: f64,
    resident_kib: u64,
}

impl ScrapeCostArgs {
    /// Measures and writes the table.
    ///
    /// # Errors
    /// A program cannot start, or reads no metrics.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "| endpoints | fleet | CPU cores | pages/s | CPU µs a page | failed/s | resident MiB |\n|---|---|---|---|---|---|---|"
        )?;
        for &endpoints in &self.endpoints {
            for (name, busy) in [("idle", false), ("busy", true)] {
                let row = self.measure(endpoints, busy).await?;
                let Row { cores, ok_per_second, failed_per_second, resident_kib } = row;
                let micros = 1e6 * cores / ok_per_second.max(1e-9);
                let resident = resident_kib as f64 / 1024.0;
                writeln!(
                    out,
                    "| {endpoints} | {name} | {cores:.3} | {ok_per_second:.0} | {micros:.0} | {failed_per_second:.1} | {resident:.1} |"
                )?;
                out.flush()?;
            }
        }
        Ok(())
    }

    async fn measure(&self, endpoints: usize, busy: bool) -> anyhow::Result<Row> {
        let folder = Folder::temporary()?;
        let own = std::env::current_exe().context("path of this program")?;
        let _fleet = self.start_fleet(&own, endpoints, busy, &folder).await?;
        let extra = format!("routing: {{ algorithm: {} }}\n{}\n", self.algorithm, self.config.join("\n"));
        let fairlead = start_fairlead(self.fairlead.as_deref(), &own, &folder, &extra, &[]).await?;
        let admin = admin_url(&folder)?;
        let read = || async { scrapes(&admin).await.is_some_and(|(ok, _)| ok >= endpoints as f64) };
        wait_until("every endpoint read once", FIRST_READING, read).await?;
        // The first readings come in a burst of new connections; let it pass.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let window = Duration::from_secs_f64(self.seconds);
        let missing = "no fairlead_scrapes_total in Fairlead's metrics";
        let (before, cpu_before) = (scrapes(&admin).await.context(missing)?, cpu_of(fairlead.id())?);
        tokio::time::sleep(window).await;
        let (after, cpu_after) = (scrapes(&admin).await.context(missing)?, cpu_of(fairlead.id())?);
        let seconds = window.as_secs_f64();
        Ok(Row {
            cores: cpu_after.saturating_sub(cpu_before).as_secs_f64() / seconds,
            ok_per_second: (after.0 - before.0) / seconds,
            failed_per_second: (after.1 - before.1) / seconds,
            resident_kib: memory_kib(fairlead.id()),
        })
    }

    async fn start_fleet(&self, own: &Path, endpoints: usize, busy: bool, folder: &Folder) -> anyhow::Result<Child> {
        let list = folder.join("endpoints.yaml");
        let (count, dialect) = (endpoints.to_string(), value_name(self.dialect));
        let path = list.to_str().context("the folder's path is not text")?;
        let mut arguments = vec!["fleet", "--endpoints", &count, "--dialect", &dialect, "--write", path];
        if busy {
            arguments.push("--busy");
        }
        let fleet = Child::spawn("fleet", own, &arguments, &folder.join("fleet.log"))?;
        wait_until("the fleet's list", FIRST_READING, || std::future::ready(list.exists())).await?;
        Ok(fleet)
    }
}

fn value_name(dialect: Dialect) -> String {
    let value = clap::ValueEnum::to_possible_value(&dialect);
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Good and failed readings since Fairlead's start.
async fn scrapes(admin: &str) -> Option<(f64, f64)> {
    let (_, page) = get(&format!("{admin}/metrics")).await.ok()?;
    Some((sample(&page, "ok")?, sample(&page, "failed").unwrap_or(0.0)))
}

fn sample(page: &str, result: &str) -> Option<f64> {
    let series = format!("fairlead_scrapes_total{{result=\"{result}\"}}");
    page.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_found_by_their_result() {
        let page =
            "# TYPE x counter\nfairlead_scrapes_total{result=\"ok\"} 12\nfairlead_scrapes_total{result=\"failed\"} 3\n";
        assert_eq!((sample(page, "ok"), sample(page, "failed"), sample(page, "late")), (Some(12.0), Some(3.0), None));
    }
}
