//! Every scalar that can be set, in one table: flags, environment variables and `docs/configuration.md` come from it.

mod table;

pub use table::SETTINGS;

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`; the flag alone means `true`.
    Bool,
    /// A whole number.
    Number,
    /// Bytes, as a whole number.
    Bytes,
    /// A number with a unit: `50ms`, `2s`, `1m 30s`.
    Duration,
    /// `ip:port`, perhaps `unix:PATH`.
    Address,
    /// A path of a file.
    Path,
    /// Free text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Form {
    /// What stands for the value in help texts.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Number => "NUMBER",
            Self::Bytes => "BYTES",
            Self::Duration => "DURATION",
            Self::Address => "ADDRESS",
            Self::Path => "PATH",
            Self::Text => "TEXT",
            Self::Choice(_) => "CHOICE",
        }
    }

    /// How to write a value that could not be read.
    pub(super) fn advice(self) -> String {
        match self {
            Self::Bool => "write true or false".to_owned(),
            Self::Number | Self::Bytes => "write a whole number, at least 0, without a unit".to_owned(),
            Self::Duration => "write a number with its unit, such as 500ms, 2s or 1m 30s".to_owned(),
            Self::Address => "write ip:port, an IPv6 address in brackets; names are not looked up".to_owned(),
            Self::Path | Self::Text => "write text".to_owned(),
            Self::Choice(words) => format!("write one of {}", words.join(", ")),
        }
    }
}

/// When a change of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// When the configuration is read again.
    OnReload,
    /// When the process starts again.
    OnRestart,
}

/// Settings that are read once, with sections as a whole: sockets, files that we own, threads, watches, and memory that is
/// laid out at the start.
const READ_ONCE: &[&str] = &[
    "listen",
    "discovery.kubernetes",
    "envoy.eds_file",
    "envoy.eds_cluster",
    "limits.prefix_index_bytes",
    "limits.streams_per_connection_max",
    "kv_events",
    "tokenizer",
    "lmcache",
    "log.format",
];

/// One scalar of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dotted key in the file.
    pub key: &'static str,
    /// What a value looks like.
    pub form: Form,
    /// What it does; the same text as the doc comment of the field.
    pub help: &'static str,
}

impl Setting {
    /// When a change takes effect.
    pub fn effect(&self) -> Effect {
        let is_within = |section: &&str| {
            self.key.strip_prefix(*section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if READ_ONCE.iter().any(is_within) { Effect::OnRestart } else { Effect::OnReload }
    }

    /// Name of the flag without its dashes: `routing.decision_timeout` is `routing-decision-timeout`.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// Environment variable: `routing.decision_timeout` is `FAIRLEAD_ROUTING_DECISION_TIMEOUT`.
    pub fn env(&self) -> String {
        format!("FAIRLEAD_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// A second environment variable that is already in use elsewhere for the same thing.
    pub fn env_alias(&self) -> Option<&'static str> {
        (self.key == "routing.algorithm").then_some("ROUTING_ALGORITHM")
    }
}

/// The setting with this dotted key.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Config, FileDiscovery, KubernetesDiscovery};

    /// The doc comments of the fields in `model.rs`, by `section.field`.
    fn field_docs() -> Vec<(String, String)> {
        let (mut section, mut doc, mut found) = (String::new(), Vec::new(), Vec::new());
        let text = concat!(
            include_str!("../model.rs"),
            include_str!("../scrape.rs"),
            include_str!("../limits.rs"),
            include_str!("../kubernetes.rs"),
            include_str!("../precise.rs")
        );
        for line in text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("/// ") {
                doc.push(text.to_owned());
            } else if let Some(name) = line.strip_prefix("pub struct ") {
                section = name
                    .trim_end_matches(" {")
                    .to_lowercase()
                    .replace("kvevents", "kv_events")
                    .replace("filediscovery", "discovery.file")
                    .replace("kubernetesdiscovery", "discovery.kubernetes")
                    .replace("localpool", "discovery.kubernetes.local_pool")
                    .replace("kuberneteslabels", "discovery.kubernetes.labels")
                    .replace("genericengine", "scrape.generic");
                doc.clear();
            } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(": ")) {
                found.push((format!("{section}.{name}"), doc.join(" ")));
                doc.clear();
            } else if !line.starts_with("#[") {
                doc.clear();
            }
        }
        found
    }

    fn scalars(value: &serde_json::Value, key: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (name, value) in map {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    scalars(value, &key, found);
                }
            }
            serde_json::Value::Array(_) => {}
            _ => found.push(key.to_owned()),
        }
    }

    #[test]
    fn every_scalar_of_the_configuration_is_a_setting_and_nothing_else_is() {
        let mut config = Config::default();
        config.discovery.file =
            Some(FileDiscovery { path: PathBuf::from("x"), poll: std::time::Duration::from_secs(1) });
        config.discovery.kubernetes = Some(KubernetesDiscovery::default());
        let mut keys = Vec::new();
        scalars(&serde_json::to_value(&config).unwrap(), "", &mut keys);
        let mut settings: Vec<_> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        keys.sort();
        settings.sort();
        assert_eq!(settings, keys);
    }

    #[test]
    fn help_texts_are_the_field_docs() {
        let docs = field_docs();
        for setting in SETTINGS {
            let doc = docs.iter().find(|(key, _)| key == setting.key).map(|(_, doc)| doc.as_str());
            assert_eq!(doc, Some(setting.help), "{}", setting.key);
        }
    }

    #[test]
    fn names_are_derived_from_the_key() {
        let setting = setting("listen.ext_proc").unwrap();
        assert_eq!((setting.flag().as_str(), setting.env().as_str()), ("listen-ext-proc", "FAIRLEAD_LISTEN_EXT_PROC"));
    }
}
