//! What a configuration that was read again changes.

use serde_json::Value;

use super::{Config, Effect, SETTINGS};

/// Lists and maps, which are no settings of one value. All of them take effect when they are read again.
const TABLES: [&str; 4] = ["discovery.static", "routing.strategies", "routing.models", "scrape.generic.metrics"];

/// What becomes of a running configuration when another one was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// The configuration that is in effect from now on.
    pub config: Config,
    /// Keys whose new value takes effect.
    pub changed: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub waiting: Vec<String>,
}

impl Reload {
    /// Takes from `read` what can change while the process runs, and the rest from `running`.
    pub fn new(running: &Config, read: &Config) -> Self {
        let (before, mut after) = (tree(running), tree(read));
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        for setting in SETTINGS {
            let Some(key) = difference(&before, &after, setting.key) else { continue };
            let keys = match setting.effect() {
                Effect::OnReload => &mut changed,
                Effect::OnRestart => &mut waiting,
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        changed.extend(TABLES.iter().filter_map(|key| difference(&before, &after, key)));
        for key in &waiting {
            put_back(&before, &mut after, key);
        }
        // Both were configurations, and so is what is put together of them.
        let config = serde_json::from_value(after);
        debug_assert!(config.is_ok(), "{config:?}");
        Self { config: config.unwrap_or_else(|_| running.clone()), changed, waiting }
    }
}

fn tree(config: &Config) -> Value {
    let tree = serde_json::to_value(config);
    debug_assert!(tree.is_ok(), "{tree:?}");
    tree.unwrap_or_default()
}

/// The key at which two trees differ on the way to `key`: that itself, or a section that one of them does not have.
fn difference(before: &Value, after: &Value, key: &str) -> Option<String> {
    let (mut before, mut after, mut length) = (before, after, 0);
    for part in key.split('.') {
        if !(before.is_object() && after.is_object()) {
            break;
        }
        // What is not there is as good as null: empty lists and maps are left out.
        (before, after) = (before.get(part).unwrap_or(&Value::Null), after.get(part).unwrap_or(&Value::Null));
        length += part.len() + usize::from(length > 0);
    }
    (before != after).then(|| key.get(..length).unwrap_or(key).to_owned())
}

fn put_back(before: &Value, after: &mut Value, key: &str) {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let pointer = if section.is_empty() { String::new() } else { format!("/{}", section.replace('.', "/")) };
    let (Some(Value::Object(from)), Some(Value::Object(to))) = (before.pointer(&pointer), after.pointer_mut(&pointer))
    else {
        return;
    };
    match from.get(name) {
        Some(value) => drop(to.insert(name.to_owned(), value.clone())),
        None => drop(to.remove(name)),
    }
}

/// The same configuration with another value of one setting.
#[cfg(test)]
pub(crate) fn with_another(setting: &super::Setting, config: &Config) -> Config {
    use super::Form;

    let mut changed = tree(config);
    let value = changed.pointer_mut(&format!("/{}", setting.key.replace('.', "/"))).unwrap();
    *value = match (setting.key, setting.form) {
        ("routing.algorithm", _) => "random".into(),
        // A file that there is.
        ("routing.session_key_file", _) => "Cargo.toml".into(),
        (_, Form::Bool) => Value::Bool(!value.as_bool().unwrap()),
        (_, Form::Number | Form::Bytes) => Value::from(value.as_u64().unwrap_or(0) + 1),
        (_, Form::Duration) => "77s".into(),
        (_, Form::Address) => "127.0.0.7:777".into(),
        (_, Form::Choice(words)) => (*words.iter().find(|word| *value != **word).unwrap()).into(),
        (key, Form::Path | Form::Text) if key.ends_with("ports") => "7".into(),
        (_, Form::Path | Form::Text) if value.is_array() => serde_json::json!(["other"]),
        (_, Form::Path | Form::Text) => "other".into(),
    };
    serde_json::from_value(changed).unwrap_or_else(|error| panic!("{}: {error}", setting.key))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{FileDiscovery, KubernetesDiscovery};

    fn full() -> Config {
        let mut config = Config::default();
        config.discovery.file = Some(FileDiscovery { path: "x".into(), poll: Duration::from_secs(1) });
        config.discovery.kubernetes = Some(KubernetesDiscovery::default());
        config
    }

    #[test]
    fn every_setting_takes_effect_or_waits_for_a_restart() {
        let running = full();
        for setting in SETTINGS {
            let read = with_another(setting, &running);
            assert_ne!(read, running, "{}", setting.key);
            let reload = Reload::new(&running, &read);
            let key = vec![setting.key.to_owned()];
            let (expected, keys) = match setting.effect() {
                Effect::OnReload => (&read, (key, vec![])),
                Effect::OnRestart => (&running, (vec![], key)),
            };
            assert_eq!((&reload.config, (reload.changed, reload.waiting)), (expected, keys), "{}", setting.key);
        }
    }

    #[test]
    fn sections_that_come_or_go_and_lists_are_told_by_their_own_names() {
        let (running, mut read) = (Config::default(), full());
        read.discovery.fixed.push(serde_json::from_str(r#"{"address":"127.0.0.1:1"}"#).unwrap());
        let reload = Reload::new(&running, &read);
        assert_eq!(reload.changed, ["discovery.file", "discovery.static"]);
        assert_eq!(reload.waiting, ["discovery.kubernetes"]);
        let discovery = reload.config.discovery;
        assert_eq!((discovery.kubernetes, discovery.file), (None, read.discovery.file.clone()));
        assert_eq!(discovery.fixed, read.discovery.fixed);
        let back = Reload::new(&read, &running).config.discovery;
        assert_eq!((back.kubernetes, back.file), (read.discovery.kubernetes, None));
        assert_eq!(Reload::new(&running, &running), Reload { config: running, changed: vec![], waiting: vec![] });
    }
}
