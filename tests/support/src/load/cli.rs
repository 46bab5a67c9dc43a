//! `fairlead-lab load`.

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::{HeaderName, HeaderValue};

use super::{Api, LoadOptions, Pace, Table};

/// A load generator for OpenAI-style servers and gateways.
///
/// Closed loop with --concurrency (the default, 8), open loop (Poisson arrivals) with --rate. Ends after --requests or
/// --duration (10 s without both). A stream that does not end as it should counts as failed. Counts who served by the response header
/// target-pod-ip, else x-engine. Exit status 0 says that the run took place; the report says how it went.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Gateway or engine.
    #[arg(default_value = "http://127.0.0.1:10000")]
    url: String,
    /// Clients that each wait for their answer before they ask again.
    #[arg(long, short, default_value_t = 8, value_name = "N", conflicts_with = "rate")]
    concurrency: usize,
    /// Requests per second, arriving at random whatever the answers do; latency counts from the arrival.
    #[arg(long, short, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Requests in flight at once with --rate; what arrives beyond is counted as failed and not sent.
    #[arg(long, default_value_t = 4096, value_name = "N", requires = "rate")]
    max_in_flight: usize,
    /// Length of the run in seconds.
    #[arg(long, short, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Requests in all.
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// Which API is called.
    #[arg(long, value_enum, default_value_t = Api::Chat)]
    api: Api,
    /// Model name in the bodies; several (adapters) take turns at random.
    #[arg(long, default_value = "llama-3-8b", value_name = "NAME")]
    model: Vec<String>,
    /// Share of the requests with a long prompt (0 to 1).
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    long_share: f64,
    /// Bytes of those prompts; 400,000 are about 100,000 tokens.
    #[arg(long, default_value_t = 400_000, value_name = "BYTES")]
    long_prompt_bytes: usize,
    /// Conversations that take turns; each sends back the x-session-id that it was given.
    #[arg(long, default_value_t = 0, value_name = "N")]
    sessions: usize,
    /// Header routing-strategy of every request; several run one after the other with the same seed, into one table.
    #[arg(long, alias = "strategy", value_delimiter = ',', value_name = "NAME")]
    strategies: Vec<String>,
    /// Limit of the answer's length in the bodies.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    max_tokens: u32,
    /// Ask for streams; with a value only that share of the requests (0 to 1).
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_value_t = 0.0, default_missing_value = "1")]
    stream: f64,
    /// Bytes of each prompt, the shared prefix included.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    prompt_bytes: usize,
    /// Leading bytes that the prompts of a group have in common.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    shared_prefix_bytes: usize,
    /// Number of different shared prefixes.
    #[arg(long, default_value_t = 1, value_name = "N")]
    groups: usize,
    /// Header of every request, as 'name: value'; may be given several times.
    #[arg(long, short = 'H', value_name = "HEADER")]
    header: Vec<Header>,
    /// Share of the requests whose connection is dropped at a random moment (0 to 1).
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    abort_fraction: f64,
    /// Latest moment of an abort, in milliseconds after the start.
    #[arg(long, default_value_t = 200, value_name = "MS")]
    abort_within: u64,
    /// Longest wait for the end of an answer, in seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    timeout: f64,
    /// Seed of prompts, arrivals and aborts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Tell each failure on stderr.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Clone)]
struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once(':').context("a header looks like 'name: value'")?;
        Ok(Self(name.trim().parse()?, value.trim().parse()?))
    }
}

impl LoadArgs {
    fn options(self) -> anyhow::Result<LoadOptions> {
        let seconds = |value| Duration::try_from_secs_f64(value).context("a time must be a number of seconds from 0");
        let (concurrency, mut models) = (self.concurrency, self.model.into_iter());
        let pace = self
            .rate
            .map_or(Pace::Closed { concurrency }, |rate| Pace::Open { rate, in_flight_max: self.max_in_flight });
        Ok(LoadOptions {
            pace,
            duration: self.duration.map(seconds).transpose()?,
            timeout: seconds(self.timeout)?,
            url: self.url,
            requests: self.requests,
            api: self.api,
            model: models.next().context("a model")?,
            other_models: models.collect(),
            long_share: self.long_share,
            long_prompt_bytes: self.long_prompt_bytes,
            sessions: self.sessions,
            tokens_max: Some(self.max_tokens),
            stream_share: self.stream,
            prompt_bytes: self.prompt_bytes,
            shared_prefix_bytes: self.shared_prefix_bytes,
            groups: self.groups,
            headers: self.header.into_iter().map(|Header(name, value)| (name, value)).collect(),
            abort_fraction: self.abort_fraction,
            abort_within: Duration::from_millis(self.abort_within),
            seed: self.seed,
            progress: true,
            verbose: self.verbose,
        })
    }

    /// Runs the load and writes its report.
    ///
    /// # Errors
    /// A setting is out of range.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        let (json, strategies) = (self.json, self.strategies.clone());
        let options = self.options()?;
        let mut table = Table::default();
        for strategy in &strategies {
            table.add(strategy, super::run(options.clone().strategy(strategy)?).await?);
        }
        if let [_, _, ..] = strategies.as_slice() {
            return table.write(json, out);
        }
        let report = match table.into_only() {
            Some(report) => report,
            None => super::run(options).await?,
        };
        if json {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        } else {
            report.write_table(out)?;
        }
        Ok(())
    }
}
