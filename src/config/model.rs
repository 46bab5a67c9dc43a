//! The configuration tree and its defaults. Field docs are the text of `docs/configuration.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    EndpointConfig, Health, KubernetesDiscovery, KvEvents, Limits, ListenAddress, LmCache, Log, Metrics, Scrape,
    Shutdown, Tokenizer,
};
use crate::domain::{ModelProfiles, StrategySpec};

/// Everything that Fairlead can be told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where we listen.
    pub listen: Listen,
    /// How an endpoint is chosen.
    pub routing: Routing,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// How the choice is told to Envoy.
    pub destination: Destination,
    /// What is specific to the Envoy in front.
    pub envoy: Envoy,
    /// Caps.
    pub limits: Limits,
    /// Reading engine metrics.
    pub scrape: Scrape,
    /// Following what engines say of their prefix caches.
    pub kv_events: KvEvents,
    /// How prompts become token ids.
    pub tokenizer: Tokenizer,
    /// Asking `LMCache` who has a prompt.
    pub lmcache: LmCache,
    /// Putting failing endpoints aside.
    pub health: Health,
    /// Stopping.
    pub shutdown: Shutdown,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Logging.
    pub log: Log,
}

/// Where we listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// ext_proc gRPC: `ip:port` or `unix:PATH`.
    pub ext_proc: ListenAddress,
    /// Admin HTTP: `ip:port`.
    pub admin: SocketAddr,
    /// TLS of ext_proc over TCP: `off`, `required`, or `accepted`, which takes TLS and plaintext at the same port.
    pub tls: TlsMode,
    /// Folder with `tls.crt` and `tls.key`, read again when they change; without it a self-signed certificate is made at
    /// the start.
    pub certificate: Option<PathBuf>,
    /// gRPC health alone, in plaintext, at `ip:port`, also before the first endpoints are known.
    pub health: Option<SocketAddr>,
    /// Threads that serve ext_proc, each a runtime of its own; 0 means one per core.
    pub threads: usize,
}

/// Whether ext_proc is spoken over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Plaintext only.
    #[default]
    Off,
    /// Both, told apart by the first byte.
    Accepted,
    /// TLS only.
    Required,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// Strategy of a request that names none: a name, or several as `name:weight,name:weight` (environment variable
    /// `ROUTING_ALGORITHM`).
    pub algorithm: String,
    /// Whether a client may name a strategy in the header `routing-strategy`; if not, the header is passed over.
    pub header: bool,
    /// How long a decision may wait before the least loaded endpoint is taken instead.
    #[serde(with = "humantime_serde")]
    pub decision_timeout: Duration,
    /// Tokens that an answer is expected to have, unless the request limits it to fewer; load in tokens is counted by it.
    pub expected_output_tokens: u32,
    /// What happens to requests on paths that we do not route.
    pub unknown_paths: UnknownPaths,
    /// Seed of the tie-breaking generator; absent means a random one.
    pub seed: Option<u64>,
    /// Whose answers are looked at, which costs a message for each piece of their bodies: `auto` where the strategy
    /// measures answers, `always`, or `never`.
    pub observe_answers: ObserveAnswers,
    /// Explain a decision in the response header `x-fairlead-explain` to a client that sends `x-fairlead-explain: 1`. It
    /// shows the addresses of endpoints.
    pub explain: bool,
    /// Decisions kept for `/api/decisions`, at most 4,096; 0 means none.
    pub decision_ring: usize,
    /// At most one decision is kept in this time; 0s keeps each, which costs every request.
    #[serde(with = "humantime_serde")]
    pub decision_interval: Duration,
    /// File with the secret that session ids are signed with, 16 bytes at least, the same for all replicas; absent means
    /// a random one of this process.
    pub session_key_file: Option<PathBuf>,
    /// Strategies with names of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub strategies: BTreeMap<String, StrategySpec>,
    /// Config profiles by model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelProfiles>,
}

