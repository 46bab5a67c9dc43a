//! What is allowed and probably not meant.

use super::{Config, SETTINGS, Setting};
use crate::domain::hint;

/// Variables that Kubernetes makes for a Service of our name (`enableServiceLinks`).
const SERVICE_LINKS: [&str; 2] = ["FAIRLEAD_SERVICE_", "FAIRLEAD_PORT"];

/// Warnings about a configuration and the names of the variables in the environment, for people.
pub fn warnings(config: &Config, variables: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = SETTINGS.iter().map(Setting::env).collect();
    names.push("FAIRLEAD_CONFIG".to_owned());
    let is_unknown = |name: &String| {
        let is_ours = name.starts_with("FAIRLEAD_") && !SERVICE_LINKS.iter().any(|prefix| name.starts_with(prefix));
        is_ours && !names.contains(name)
    };
    let mut unknown: Vec<String> = variables.into_iter().filter(is_unknown).collect();
    unknown.sort();
    let told = |name: String| {
        let name = name.escape_debug().to_string();
        let close = hint(&name, names.iter().map(String::as_str));
        let close = if close.starts_with("did you mean") { format!("; {close}") } else { String::new() };
        format!("environment variable {name} has no effect: there is no setting of that name{close}")
    };
    let no_source = (!config.discovery.has_source()).then(|| {
        "no endpoints: write `static`, `file` or `kubernetes` under `discovery`; until then every request is refused"
            .to_owned()
    });
    no_source.into_iter().chain(unknown.into_iter().map(told)).collect()
}

/// The names of the variables in the environment of this process.
pub fn process_variables() -> Vec<String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_told_with_what_was_meant() {
        let config = Config::default();
        let variables =
            ["FAIRLEAD_LISTEN_ADMINN", "FAIRLEAD_CONFIG", "FAIRLEAD_LOG_FILTER", "FAIRLEAD_SERVICE_HOST", "PATH"];
        let told = warnings(&config, variables.map(str::to_owned));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("no endpoints"), "{told:?}");
        assert!(
            told[1].contains("FAIRLEAD_LISTEN_ADMINN") && told[1].ends_with("did you mean \"FAIRLEAD_LISTEN_ADMIN\"?"),
            "{told:?}"
        );
    }
}
