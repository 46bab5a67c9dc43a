//! What types cannot say: ranges, combinations, names.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::endpoints::check_text;
use super::tree::Node;
use super::{Config, Fault, ListenAddress, LocalPool, Origin, TlsMode, TokenSource, check_endpoints};
use crate::domain::{Complaint, Input, Selector, hint};

/// Longest path of a unix socket that the kernel takes, in bytes (`sun_path` without its final zero).
const UNIX_PATH_MAX: usize = 107;

/// Most endpoints in the list that is given to Envoy.
const LIST_MAX: usize = 8;
/// Longest watch: what the Kubernetes client takes.
const WATCH_SECONDS_MAX: u64 = 290;
/// Decisions kept at most: each is some kilobytes.
const DECISIONS_MAX: usize = 4096;

/// Every semantic fault. One that rests on a value that was itself faulty is left out: it would speak of the default.
pub(super) fn faults(config: &Config, tree: &Node, complaints: &dyn Fn(&Config) -> Vec<Complaint>) -> Vec<Fault> {
    let mut check = Check { tree, faults: Vec::new() };
    check.listen(config);
    check.routing(config, complaints);
    check.destination(config);
    check.limits(config);
    check.durations(config);
    check.prompts(config);
    check.endpoints(config);
    check.generic(config);
    check.kubernetes(config);
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter);
    check.require(filter.is_ok(), &["log.filter"], || {
        format!("\"{}\" is not a filter; write such as info or fairlead=debug,info", config.log.filter)
    });
    check.faults
}

struct Check<'a> {
    tree: &'a Node,
    faults: Vec<Fault>,
}

