//! What a load run is told.

use std::time::Duration;

use anyhow::Context;
use http::{HeaderName, HeaderValue};

/// When requests start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many clients, each starts its next request when its last one has ended.
    Closed {
        /// Clients.
        concurrency: usize,
    },
    /// Poisson arrivals, whatever the answers do; latency counts from the arrival.
    Open {
        /// Requests per second.
        rate: f64,
        /// Requests in flight at once; arrivals beyond are counted as failed and not sent.
        in_flight_max: usize,
    },
}

/// Which `OpenAI` API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Api {
    /// `/v1/chat/completions`.
    #[default]
    Chat,
    /// `/v1/completions`.
    Completion,
}

impl Api {
    /// Request path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
        }
    }
}

/// Settings of one run.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `http://ip:port` of a gateway or an engine.
    pub url: String,
    /// When requests start.
    pub pace: Pace,
    /// End of the run; requests that are under way are waited for, up to `timeout`.
    pub duration: Option<Duration>,
    /// Requests in all. Without both limits a run lasts 10 seconds.
    pub requests: Option<u64>,
    /// Which API is called.
    pub api: Api,
    /// `model` of the bodies.
    pub model: String,
    /// Further names (adapters) that take turns with `model` at random.
    pub other_models: Vec<String>,
    /// Share of requests whose prompt has `long_prompt_bytes`, 0 to 1.
    pub long_share: f64,
    /// Bytes of those prompts.
    pub long_prompt_bytes: usize,
    /// Conversations that take turns; each sends back the `x-session-id` that it was given last. 0 for none.
    pub sessions: usize,
    /// `max_tokens` of the bodies.
    pub tokens_max: Option<u32>,
    /// Streamed answers, as a share of the requests from 0 to 1.
    pub stream_share: f64,
    /// Bytes of each prompt, shared prefix included.
    pub prompt_bytes: usize,
    /// Leading bytes that all prompts of a group have in common.
    pub shared_prefix_bytes: usize,
    /// Number of different shared prefixes.
    pub groups: usize,
    /// Added to every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Share of requests whose connection is dropped at a random moment, 0 to 1.
    pub abort_fraction: f64,
    /// Latest moment of an abort after the request was sent.
    pub abort_within: Duration,
    /// Longest wait for the end of one answer.
    pub timeout: Duration,
    /// Seed of prompts, arrivals and aborts.
    pub seed: u64,
    /// Shows a progress bar on stderr if that is a terminal.
    pub progress: bool,
    /// Tells each failure on stderr.
    pub verbose: bool,
}

impl LoadOptions {
    /// The same with the header `routing-strategy`.
    ///
    /// # Errors
    /// The name is no header value.
    pub fn strategy(mut self, name: &str) -> anyhow::Result<Self> {
        let header = HeaderName::from_static("routing-strategy");
        self.headers.retain(|(name, _)| *name != header);
        let value = HeaderValue::from_str(name).with_context(|| format!("strategy '{name}'"))?;
        self.headers.push((header, value));
        Ok(self)
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:10000".to_owned(),
            pace: Pace::Closed { concurrency: 8 },
            duration: None,
            requests: None,
            api: Api::Chat,
            model: "llama-3-8b".to_owned(),
            other_models: Vec::new(),
            long_share: 0.0,
            long_prompt_bytes: 400_000,
            sessions: 0,
            tokens_max: Some(64),
            stream_share: 0.0,
            prompt_bytes: 1024,
            shared_prefix_bytes: 0,
            groups: 1,
            headers: Vec::new(),
            abort_fraction: 0.0,
            abort_within: Duration::from_millis(200),
            timeout: Duration::from_mins(1),
            seed: 0,
            progress: false,
            verbose: false,
        }
    }
}
