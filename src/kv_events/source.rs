//! Where an endpoint publishes its events: as the engine itself says, else by labels and configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::config::KvEvents;
use crate::domain::EndpointSpec;

/// Label that switches an endpoint's events on or off, as in AIBrix.
const ENABLED: &str = "model.aibrix.ai/kv-events-enabled";
/// Labels with the ports of an endpoint whose engine does not tell them.
const PORT: &str = "kv-events-port";
const REPLAY_PORT: &str = "kv-events-replay-port";

/// Data-parallel ranks of one endpoint that are followed.
const RANKS_MAX: usize = 64;

/// One publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// `tcp://ip:port`.
    pub(super) address: String,
    /// Where to ask for a replay.
    pub(super) replay: Option<String>,
    /// What its messages begin with.
    pub(super) topic: String,
}

/// vLLM's answer to `GET /kv_event_sources`, by rank.
type VllmSources = BTreeMap<String, VllmSource>;

#[derive(Debug, Deserialize)]
struct VllmSource {
    #[serde(default)]
    publisher: Option<String>,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    replay_endpoint: Option<String>,
    #[serde(default)]
    topic: Option<String>,
}

/// What SGLang's `GET /server_info` says of it.
#[derive(Debug, Deserialize)]
struct SglangInfo {
    #[serde(default)]
    kv_events: Option<SglangSource>,
}

#[derive(Debug, Deserialize)]
struct SglangSource {
    endpoint_port_base: u16,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    dp_size: Option<u16>,
    #[serde(default)]
    replay_endpoint_port_base: Option<u16>,
}

/// Whether an endpoint's events are to be followed at all.
pub(super) fn is_wanted(spec: &EndpointSpec) -> bool {
    spec.labels.get(ENABLED).is_none_or(|value| value != "false")
}

/// Reads vLLM's answer. `None` if it is nothing of the kind.
pub(super) fn of_vllm(body: &[u8], engine: IpAddr) -> Option<Vec<Source>> {
    let sources: VllmSources = serde_json::from_slice(body).ok()?;
    let source = |source: VllmSource| {
        let is_published = source.publisher.as_deref() == Some("zmq");
        let address = reachable(source.endpoint.as_deref().filter(|_| is_published)?, engine)?;
        let replay = source.replay_endpoint.and_then(|text| reachable(&text, engine));
        Some(Source { address, replay, topic: source.topic.unwrap_or_default() })
    };
    Some(sources.into_values().take(RANKS_MAX).filter_map(source).collect())
}

/// Reads SGLang's answer. `None` if it is nothing of the kind.
pub(super) fn of_sglang(body: &[u8], engine: IpAddr) -> Option<Vec<Source>> {
    let info: SglangInfo = serde_json::from_slice(body).ok()?;
    let Some(told) = info.kv_events else { return Some(Vec::new()) };
    let ranks = told.dp_size.unwrap_or(1).clamp(1, RANKS_MAX as u16);
    let at = |base: u16, rank: u16| Some(tcp(SocketAddr::new(engine, base.checked_add(rank)?)));
    let source = |rank| {
        Some(Source {
            address: at(told.endpoint_port_base, rank)?,
            replay: told.replay_endpoint_port_base.and_then(|base| at(base, rank)),
            topic: told.topic.clone().unwrap_or_default(),
        })
    };
    Some((0..ranks).filter_map(source).collect())
}

/// By labels, else by configuration: one publisher, or none.
pub(super) fn assumed(spec: &EndpointSpec, config: &KvEvents) -> Vec<Source> {
    let port = |label: &str, default: u16| {
        let given = spec.labels.get(label).and_then(|text| text.parse().ok());
        Some(given.unwrap_or(default)).filter(|port| *port != 0)
    };
    let at = |port| tcp(SocketAddr::new(spec.address.ip(), port));
    let replay = port(REPLAY_PORT, config.replay_port).map(at);
    let source = |port| Source { address: at(port), replay, topic: config.topic.clone() };
    port(PORT, config.port).map(source).into_iter().collect()
}