/// Whose answers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObserveAnswers {
    /// Those of requests whose strategy measures answers.
    Auto,
    /// All.
    Always,
    /// None, even where Envoy shows them.
    Never,
}

/// What happens to requests on paths that we do not route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownPaths {
    /// Left to Envoy without a destination: its fallback policy serves them.
    Pass,
    /// Answered with 404.
    NotFound,
    /// Sent to an endpoint that the default strategy chooses among all.
    Route,
}

/// Where endpoints come from; several sources may be used at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// Endpoints written in this file.
    #[serde(rename = "static")]
    pub fixed: Vec<EndpointConfig>,
    /// A watched file with the same list.
    pub file: Option<FileDiscovery>,
    /// Pods of a Kubernetes cluster.
    pub kubernetes: Option<KubernetesDiscovery>,
}

impl Discovery {
    /// Whether endpoints can come from anywhere.
    pub fn has_source(&self) -> bool {
        !self.fixed.is_empty() || self.file.is_some() || self.kubernetes.is_some()
    }
}

/// A watched file of endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDiscovery {
    /// Path of the YAML file: a list of endpoints.
    pub path: PathBuf,
    /// Read again at least this often, should the file system not report a change.
    #[serde(default = "FileDiscovery::default_poll", with = "humantime_serde")]
    pub poll: Duration,
}

/// How the choice is told to Envoy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own for the user")]
pub struct Destination {
    /// Set request header `target-pod: ip:port` (AIBrix; `ORIGINAL_DST` clusters).
    pub target_pod: bool,
    /// Set request header `x-gateway-destination-endpoint` (endpoint-picker protocol).
    pub endpoint_header: bool,
    /// Set the same as dynamic metadata `envoy.lb`.
    pub metadata: bool,
    /// Endpoints in the list, best first, 1 to 8. More than one needs an `override_host` cluster.
    pub list: usize,
    /// Tell Envoy to choose the route anew after our headers are set.
    pub clear_route_cache: bool,
    /// Set the response headers `request-id`, `routing-strategy`, `target-pod` and `target-pod-ip`.
    pub response_headers: bool,
    /// For the conformance suite of the Gateway API inference extension, never in production: a client names endpoints in
    /// the header `test-epp-endpoint-selection`, and the answer's `x-conformance-test-served-endpoint` tells who served.
    pub conformance_hooks: bool,
}

/// What is specific to the Envoy in front.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Envoy {
    /// Write the endpoints to this file as an EDS resource for a plain Envoy; its folder is what Envoy watches.
    pub eds_file: Option<PathBuf>,
    /// `cluster_name` in that resource.
    pub eds_cluster: String,
    /// Use mode overrides: ask for response trailers, which keep our stream open to the end of the exchange, where
    /// streams have shown to end early; and for no more of requests that we do not route. Needs `allow_mode_override`
    /// in Envoy, which ignores them otherwise.
    pub mode_override: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            ext_proc: ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], 50052))),
            admin: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: TlsMode::Off,
            certificate: None,
            health: None,
            threads: 0,
        }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            algorithm: "least-request".to_owned(),
            header: true,
            decision_timeout: Duration::from_secs(2),
            expected_output_tokens: 256,
            unknown_paths: UnknownPaths::Pass,
            seed: None,
            observe_answers: ObserveAnswers::Auto,
            explain: false,
            decision_ring: 256,
            decision_interval: Duration::from_secs(1),
            session_key_file: None,
            strategies: BTreeMap::new(),
            models: BTreeMap::new(),
        }
    }
}

impl FileDiscovery {
    fn default_poll() -> Duration {
        Duration::from_secs(5)
    }
}

impl Default for Destination {
    fn default() -> Self {
        Self {
            target_pod: true,
            endpoint_header: true,
            metadata: true,
            list: 1,
            clear_route_cache: true,
            response_headers: true,
            conformance_hooks: false,
        }
    }
}

impl Default for Envoy {
    fn default() -> Self {
        Self { eds_file: None, eds_cluster: "fairlead".to_owned(), mode_override: true }
    }
}
