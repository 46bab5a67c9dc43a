//! The command line of `fairlead simulate`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Command, FromArgMatches as _, Subcommand, value_parser};

use super::scenario::Fault;

/// `fairlead simulate`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Something else than simulating.
    #[command(subcommand)]
    pub other: Option<Other>,

    /// Kinds of traffic
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        help_heading = "Traffic",
        default_value = "shared-prefix-chat,conversation,code-generation,reasoning"
    )]
    pub workload: Vec<String>,
    /// Replay a recorded trace instead: JSON lines with timestamp (ms), `input_length`, `output_length`, `hash_ids` as in
    /// Mooncake's public traces; optional: tenant, adapter
    #[arg(long, value_name = "FILE", help_heading = "Traffic", conflicts_with = "workload")]
    pub trace: Option<PathBuf>,
    /// Open loop at shares of what the fleet carries without any help from its prefix caches
    #[arg(long, value_delimiter = ',', value_name = "SHARES", help_heading = "Traffic", group = "demand")]
    pub load: Vec<f64>,
    /// Open loop at so many requests a second
    #[arg(long, value_delimiter = ',', value_name = "RATES", help_heading = "Traffic", group = "demand")]
    pub rate: Vec<f64>,
    /// Closed loop with so many conversations at a time
    #[arg(long, value_delimiter = ',', value_name = "COUNTS", help_heading = "Traffic", group = "demand")]
    pub concurrency: Vec<u32>,
    /// Requests of each run; a trace ends by itself
    #[arg(long, value_name = "COUNT", help_heading = "Traffic")]
    pub requests: Option<u64>,
    /// The share of the requests, from the first, that is not counted
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, help_heading = "Traffic")]
    pub warm_up: f64,

    /// Engines: a preset, optionally `:COUNT` and `*SPEED`, several with commas
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PRESET[:COUNT][*SPEED]",
        default_value = "qwen3-32b-2xh100:16",
        help_heading = "Fleet"
    )]
    pub engines: Vec<String>,
    /// The step times of all engines, as JSON that `simulate calibrate` writes
    #[arg(long, value_name = "FILE", help_heading = "Fleet")]
    pub cost: Option<PathBuf>,
    /// Tokens of the KV cache of all engines
    #[arg(long, value_name = "TOKENS", help_heading = "Fleet")]
    pub kv_tokens: Option<u64>,
    /// Most tokens that all engines compute in a step
    #[arg(long, value_name = "TOKENS", help_heading = "Fleet", value_parser = value_parser!(u64).range(1..))]
    pub step_tokens: Option<u64>,
    /// Tokens of a KV block; 512 for Mooncake's traces
    #[arg(long, value_name = "TOKENS", help_heading = "Fleet", value_parser = value_parser!(u64).range(1..))]
    pub block_tokens: Option<u64>,
    /// What happens to an engine: `ENGINE:down@FROM+FOR` or `ENGINE:slow*SHARE@FROM+FOR`, in seconds
    #[arg(long, value_delimiter = ',', value_name = "FAULTS", help_heading = "Fleet")]
    pub fault: Vec<Fault>,

    /// Strategies with commas, or one combination such as `least-request:2,lora-affinity:1`, or one with parameters such as
    /// `prefix-cache{"miss_cost":3}`; may be repeated [default: all that there are]
    #[arg(long, value_name = "NAMES", help_heading = "Routing")]
    pub strategy: Vec<String>,
    /// Copies of Fairlead that do not see each other's requests
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = "Routing", value_parser = value_parser!(u16).range(1..))]
    pub replicas: u16,
    /// How often each of them reads each engine's metrics
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = humantime::parse_duration, help_heading = "Routing")]
    pub scrape_interval: std::time::Duration,
    /// Leave out the oracle, and with it the regret
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Routing")]
    pub no_oracle: bool,

    /// Longest time to first token of a good answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration, help_heading = "Output")]
    pub slo_ttft: std::time::Duration,
    /// Longest mean time between tokens of a good answer
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration, help_heading = "Output")]
    pub slo_itl: std::time::Duration,
    /// Write all results there, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write plots there, as SVG
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// Beginning of all randomness: the same seed gives the same bytes
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "Output")]
    pub seed: u64,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "COUNT", help_heading = "Output")]
    pub threads: Option<usize>,
}

/// What else can be done.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Other {
    /// Fit the step times of an engine to measured requests
    Calibrate {
        /// JSON lines: `prompt_tokens`, `output_tokens`, `ttft_ms`, `itl_ms` of requests that were sent one at a time;
        /// `concurrency` where more were under way, `cached_tokens` where the cache held some of the prompt
        #[arg(long, value_name = "FILE")]
        samples: PathBuf,
        /// Most tokens of a step of that engine
        #[arg(long, value_name = "TOKENS", default_value_t = 8192)]
        step_tokens: u64,
    },
}

/// The subcommand, ready to be mounted.
pub fn command() -> Command {
    let command = Command::new("simulate")
        .about("Simulate a fleet of engines: which strategy for which traffic?")
        .long_about(
            "Simulate a fleet of engines: which strategy for which traffic?\n\nVirtual time, modelled engines, and the \
             routing that `serve` uses. Prints a table for each workload and demand; progress goes to standard error.",
        )
        .after_long_help(lists());
    Options::augment_args(command)
}

/// Reads the subcommand's matches.
///
/// # Errors
/// What clap has to say.
pub fn read(matches: &clap::ArgMatches) -> Result<Options, clap::Error> {
    Options::from_arg_matches(matches)
}

fn lists() -> String {
    let workloads = super::workload::WORKLOADS.iter().map(|workload| (workload.name, workload.summary));
    let presets = super::engine::PRESETS.iter().map(|preset| (preset.name, preset.summary));
    format!("Workloads:\n{}\nEngines:\n{}", list(workloads), list(presets))
}

fn list(entries: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let lines: Vec<_> = entries.map(|(name, summary)| format!("  {name:20} {summary}\n")).collect();
    lines.concat()
}