fn tcp(address: SocketAddr) -> String {
    format!("tcp://{address}")
}

/// The address at which others reach what an engine binds. `None` for one to which the engine itself connects, and for a
/// unix socket on another machine: it would be one of ours that has nothing to do with it.
fn reachable(text: &str, engine: IpAddr) -> Option<String> {
    if text.starts_with("ipc://") {
        return engine.to_canonical().is_loopback().then(|| text.to_owned());
    }
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    // What vLLM binds has one of these; to anything else it connects.
    let is_bound = ["*", "0.0.0.0", "::", "[::]"].contains(&host);
    let is_own = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip == engine);
    (is_bound || is_own).then(|| tcp(SocketAddr::new(engine, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    #[test]
    fn a_vllm_names_its_ranks() {
        let body = br#"{"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:15557",
            "replay_endpoint":"tcp://*:15658","buffer_steps":10000,"topic":"kv-events"},
            "1":{"publisher":"zmq","endpoint":"tcp://*:15558","replay_endpoint":null,"topic":""},
            "2":{"publisher":"null","endpoint":"tcp://*:1"},"3":{"publisher":"zmq","endpoint":"tcp://10.0.0.9:5557"}}"#;
        let source = |address: &str, replay: Option<&str>, topic: &str| Source {
            address: address.to_owned(),
            replay: replay.map(str::to_owned),
            topic: topic.to_owned(),
        };
        let expected = [
            source("tcp://10.0.0.7:15557", Some("tcp://10.0.0.7:15658"), "kv-events"),
            source("tcp://10.0.0.7:15558", None, ""),
        ];
        assert_eq!(of_vllm(body, IP).unwrap(), expected);
        assert_eq!(of_vllm(b"{}", IP), Some(Vec::new()));
        assert_eq!(of_vllm(b"not found", IP), None);
    }

    #[test]
    fn a_unix_socket_is_taken_from_an_engine_on_this_machine_alone() {
        let body =
            br#"{"0":{"publisher":"zmq","endpoint":"ipc:///run/kv.sock","replay_endpoint":"ipc:///run/replay.sock"}}"#;
        let own = of_vllm(body, IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(
            (own[0].address.as_str(), own[0].replay.as_deref()),
            ("ipc:///run/kv.sock", Some("ipc:///run/replay.sock"))
        );
        assert_eq!(of_vllm(body, IP), Some(Vec::new()));
        let replay =
            br#"{"0":{"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"ipc:///run/replay.sock"}}"#;
        assert_eq!(of_vllm(replay, IP).unwrap()[0].replay, None);
    }

    #[test]
    fn an_sglang_names_a_base_port_and_its_ranks() {
        let body = br#"{"model_path":"m","kv_events":{"publisher":"zmq","endpoint_host":"*","endpoint_port_base":5557,
            "topic":"","block_size":16,"dp_size":2,"replay_endpoint_port_base":5657}}"#;
        let sources = of_sglang(body, IP).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(
            (sources[1].address.as_str(), sources[1].replay.as_deref()),
            ("tcp://10.0.0.7:5558", Some("tcp://10.0.0.7:5658"))
        );
        assert_eq!(of_sglang(br#"{"kv_events":null}"#, IP), Some(Vec::new()));
    }

    #[test]
    fn labels_come_before_the_configuration() {
        let mut spec = EndpointSpec::at("[fd00::7]:8000".parse().unwrap());
        let config = KvEvents { port: 5557, replay_port: 0, ..KvEvents::default() };
        assert_eq!(
            assumed(&spec, &config)[0],
            Source { address: "tcp://[fd00::7]:5557".into(), replay: None, topic: String::new() }
        );
        spec.labels =
            [(PORT, "7"), (REPLAY_PORT, "8"), (ENABLED, "false")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(assumed(&spec, &config)[0].replay.as_deref(), Some("tcp://[fd00::7]:8"));
        assert!(!is_wanted(&spec));
        assert_eq!(assumed(&EndpointSpec::at(spec.address), &KvEvents { port: 0, ..config }), []);
    }
}