impl Check<'_> {
    /// Reports a fault of the values at `keys` unless it is as it should be.
    fn require(&mut self, holds: bool, keys: &[&str], message: impl FnOnce() -> String) {
        if holds || keys.iter().any(|key| self.tree.is_broken(key)) {
            return;
        }
        let given = keys.iter().find_map(|key| Some((*key, self.tree.get(key)?.origin.clone())));
        let (key, origin) = given.unwrap_or((keys.first().copied().unwrap_or_default(), Origin::Default));
        self.faults.push(Fault { origin, key: key.to_owned(), message: message() });
    }

    fn listen(&mut self, config: &Config) {
        if let ListenAddress::Unix(path) = &config.listen.ext_proc {
            let bytes = path.as_os_str().len();
            self.require(bytes <= UNIX_PATH_MAX, &["listen.ext_proc"], || {
                format!("the path has {bytes} bytes, a unix socket takes at most {UNIX_PATH_MAX}; use a shorter folder")
            });
        }
        let is_tcp = matches!(config.listen.ext_proc, ListenAddress::Tcp(_));
        let is_tls = config.listen.tls != TlsMode::Off;
        self.require(is_tcp || !is_tls, &["listen.tls", "listen.ext_proc"], || {
            "TLS is spoken over TCP only; a unix socket has the file's permissions".to_owned()
        });
        self.require(is_tls || config.listen.certificate.is_none(), &["listen.certificate", "listen.tls"], || {
            "a certificate is of no use while `listen.tls` is off; set it to required or accepted".to_owned()
        });
        let admin = config.listen.admin;
        let clash = matches!(config.listen.ext_proc, ListenAddress::Tcp(other) if collide(other, admin));
        self.require(!clash, &["listen.admin", "listen.ext_proc"], || {
            format!("ext_proc and admin cannot both listen at {admin}; give them two ports")
        });
        if let Some(health) = config.listen.health {
            let is_taken = collide(health, admin)
                || matches!(config.listen.ext_proc, ListenAddress::Tcp(other) if collide(other, health));
            self.require(!is_taken, &["listen.health"], || {
                format!("{health} is taken already; give health its own port")
            });
        }
    }

    fn endpoints(&mut self, config: &Config) {
        let nodes = self.tree.elements("discovery.static");
        for (index, message) in check_endpoints(&config.discovery.fixed) {
            // Those that could not be read are not in the list, so a position in it is not the one in the file.
            let (written_at, origin) =
                nodes.get(index).map_or((index, Origin::Default), |(at, node)| (*at, node.origin.clone()));
            self.faults.push(Fault { origin, key: format!("discovery.static[{written_at}]"), message });
        }
    }

    fn kubernetes(&mut self, config: &Config) {
        let Some(kubernetes) = &config.discovery.kubernetes else { return };
        let seconds = kubernetes.watch_timeout.as_secs();
        self.require((1..=WATCH_SECONDS_MAX).contains(&seconds), &["discovery.kubernetes.watch_timeout"], || {
            format!("must be 1s to {WATCH_SECONDS_MAX}s")
        });
        self.require(kubernetes.port != 0, &["discovery.kubernetes.port"], || "is 0; write a port".to_owned());
        let is_name = |name: &str| name == "*" || !name.split('/').any(str::is_empty) && name.split('/').count() <= 2;
        let wrong = kubernetes.pools.iter().find(|name| !is_name(name));
        self.require(wrong.is_none(), &["discovery.kubernetes.pools"], || {
            format!("\"{}\" is not the name of a pool; write name or namespace/name", wrong.unwrap_or_default())
        });
        self.local_pool(&kubernetes.local_pool);
        let given = kubernetes.server.is_none() || kubernetes.kubeconfig.is_none();
        self.require(given, &["discovery.kubernetes.server", "discovery.kubernetes.kubeconfig"], || {
            "the API server is given twice; leave out one of `server` and `kubeconfig`".to_owned()
        });
    }

    fn local_pool(&mut self, pool: &LocalPool) {
        let key = |name| format!("discovery.kubernetes.local_pool.{name}");
        self.require(pool.is_given() || pool.namespace.is_none(), &[&key("namespace")], || {
            "says where the pods of a pool are, but not which; write `selector` too".to_owned()
        });
        let selector = Selector::parse(&pool.selector);
        self.require(selector.is_ok(), &[&key("selector")], || {
            let error = selector.as_ref().err().map(ToString::to_string).unwrap_or_default();
            format!("\"{}\" is not a label selector: {error}", pool.selector)
        });
        let ports = pool.ports.as_slice();
        self.require(!ports.is_empty() && !ports.contains(&0), &[&key("ports")], || {
            "needs ports, none of them 0".to_owned()
        });
    }

    /// The mapping of a generic engine.
    fn generic(&mut self, config: &Config) {
        let generic = &config.scrape.generic;
        self.require(generic.path.starts_with('/') && is_uri(&generic.path), &["scrape.generic.path"], || {
            format!("\"{}\" is not a path; write such as /metrics", generic.path)
        });
        for (name, metric) in &generic.metrics {
            let key = format!("scrape.generic.metrics.{name}");
            let names: Vec<_> = Input::names().collect();
            self.require(Input::named(name).is_some(), &[&key], || {
                format!("there is no gauge, counter or histogram \"{name}\"; {}", hint(name, names.iter().copied()))
            });
            let sound = !metric.names.is_empty() && metric.names.iter().all(|name| !name.is_empty());
            self.require(sound, &[&key], || "needs at least one name, and none that is empty".to_owned());
            self.require(metric.scale.is_finite() && metric.scale > 0.0, &[&key], || {
                format!("scale {} is not a number above 0", metric.scale)
            });
        }
    }

    /// Strategies and profiles. What refers to one that could not be read is not looked at.
    fn routing(&mut self, config: &Config, complaints: &dyn Fn(&Config) -> Vec<Complaint>) {
        let kept = config.routing.decision_ring;
        self.require(kept <= DECISIONS_MAX, &["routing.decision_ring"], || {
            format!("is {kept}; at most {DECISIONS_MAX} decisions are kept")
        });
        let sections = ["routing", "routing.algorithm", "routing.strategies", "routing.models"];
        if sections.iter().any(|key| self.tree.is_broken(key))
            || sections.iter().skip(2).any(|key| self.tree.has_broken(key))
        {
            return;
        }
        for model in config.routing.models.keys() {
            if let Some(message) = check_text("name of model", model) {
                let (origin, key) = self.tree.trace(&["routing", "models", model].map(str::to_owned));
                self.faults.push(Fault { origin, key: key.escape_debug().to_string(), message });
            }
        }
        for Complaint { path, message } in complaints(config) {
            let (origin, key) = self.tree.trace(&path);
            self.faults.push(Fault { origin, key, message });
        }
    }

    fn destination(&mut self, config: &Config) {
        let to = &config.destination;
        self.require((1..=LIST_MAX).contains(&to.list), &["destination.list"], || {
            format!("is {}; a list has 1 to {LIST_MAX} endpoints", to.list)
        });
        let keys =
            ["destination.list", "destination.endpoint_header", "destination.metadata", "destination.target_pod"];
        self.require(to.list <= 1 || to.endpoint_header || to.metadata, &keys, || {
            "`target-pod` names one endpoint only; for a longer list switch `destination.endpoint_header` or \
             `destination.metadata` on"
                .to_owned()
        });
        let keys = ["destination.target_pod", "destination.endpoint_header", "destination.metadata"];
        self.require(to.target_pod || to.endpoint_header || to.metadata, &keys, || {
            "with `target_pod`, `endpoint_header` and `metadata` all off, Envoy is never told the choice; switch one on"
                .to_owned()
        });
        if let Some(path) = &config.envoy.eds_file {
            self.require(is_yaml_or_json(path), &["envoy.eds_file"], || {
                format!("\"{}\" must end in .yaml or .json: Envoy reads other endings as protobuf", path.display())
            });
        }
        let wrong = check_text("name of cluster", &config.envoy.eds_cluster);
        self.require(wrong.is_none(), &["envoy.eds_cluster"], || wrong.clone().unwrap_or_default());
    }

    fn limits(&mut self, config: &Config) {
        let (limits, scrape) = (&config.limits, &config.scrape);
        for (key, value) in [
            ("limits.body_bytes_max", limits.body_bytes_max),
            ("limits.body_budget_bytes", limits.body_budget_bytes),
            ("limits.streams_per_connection_max", limits.streams_per_connection_max as usize),
            ("scrape.concurrency", scrape.concurrency),
            ("scrape.reads_per_second_max", scrape.reads_per_second_max as usize),
            ("scrape.page_bytes_max", scrape.page_bytes_max),
        ] {
            self.require(value > 0, &[key], || "is 0; it must be at least 1".to_owned());
        }
        let keys = ["limits.body_bytes_max", "limits.body_budget_bytes"];
        self.require(limits.body_bytes_max <= limits.body_budget_bytes, &keys, || {
            format!(
                "one body of {} bytes would not fit into `limits.body_budget_bytes` of {}; raise the budget or lower \
                 `limits.body_bytes_max`",
                limits.body_bytes_max, limits.body_budget_bytes
            )
        });
    }

    /// What is asked of others about prompts.
    fn prompts(&mut self, config: &Config) {
        let (tokenizer, lmcache) = (&config.tokenizer, &config.lmcache);
        for (key, url) in [
            ("tokenizer.url", &tokenizer.url),
            ("lmcache.controller", &lmcache.controller),
            ("lmcache.coordinator", &lmcache.coordinator),
        ] {
            let is_sound = url.as_deref().is_none_or(|url| url.len() > 7 && url.starts_with("http://") && is_uri(url));
            self.require(is_sound, &[key], || {
                "must begin with http:// and name a host; TLS is not spoken here".to_owned()
            });
        }
        let keys = ["tokenizer.source", "tokenizer.url"];
        let has_url = tokenizer.source != TokenSource::Service || tokenizer.url.is_some();
        self.require(has_url, &keys, || "`service` needs `tokenizer.url`".to_owned());
        let keys = ["tokenizer.source", "tokenizer.directory"];
        let has_directory = tokenizer.source != TokenSource::Directory || tokenizer.directory.is_some();
        self.require(has_directory, &keys, || "`directory` needs `tokenizer.directory`".to_owned());
        for (key, value) in [
            ("tokenizer.concurrency", tokenizer.concurrency),
            ("kv_events.memory_mib", config.kv_events.memory_mib as usize),
        ] {
            self.require(value > 0, &[key], || "is 0; it must be at least 1".to_owned());
        }
        let (wait, all) = (tokenizer.timeout.max(lmcache.timeout), config.routing.decision_timeout);
        self.require(wait < all, &["tokenizer.timeout", "lmcache.timeout", "routing.decision_timeout"], || {
            "must be shorter than `routing.decision_timeout`, for it is a part of that time".to_owned()
        });
    }

    fn durations(&mut self, config: &Config) {
        let (scrape, health) = (&config.scrape, &config.health);
        let poll = config.discovery.file.as_ref().map_or(Duration::MAX, |file| file.poll);
        for (key, value) in [
            ("routing.decision_timeout", config.routing.decision_timeout),
            ("discovery.file.poll", poll),
            ("limits.body_timeout", config.limits.body_timeout),
            ("scrape.interval_min", scrape.interval_min),
            ("scrape.interval_max", scrape.interval_max),
            ("scrape.window", scrape.window),
            ("scrape.timeout", scrape.timeout),
            ("scrape.stale_after", scrape.stale_after),
            ("health.cooldown_base", health.cooldown_base),
            ("health.cooldown_max", health.cooldown_max),
            ("kv_events.connect_timeout", config.kv_events.connect_timeout),
            ("kv_events.expected_life", config.kv_events.expected_life),
            ("tokenizer.timeout", config.tokenizer.timeout),
            ("lmcache.timeout", config.lmcache.timeout),
        ] {
            self.require(!value.is_zero(), &[key], || "is 0; write a duration above zero, such as 1s".to_owned());
        }
        let ordered = health.cooldown_base <= health.cooldown_max;
        self.require(ordered, &["health.cooldown_base", "health.cooldown_max"], || {
            let text = humantime::format_duration;
            let (base, max) = (text(health.cooldown_base), text(health.cooldown_max));
            format!("the first pause ({base}) is longer than `health.cooldown_max` ({max})")
        });
        let ordered = scrape.interval_min <= scrape.interval_max;
        self.require(ordered, &["scrape.interval_min", "scrape.interval_max"], || {
            let text = humantime::format_duration;
            let (min, max) = (text(scrape.interval_min), text(scrape.interval_max));
            format!("the shortest pause ({min}) is longer than `scrape.interval_max` ({max})")
        });
        let fresh = scrape.interval_max <= scrape.stale_after;
        self.require(fresh, &["scrape.stale_after", "scrape.interval_max"], || {
            let text = humantime::format_duration;
            let (age, pause) = (text(scrape.stale_after), text(scrape.interval_max));
            format!("values would be stale ({age}) before they are read again ({pause}); raise `scrape.stale_after`")
        });
    }
}

/// Whether a text can stand in the first line of a request.
fn is_uri(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || c.is_whitespace()) && text.parse::<http::Uri>().is_ok()
}

/// Whether only one of two sockets can listen: an unspecified address is every address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    is_same && one.port() == other.port() && one.port() != 0
}

fn is_yaml_or_json(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "json")
}
