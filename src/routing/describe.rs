//! What there is to say of each strategy: for the command line, the admin port and `docs/strategies.md`.

use std::fmt::Write;

use serde::Serialize;

use crate::domain::Gauge;

use super::{About, Parameter, Parameters, Registration, STRATEGIES, StrategySet};

/// A strategy as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Other names for the same.
    pub aliases: Vec<&'static str>,
    /// One line for people.
    pub summary: String,
    /// Whether it can be a part of `name:weight,name:weight`.
    pub combinable: bool,
    /// The long description; null for one that the configuration names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<AboutText>,
}

/// The long description.
#[derive(Debug, Clone, Serialize)]
pub struct AboutText {
    purpose: &'static str,
    formula: &'static str,
    missing: &'static str,
    source: &'static str,
    /// What it reads of the engines.
    gauges: Vec<&'static str>,
    parameters: Vec<ParameterText>,
}

#[derive(Debug, Clone, Serialize)]
struct ParameterText {
    name: &'static str,
    default: &'static str,
    about: &'static str,
}

/// Every strategy of a process: the registered ones, then those that the configuration names.
pub fn describe(set: &StrategySet) -> Vec<Description> {
    let named = |name: &str| Description {
        name: name.to_owned(),
        aliases: Vec::new(),
        summary: "named in the configuration".to_owned(),
        combinable: set.is_combinable(name),
        about: None,
    };
    let own = set.names();
    let own = own.iter().skip(STRATEGIES.len()).filter(|name| set.named(name).is_some());
    STRATEGIES.iter().map(registered).chain(own.map(|name| named(name))).collect()
}

fn registered(registration: &Registration) -> Description {
    let built = (registration.build)(&Parameters::default());
    let combinable = built.as_ref().is_ok_and(|built| built.scored().is_some());
    let needs = built.map(|built| built.into_router().needs()).unwrap_or_default();
    let About { purpose, formula, missing, source } = registration.about;
    let parameter = |p: &Parameter| ParameterText { name: p.name, default: p.default, about: p.about };
    Description {
        name: registration.name.to_owned(),
        aliases: registration.aliases.iter().map(|(alias, _)| *alias).collect(),
        summary: registration.summary.to_owned(),
        combinable,
        about: Some(AboutText {
            purpose,
            formula,
            missing,
            source,
            gauges: needs.gauges.iter().map(Gauge::name).collect(),
            parameters: registration.parameters.iter().map(parameter).collect(),
        }),
    }
}

/// One line for each registered strategy.
pub fn list() -> String {
    let width = STRATEGIES.iter().map(|strategy| strategy.name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        STRATEGIES.iter().map(|strategy| format!("{:width$}  {}", strategy.name, strategy.summary)).collect();
    lines.join("\n") + "\n"
}

/// All there is to say of one strategy, by its name or an alias, or of all of them; `None` if there is none of that name.
pub fn explain(name: Option<&str>) -> Option<String> {
    let wanted = |strategy: &&Registration| {
        name.is_none_or(|name| strategy.name == name || strategy.aliases.iter().any(|(alias, _)| *alias == name))
    };
    let chapters: Vec<_> = STRATEGIES.iter().filter(wanted).map(chapter).collect();
    (!chapters.is_empty()).then(|| chapters.join("\n"))
}

const INTRODUCTION: &str = include_str!("strategies.md");

/// `docs/strategies.md`.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| name | takes | other names | in combinations |\n|---|---|---|---|\n");
    for strategy in STRATEGIES {
        let Description { name, aliases, summary, combinable, .. } = registered(strategy);
        let aliases: Vec<_> = aliases.iter().map(|alias| format!("`{alias}`")).collect();
        let combines = if combinable { "yes" } else { "no" };
        // Writing to a `String` cannot fail.
        writeln!(page, "| [`{name}`](#{name}) | {summary} | {} | {combines} |", aliases.join(", ")).ok();
    }
    for strategy in STRATEGIES {
        page.push('\n');
        page.push_str(&chapter(strategy));
    }
    page
}

/// A strategy's chapter.
fn chapter(registration: &Registration) -> String {
    let Description { name, summary, about, .. } = registered(registration);
    let mut text = format!("## {name}\n\nTakes {summary}.\n\n");
    let Some(about) = about else { return text };
    let gauges: Vec<_> = about.gauges.iter().map(|gauge| format!("`{gauge}`")).collect();
    let gauges = if gauges.is_empty() { "nothing of the engines' metrics".to_owned() } else { gauges.join(", ") };
    for (label, says) in [
        ("For", about.purpose),
        ("Formula", about.formula),
        ("Reads", &*gauges),
        ("When something is missing", about.missing),
        ("Source", about.source),
    ] {
        writeln!(text, "- **{label}**: {says}").ok();
    }
    for (alias, origin) in registration.aliases {
        writeln!(text, "- **Also called** `{alias}`: {origin}").ok();
    }
    if !about.parameters.is_empty() {
        text.push_str("\n| parameter | default | meaning |\n|---|---|---|\n");
        for ParameterText { name, default, about } in &about.parameters {
            writeln!(text, "| `{name}` | `{default}` | {about} |").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_one_that_is_made() {
        let kept = include_str!("../../docs/strategies.md");
        assert!(kept == page(), "run `cargo run -- docs strategies > docs/strategies.md`");
    }

    #[test]
    fn a_strategy_is_explained_by_its_name_and_by_an_alias() {
        assert!(explain(Some("least-request")).unwrap().starts_with("## least-request\n"));
        assert!(explain(None).unwrap().contains("## random"));
        assert!(explain(Some("fastest")).is_none());
        for strategy in STRATEGIES {
            assert!(list().contains(strategy.summary));
            for (alias, _) in strategy.aliases {
                assert_eq!(explain(Some(alias)), explain(Some(strategy.name)));
            }
        }
    }

    #[test]
    fn named_strategies_are_described_too() {
        let found = describe(&StrategySet::build("least-request").unwrap());
        assert_eq!(found.len(), STRATEGIES.len());
        assert!(found.iter().any(|strategy| strategy.name == "least-request" && strategy.combinable));
        assert!(found.iter().all(|strategy| strategy.about.is_some()));
    }
}
