//! The table of settings.

use super::{Form, Setting};

const fn set(key: &'static str, form: Form, help: &'static str) -> Setting {
    Setting { key, form, help }
}

/// All of them, in the order of the configuration tree.
pub const SETTINGS: &[Setting] = &[
    set("listen.ext_proc", Form::Address, "ext_proc gRPC: `ip:port` or `unix:PATH`."),
    set("listen.admin", Form::Address, "Admin HTTP: `ip:port`."),
    set(
        "listen.tls",
        Form::Choice(&["off", "accepted", "required"]),
        "TLS of ext_proc over TCP: `off`, `required`, or `accepted`, which takes TLS and plaintext at the same port.",
    ),
    set(
        "listen.certificate",
        Form::Path,
        "Folder with `tls.crt` and `tls.key`, read again when they change; without it a self-signed certificate is made at the start.",
    ),
    set(
        "listen.health",
        Form::Address,
        "gRPC health alone, in plaintext, at `ip:port`, also before the first endpoints are known.",
    ),
    set(
        "listen.threads",
        Form::Number,
        "Threads that serve ext_proc, each a runtime of its own; 0 means one per core.",
    ),
    set(
        "routing.algorithm",
        Form::Text,
        "Strategy of a request that names none: a name, or several as `name:weight,name:weight` (environment variable `ROUTING_ALGORITHM`).",
    ),
    set(
        "routing.header",
        Form::Bool,
        "Whether a client may name a strategy in the header `routing-strategy`; if not, the header is passed over.",
    ),
    set(
        "routing.decision_timeout",
        Form::Duration,
        "How long a decision may wait before the least loaded endpoint is taken instead.",
    ),
    set(
        "routing.expected_output_tokens",
        Form::Number,
        "Tokens that an answer is expected to have, unless the request limits it to fewer; load in tokens is counted by it.",
    ),
    set(
        "routing.unknown_paths",
        Form::Choice(&["pass", "not-found", "route"]),
        "What happens to requests on paths that we do not route.",
    ),
    set("routing.seed", Form::Number, "Seed of the tie-breaking generator; absent means a random one."),
    set(
        "routing.observe_answers",
        Form::Choice(&["auto", "always", "never"]),
        "Whose answers are looked at, which costs a message for each piece of their bodies: `auto` where the strategy measures answers, `always`, or `never`.",
    ),
    set(
        "routing.explain",
        Form::Bool,
        "Explain a decision in the response header `x-fairlead-explain` to a client that sends `x-fairlead-explain: 1`. It shows the addresses of endpoints.",
    ),
    set("routing.decision_ring", Form::Number, "Decisions kept for `/api/decisions`, at most 4,096; 0 means none."),
    set(
        "routing.decision_interval",
        Form::Duration,
        "At most one decision is kept in this time; 0s keeps each, which costs every request.",
    ),
    set(
        "routing.session_key_file",
        Form::Path,
        "File with the secret that session ids are signed with, 16 bytes at least, the same for all replicas; absent means a random one of this process.",
    ),
    set("discovery.file.path", Form::Path, "Path of the YAML file: a list of endpoints."),
    set(
        "discovery.file.poll",
        Form::Duration,
        "Read again at least this often, should the file system not report a change.",
    ),
    set(
        "discovery.kubernetes.namespaces",
        Form::Text,
        "Namespaces whose pods are found by their model label, separated by commas; `*` means all. Not set: all, but none where pools are named.",
    ),
    set(
        "discovery.kubernetes.pools",
        Form::Text,
        "`InferencePool`s whose pods are endpoints: `namespace/name`, or `name` in our own namespace, separated by commas; `*` means all that are in the namespaces.",
    ),
    set(
        "discovery.kubernetes.local_pool.namespace",
        Form::Text,
        "Namespace of a pool that is written here; not set means our own.",
    ),
    set(
        "discovery.kubernetes.local_pool.selector",
        Form::Text,
        "Label selector of the pods of a pool that is written here; empty means that there is no such pool.",
    ),
    set(
        "discovery.kubernetes.local_pool.ports",
        Form::Text,
        "Ports of each of its pods, separated by commas; each is an endpoint.",
    ),
    set(
        "discovery.kubernetes.pool_group",
        Form::Text,
        "API group of `InferencePool`s; `inference.networking.x-k8s.io` is the older one.",
    ),
    set(
        "discovery.kubernetes.pod_selector",
        Form::Text,
        "Label selector that the API server applies to pods; empty means all pods of the namespaces.",
    ),
    set(
        "discovery.kubernetes.adapters",
        Form::Bool,
        "Whether AIBrix's `ModelAdapter` objects are read, which say on which pods a LoRA adapter is.",
    ),
    set(
        "discovery.kubernetes.objectives",
        Form::Bool,
        "Whether `InferenceObjective` and `InferenceModelRewrite` objects are read, where pools are.",
    ),
    set("discovery.kubernetes.port", Form::Number, "Port of a pod that names none."),
    set(
        "discovery.kubernetes.server",
        Form::Text,
        "URL of the API server, without credentials. Not set: from `kubeconfig`, else from the pod that we run in.",
    ),
    set(
        "discovery.kubernetes.kubeconfig",
        Form::Path,
        "Path of a kubeconfig file. Not set: the variable `KUBECONFIG` or `~/.kube/config` if there is one, else the pod that we run in.",
    ),
    set("discovery.kubernetes.context", Form::Text, "Context in that file; not set means its current one."),
    set(
        "discovery.kubernetes.watch_timeout",
        Form::Duration,
        "How long one watch lasts before it is asked for anew. An API server that is silent for 10 s longer is given up.",
    ),
    set("discovery.kubernetes.labels.model", Form::Text, "The model that the pod serves."),
    set("discovery.kubernetes.labels.port", Form::Text, "The port that it serves at."),
    set(
        "discovery.kubernetes.labels.metrics_port",
        Form::Text,
        "The port of its metrics page; without it the serving port.",
    ),
    set(
        "discovery.kubernetes.labels.engine",
        Form::Text,
        "The engine: `vllm`, `sglang`, `trtllm`, `xllm` and so on; without it the engine is recognised by its metrics.",
    ),
    set("discovery.kubernetes.labels.role", Form::Text, "`prefill` or `decode`."),
    set("discovery.kubernetes.labels.profiles", Form::Text, "Config profiles, as JSON."),
    set("discovery.kubernetes.labels.weight", Form::Text, "Relative capacity, 1 to 1,000."),
    set("discovery.kubernetes.labels.cost", Form::Text, "Relative cost, at least 0."),
    set("discovery.kubernetes.labels.tier", Form::Text, "Tier name."),
    set("discovery.kubernetes.labels.region", Form::Text, "Region name."),
    set(
        "discovery.kubernetes.labels.active_ports",
        Form::Text,
        "The ports of a pool that are live on the pod, separated by commas; without it all of them.",
    ),
    set(
        "destination.target_pod",
        Form::Bool,
        "Set request header `target-pod: ip:port` (AIBrix; `ORIGINAL_DST` clusters).",
    ),
    set(
        "destination.endpoint_header",
        Form::Bool,
        "Set request header `x-gateway-destination-endpoint` (endpoint-picker protocol).",
    ),
    set("destination.metadata", Form::Bool, "Set the same as dynamic metadata `envoy.lb`."),
    set(
        "destination.list",
        Form::Number,
        "Endpoints in the list, best first, 1 to 8. More than one needs an `override_host` cluster.",
    ),
    set("destination.clear_route_cache", Form::Bool, "Tell Envoy to choose the route anew after our headers are set."),
    set(
        "destination.response_headers",
        Form::Bool,
        "Set the response headers `request-id`, `routing-strategy`, `target-pod` and `target-pod-ip`.",
    ),
    set(
        "destination.conformance_hooks",
        Form::Bool,
        "For the conformance suite of the Gateway API inference extension, never in production: a client names endpoints in the header `test-epp-endpoint-selection`, and the answer's `x-conformance-test-served-endpoint` tells who served.",
    ),
    set(
        "envoy.eds_file",
        Form::Path,
        "Write the endpoints to this file as an EDS resource for a plain Envoy; its folder is what Envoy watches.",
    ),
    set("envoy.eds_cluster", Form::Text, "`cluster_name` in that resource."),
    set(
        "envoy.mode_override",
        Form::Bool,
        "Use mode overrides: ask for response trailers, which keep our stream open to the end of the exchange, where streams have shown to end early; and for no more of requests that we do not route. Needs `allow_mode_override` in Envoy, which ignores them otherwise.",
    ),
    set("limits.body_bytes_max", Form::Bytes, "Largest request body, in bytes; above it 413."),
    set(
        "limits.body_budget_bytes",
        Form::Bytes,
        "Request bodies held at once, in bytes over all requests; above it 503.",
    ),
    set(
        "limits.prefix_index_bytes",
        Form::Bytes,
        "What is known of the prefixes that engines have cached, in bytes; above it the least recently used is forgotten.",
    ),
    set(
        "limits.body_timeout",
        Form::Duration,
        "How long a request body may take to arrive where we hold it (duplex mode); above it 408.",
    ),
    set(
        "limits.streams_per_connection_max",
        Form::Number,
        "gRPC streams on one connection; Envoy opens another connection above it.",
    ),
    set(
        "scrape.interval_min",
        Form::Duration,
        "Pause between two reads of an endpoint that is busy, jittered by a tenth.",
    ),
    set("scrape.interval_max", Form::Duration, "Pause that it grows to while nothing happens there."),
    set("scrape.timeout", Form::Duration, "Limit of one read, connecting included."),
    set("scrape.stale_after", Form::Duration, "Age at which a value counts as absent."),
    set("scrape.window", Form::Duration, "Length of the window over which rates, means and quantiles are taken."),
    set("scrape.concurrency", Form::Number, "Reads under way at once."),
    set(
        "scrape.reads_per_second_max",
        Form::Number,
        "Reads begun in a second, over all endpoints; above it the pauses grow.",
    ),
    set("scrape.page_bytes_max", Form::Bytes, "Largest metrics page, in bytes; a larger one is dropped."),
    set(
        "scrape.everything",
        Form::Bool,
        "Read every signal that an engine tells, also those that no strategy in use needs: for dashboards and experiments.",
    ),
    set("scrape.generic.path", Form::Path, "Path of the metrics page of an engine of kind `generic`."),
    set(
        "kv_events.enabled",
        Form::Bool,
        "Follow the KV events of engines, so that strategies that go by prefixes know what is cached instead of guessing. It needs token ids: see `tokenizer.source`.",
    ),
    set(
        "kv_events.port",
        Form::Number,
        "Port of the events where the engine does not tell it (`/kv_event_sources`, `/server_info`) and no label `kv-events-port` does; 0 means that such engines publish none.",
    ),
    set(
        "kv_events.replay_port",
        Form::Number,
        "The same for the port at which missed events are asked for (label `kv-events-replay-port`); 0 means none.",
    ),
    set("kv_events.topic", Form::Text, "Topic subscribed to at engines that do not tell it; empty means all."),
    set("kv_events.connect_timeout", Form::Duration, "Longest wait for a connection to a publisher."),
    set(
        "kv_events.expected_life",
        Form::Duration,
        "How long a prompt that was sent to an engine counts as cached there without an event that says so.",
    ),
    set(
        "kv_events.memory_mib",
        Form::Number,
        "Most memory for what engines hold, in MiB; blocks beyond it are not known.",
    ),
    set(
        "tokenizer.source",
        Form::Choice(&["engine", "service", "directory", "none"]),
        "Who makes token ids of prompts for KV events and `LMCache`: `engine` asks an endpoint that serves the model, `service` the one at `tokenizer.url`, `directory` reads `tokenizer.directory` (in builds with the feature `tokenizers`), `none` leaves only prompts that are token ids already.",
    ),
    set("tokenizer.url", Form::Text, "Service that is asked, such as `http://render:8000`."),
    set(
        "tokenizer.api",
        Form::Choice(&["tokenize", "render"]),
        "`tokenize` asks `/tokenize`; `render` the request's own path with `/render` behind it, which vLLM has with `--enable-scale-out` and in `vllm launch render`.",
    ),
    set(
        "tokenizer.directory",
        Form::Path,
        "Folder with `tokenizer.json` and `tokenizer_config.json`, or one such folder for each model by the model's name.",
    ),
    set("tokenizer.timeout", Form::Duration, "How long a decision waits for token ids; then it guesses by the text."),
    set("tokenizer.body_bytes_max", Form::Bytes, "Largest request body of which token ids are made, in bytes."),
    set("tokenizer.concurrency", Form::Number, "Questions under way at once; above it decisions guess by the text."),
    set("tokenizer.cache_mib", Form::Number, "Most memory for token ids of former prompts, in MiB."),
    set("lmcache.controller", Form::Text, "`LMCache`'s controller, such as `http://lmcache-controller:9000`."),
    set(
        "lmcache.coordinator",
        Form::Text,
        "`LMCache`'s newer coordinator, such as `http://lmcache-coordinator:9300`; it comes before the controller.",
    ),
    set("lmcache.timeout", Form::Duration, "How long a decision waits for its answer."),
    set("lmcache.cache_life", Form::Duration, "How long an answer holds for the same prompt."),
    set(
        "health.cooldown_base",
        Form::Duration,
        "First pause of an endpoint that refused, reset or answered 502 or 503; it doubles each time in a row.",
    ),
    set("health.cooldown_max", Form::Duration, "Longest pause."),
    set(
        "shutdown.delay",
        Form::Duration,
        "After the signal: report not ready but serve on for so long, so that gateways can leave.",
    ),
    set("shutdown.grace", Form::Duration, "Then wait at most so long for open streams before leaving anyway."),
    set(
        "metrics.per_endpoint",
        Form::Choice(&["full", "basic", "off"]),
        "Series of each endpoint: `full` has every gauge that is known, `basic` counts, load and cache use, `off` none.",
    ),
    set("log.format", Form::Choice(&["json", "pretty"]), "`json` or `pretty`."),
    set("log.filter", Form::Text, "A `tracing` filter, such as `info` or `fairlead=debug,info`."),
];
