//! Every metric family: its name, its labels and what it means. `docs/metrics.md` is this list.

use crate::domain::Gauge;

/// What a value of a family does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// Full name as it is scraped; a counter ends in `_total`.
    pub name: &'static str,
    /// One phrase without a full stop.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in order.
    pub labels: &'static [&'static str],
}

impl Declaration {
    /// The name without the suffix that the exposition format adds to counters.
    pub fn stem(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

macro_rules! families {
    ($($ident:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $ident: Declaration =
                Declaration { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };
        )*
        /// All of them, in the order of the documentation.
        pub const ALL: &[Declaration] = &[$($ident),*];
    };
}

families! {
    STREAMS_OPEN: Gauge "fairlead_streams_open" [] "ext_proc streams open now, one for each HTTP request";
    STREAMS: Counter "fairlead_streams_total" [] "ext_proc streams opened";
    DECISIONS: Counter "fairlead_decisions_total" ["strategy"]
        "Endpoints chosen, by the strategy that chose; all combinations count as `combination`";
    COMBINATIONS_BUILT: Counter "fairlead_combinations_built_total" []
        "Combinations of strategies put together for requests; it keeps growing if clients write ever new ones";
    DECISION_SECONDS: Histogram "fairlead_decision_seconds" []
        "Time from a complete request to the choice of its endpoint, in seconds";
    DEGRADED_DECISIONS: Counter "fairlead_degraded_decisions_total" []
        "Decisions that another strategy made, because the one that should have waited too long, had nothing to go by, or is not known";
    PASSED_THROUGH: Counter "fairlead_passed_through_total" []
        "Requests left to Envoy without a destination, because we do not route their path";
    REFUSALS: Counter "fairlead_refusals_total" ["reason"] "Requests that we answered ourselves with an error";
    RESPONSES: Counter "fairlead_responses_total" ["class"]
        "Responses seen on routed requests, by status class (`2xx`)";
    RESPONSE_PIECES: Counter "fairlead_response_pieces_total" []
        "Messages with pieces of response bodies; 0 where no strategy measures answers, no model was rewritten and Envoy shows none by itself";
    ABORTED: Counter "fairlead_aborted_total" []
        "Routed requests whose stream ended before response headers: the client left, or Envoy did";
    FAILOVERS: Counter "fairlead_failovers_total" [] "Requests served by another endpoint than the first one named";
    EARLY_STREAM_ENDS: Counter "fairlead_early_stream_ends_total" []
        "Streams that Envoy closed at the response headers, so that the end of the exchange was not seen";
    PROTOCOL_FAULTS: Counter "fairlead_protocol_faults_total" ["kind"]
        "Messages from Envoy that its protocol does not allow where they came";
    BODY_BYTES_HELD: Gauge "fairlead_body_bytes_held" [] "Bytes of request bodies held now, over all requests";
    ENDPOINT_FAILURES: Counter "fairlead_endpoint_failures_total" ["failure"]
        "Failures of endpoints as seen on requests";
    ENDPOINTS_PUT_ASIDE: Counter "fairlead_endpoints_put_aside_total" [] "Pauses begun by failing endpoints";
    PREFIX_ANSWERS: Counter "fairlead_prefix_answers_total" []
        "Answers whose usage told how much of the prompt was cached, where we had expected something";
    PREFIX_PROMPT_TOKENS: Counter "fairlead_prefix_prompt_tokens_total" [] "Prompt tokens of these answers, as reported";
    PREFIX_EXPECTED_TOKENS: Counter "fairlead_prefix_expected_tokens_total" []
        "Prompt tokens of these answers that we took to be cached";
    PREFIX_REPORTED_TOKENS: Counter "fairlead_prefix_reported_tokens_total" []
        "Prompt tokens of these answers that were cached, as reported";
    PREFIX_ERROR_TOKENS: Counter "fairlead_prefix_error_tokens_total" []
        "Sum of the differences, answer by answer, between expected and reported tokens, whichever was more";
    PREFIX_INDEX_BYTES: Gauge "fairlead_prefix_index_bytes" [] "Memory of the prefix index, in bytes; it has a bound";
    PREFIX_INDEX_BLOCKS: Gauge "fairlead_prefix_index_blocks" []
        "Different blocks of prompts in the prefix index, of 256 bytes each";
    PREFIX_INDEX_HELD: Gauge "fairlead_prefix_index_held_blocks" []
        "Blocks in the prefix index of all endpoints together; one that two endpoints hold counts twice";
    PREFIX_INDEX_DROPPED: Counter "fairlead_prefix_index_dropped_blocks_total" ["reason"]
        "Blocks dropped from the prefix index: `full` endpoint cache, `memory` bound, `expired`";
    ENDPOINTS: Gauge "fairlead_endpoints" [] "Endpoints known";
    SNAPSHOT_VERSION: Gauge "fairlead_snapshot_version" [] "Publications of the set of endpoints; 0 before the first";
    ENDPOINT_IN_FLIGHT: Gauge "fairlead_endpoint_in_flight" ["endpoint", "name"]
        "Requests in flight at the endpoint from this process";
    ENDPOINT_SENT: Counter "fairlead_endpoint_sent_total" ["endpoint", "name"] "Requests sent to the endpoint";
    ENDPOINT_FAILED: Counter "fairlead_endpoint_failed_total" ["endpoint", "name"] "Failures of the endpoint";
    ENDPOINT_ASIDE: Gauge "fairlead_endpoint_aside" ["endpoint", "name"] "1 while the endpoint is put aside, else 0";
    ENDPOINT_REQUESTS: Gauge "fairlead_endpoint_requests" ["endpoint", "name"]
        "Requests there now, ours and those of others, as load is compared by";
    ENDPOINT_PREFILL_TOKENS: Gauge "fairlead_endpoint_prefill_tokens" ["endpoint", "name"]
        "Prompt tokens that we sent there and that are not known to be prefilled";
    ENDPOINT_BUSY_SHARE: Gauge "fairlead_endpoint_busy_share" ["endpoint", "name"]
        "Share of the last minute in which we had a request in flight there, 0 to 1";
    ENDPOINT_OWN_TTFT: Gauge "fairlead_endpoint_own_ttft_mean_seconds" ["endpoint", "name"]
        "Mean time to first token over the last minute, as we saw it, in seconds; absent where answers are not looked at";
    ENDPOINT_EXPECTED_HITS: Gauge "fairlead_endpoint_prefix_expected_hit_rate" ["endpoint", "name"]
        "Share of the last minute's prompt tokens that we took to be cached there, 0 to 1; absent where no strategy looks";
    ENDPOINT_SCRAPE_AGE: Gauge "fairlead_endpoint_scrape_age_seconds" ["endpoint", "name"]
        "Age of the last reading of the engine's metrics, in seconds; absent before the first";
    ENDPOINTS_STALE: Gauge "fairlead_endpoints_stale" []
        "Endpoints whose engine should tell its numbers, but has told none lately";
    ENGINE_RESTARTS: Counter "fairlead_engine_restarts_total" []
        "Engines that began anew: their counters went back, or their process was another one";
    SCRAPES: Counter "fairlead_scrapes_total" ["result"] "Reads of engine metrics, by result (`ok`, `failed`)";
    SCRAPE_UNREADABLE: Counter "fairlead_scrape_unreadable_lines_total" [] "Lines of metrics pages that could not be read";
    SCRAPE_TOO_LARGE: Counter "fairlead_scrape_pages_too_large_total" [] "Metrics pages dropped at the size limit";
    KV_PUBLISHERS: Gauge "fairlead_kv_event_publishers" [] "Publishers of KV events that are connected now";
    KV_CONNECTS_FAILED: Counter "fairlead_kv_event_connects_failed_total" []
        "Attempts to connect to a publisher of KV events that failed";
    KV_BATCHES: Counter "fairlead_kv_event_batches_total" [] "Batches of KV events taken";
    KV_EVENT_BLOCKS: Counter "fairlead_kv_event_blocks_total" ["kind"]
        "Blocks in KV events: `stored`, `removed`, and `orphan` for stored ones whose parent block is not known";
    KV_EVENTS_SKIPPED: Counter "fairlead_kv_events_skipped_total" ["reason"]
        "KV events that changed nothing: `unknown` kinds, and `unreadable` ones, for which the cache counts as empty";
    KV_REPLAYS: Counter "fairlead_kv_event_replays_total" ["result"] "Replays of KV events: all (`begun`), and those that `failed`";
    KV_CACHES_CLEARED: Counter "fairlead_kv_caches_cleared_total" ["reason"]
        "Times that an engine's cache was taken to be empty: events missing for good (`gap`), a `restart`, or a connection `lost`";
    KV_CACHES_COMPLETE: Gauge "fairlead_kv_caches_complete" []
        "Engine caches of which all is known that they hold; of others only what was stored since we listen";
    KV_BLOCKS: Gauge "fairlead_kv_blocks" ["tier"] "Blocks that engines hold by their own account, by tier";
    KV_BLOCKS_REFUSED: Counter "fairlead_kv_blocks_refused_total" []
        "Blocks told by engines that were not kept for want of memory (`kv_events.memory_mib`)";
    KV_EXPECTATIONS_REFUSED: Counter "fairlead_kv_expectations_refused_total" []
        "Prompts sent to an engine that were not counted as soon cached there, for want of memory (`kv_events.memory_mib`)";
    KV_INDEX_BYTES: Gauge "fairlead_kv_index_bytes" [] "Memory for the blocks that engines hold, in bytes";
    PREFIX_LOOKUPS: Counter "fairlead_prefix_lookups_total" ["result"]
        "Prompts looked up before their decision: token ids `given` by the client, `kept` from before or `asked` for; else what is cached was guessed by the text, the answer being `late`, `failed`, from `nobody`, `busy`, or the request `unsuited`";
    TOKEN_CACHE_BYTES: Gauge "fairlead_token_cache_bytes" [] "Memory for token ids of former prompts, in bytes";
    LMCACHE_LOOKUPS: Counter "fairlead_lmcache_lookups_total" ["result"] "Questions to LMCache, by result (`ok`, `failed`)";
    ADMIN_CONNECTIONS: Gauge "fairlead_admin_connections" [] "Connections to the admin port open now";
    ADMIN_CROWDED_OUT: Counter "fairlead_admin_connections_crowded_out_total" []
        "Connections to the admin port closed while idle, or refused, because there were too many";
    CONFIG_RELOADS: Counter "fairlead_config_reloads_total" ["result"]
        "Reads of the configuration after the start, by result (`ok`, `failed`); one that failed changed nothing";
    CONFIG_LOADED: Gauge "fairlead_config_last_load_timestamp_seconds" []
        "When the configuration in effect was read, in seconds since 1970";
    CONFIG_WAITING: Gauge "fairlead_config_settings_waiting_for_restart" []
        "Settings that have another value in the configuration file than in effect; `/api/config` names them";
    DISCOVERY_RELOADS: Counter "fairlead_discovery_reloads_total" ["source", "result"]
        "Reads of a discovery source after a change, by result (`ok`, `failed`)";
    KUBERNETES_SILENCE: Gauge "fairlead_kubernetes_silence_seconds" ["resource"]
        "Time since the Kubernetes API server last answered the watches of these objects; far above `discovery.kubernetes.watch_timeout` we do not hear of changes";
    KUBERNETES_PODS: Gauge "fairlead_kubernetes_pods" []
        "Pods kept of Kubernetes: those that name a model, and all of namespaces in which pools are watched";
    KUBERNETES_EVENTS: Counter "fairlead_kubernetes_events_total" ["resource"]
        "Objects that came, changed or went while they were watched";
    KUBERNETES_LISTINGS: Counter "fairlead_kubernetes_listings_total" ["resource"]
        "Listings begun: one for each watch at the start, and one more each time that a watch could not go on";
    KUBERNETES_ERRORS: Counter "fairlead_kubernetes_errors_total" ["resource"]
        "Requests to the API server that failed, and watches that broke";
    KUBERNETES_REFUSED: Counter "fairlead_kubernetes_objects_refused_total" ["resource"]
        "Objects that were not taken because there are too many of their kind";
}

/// The labels of every family of endpoints.
const OF_AN_ENDPOINT: &[&str] = &["endpoint", "name"];

/// The family that shows a gauge of each endpoint.
pub const fn endpoint_gauge(gauge: Gauge) -> Declaration {
    Declaration { name: gauge.metric(), help: gauge.summary(), kind: Kind::Gauge, labels: OF_AN_ENDPOINT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_prefixed_and_suffixed_by_kind() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.name.starts_with("fairlead_"), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(!family.help.ends_with('.'), "{}", family.name);
        }
    }
}
