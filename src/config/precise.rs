//! Configuration of what is asked of engines and caches about prompts. Field docs are the text of
//! `docs/configuration.md`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Following what engines say of their prefix caches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvEvents {
    /// Follow the KV events of engines, so that strategies that go by prefixes know what is cached instead of guessing.
    /// It needs token ids: see `tokenizer.source`.
    pub enabled: bool,
    /// Port of the events where the engine does not tell it (`/kv_event_sources`, `/server_info`) and no label
    /// `kv-events-port` does; 0 means that such engines publish none.
    pub port: u16,
    /// The same for the port at which missed events are asked for (label `kv-events-replay-port`); 0 means none.
    pub replay_port: u16,
    /// Topic subscribed to at engines that do not tell it; empty means all.
    pub topic: String,
    /// Longest wait for a connection to a publisher.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a prompt that was sent to an engine counts as cached there without an event that says so.
    #[serde(with = "humantime_serde")]
    pub expected_life: Duration,
    /// Most memory for what engines hold, in MiB; blocks beyond it are not known.
    pub memory_mib: u32,
}

/// How prompts become token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokenizer {
    /// Who makes token ids of prompts for KV events and `LMCache`: `engine` asks an endpoint that serves the model,
    /// `service` the one at `tokenizer.url`, `directory` reads `tokenizer.directory` (in builds with the feature
    /// `tokenizers`), `none` leaves only prompts that are token ids already.
    pub source: TokenSource,
    /// Service that is asked, such as `http://render:8000`.
    pub url: Option<String>,
    /// `tokenize` asks `/tokenize`; `render` the request's own path with `/render` behind it, which vLLM has with
    /// `--enable-scale-out` and in `vllm launch render`.
    pub api: TokenApi,
    /// Folder with `tokenizer.json` and `tokenizer_config.json`, or one such folder for each model by the model's name.
    pub directory: Option<PathBuf>,
    /// How long a decision waits for token ids; then it guesses by the text.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Largest request body of which token ids are made, in bytes.
    pub body_bytes_max: usize,
    /// Questions under way at once; above it decisions guess by the text.
    pub concurrency: usize,
    /// Most memory for token ids of former prompts, in MiB.
    pub cache_mib: u32,
}

/// Who makes token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenSource {
    /// An endpoint that serves the model.
    Engine,
    /// A service beside the engines.
    Service,
    /// This process, from a model's files.
    Directory,
    /// Nobody.
    None,
}

/// How engines are asked for token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenApi {
    /// `/tokenize`.
    Tokenize,
    /// The render endpoints.
    Render,
}

/// Asking `LMCache` who has a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LmCache {
    /// `LMCache`'s controller, such as `http://lmcache-controller:9000`.
    pub controller: Option<String>,
    /// `LMCache`'s newer coordinator, such as `http://lmcache-coordinator:9300`; it comes before the controller.
    pub coordinator: Option<String>,
    /// How long a decision waits for its answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long an answer holds for the same prompt.
    #[serde(with = "humantime_serde")]
    pub cache_life: Duration,
}

impl Default for KvEvents {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 5557,
            replay_port: 5558,
            topic: String::new(),
            connect_timeout: Duration::from_secs(3),
            expected_life: Duration::from_secs(10),
            memory_mib: 256,
        }
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self {
            source: TokenSource::Engine,
            url: None,
            api: TokenApi::Tokenize,
            directory: None,
            timeout: Duration::from_millis(50),
            body_bytes_max: 1 << 20,
            concurrency: 64,
            cache_mib: 64,
        }
    }
}

impl Default for LmCache {
    fn default() -> Self {
        Self {
            controller: None,
            coordinator: None,
            timeout: Duration::from_millis(30),
            cache_life: Duration::from_secs(1),
        }
    }
}
