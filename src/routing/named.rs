//! Building strategies: those that are registered, and those that the configuration names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::domain::{Complaint, PickerName, ScorerSpec, StrategySpec, hint};

use super::blend::Part;
use super::chain::Chain;
use super::grammar::{WEIGHT_MAX, is_exclusive};
use super::set::Known;
use super::{
    Built, COMBINATION, Filter, Parameters, Picker, Prefixes, Registration, STRATEGIES, Scored, Strategy, StrategySet,
};

/// Longest name of a named strategy, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Strategies while they are being built.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    session_key_file: Option<&'a Path>,
    pub(super) strategies: Vec<Known>,
    pub(super) by_name: HashMap<Box<str>, usize>,
    pub(super) complaints: Vec<Complaint>,
    /// What all of them share.
    pub(super) prefixes: Arc<Prefixes>,
    /// Strategies of before, which stay if they did not change.
    former: Option<&'a StrategySet>,
}

impl<'a> Builder<'a> {
    /// All registered strategies with their default parameters.
    pub(super) fn registered(
        session_key_file: Option<&'a Path>,
        prefixes: Arc<Prefixes>,
        former: Option<&'a StrategySet>,
    ) -> Self {
        let (strategies, by_name, complaints) = (Vec::new(), HashMap::new(), Vec::new());
        let defaults = Parameters::default().with_session_key_file(session_key_file).sharing(&prefixes);
        let mut builder = Self { session_key_file, strategies, by_name, complaints, prefixes, former };
        for registration in STRATEGIES {
            if let Some(known) = former.and_then(|former| former.unchanged(registration.name, None)) {
                builder.keep(known, registration.aliases);
                continue;
            }
            match (registration.build)(&defaults) {
                Ok(built) => builder.push(registration.name, built, registration.aliases, None),
                Err(error) => {
                    builder.complaints.push(Complaint::at([], format!("\"{}\": {error}", registration.name)));
                }
            }
        }
        builder
    }

    fn push(&mut self, name: &str, built: Built, aliases: &[(&str, &str)], spec: Option<&StrategySpec>) {
        let scored = built.scored().cloned();
        let strategy = Strategy::new(name.into(), self.strategies.len(), built.into_router());
        self.keep(&Known { strategy, scored, spec: spec.cloned() }, aliases);
    }

    /// Adds a strategy that is built, in the next place.
    fn keep(&mut self, known: &Known, aliases: &[(&str, &str)]) {
        let index = self.strategies.len();
        let mut known = known.clone();
        known.strategy.index = index;
        let name = &*known.strategy.name;
        self.by_name.insert(name.into(), index);
        self.by_name.extend(aliases.iter().map(|(alias, _)| (Box::from(*alias), index)));
        self.strategies.push(known);
    }

    /// A strategy that the configuration names. What is wrong with it is noted with its place.
    pub(super) fn add(&mut self, name: &str, spec: &StrategySpec) {
        let mut draft = Draft { builder: self, name, complaints: Vec::new() };
        let built = draft.build(spec);
        let complaints = draft.complaints;
        if let Some(built) = built.filter(|_| complaints.is_empty()) {
            return match self.former.and_then(|former| former.unchanged(name, Some(spec))) {
                Some(known) => self.keep(known, &[]),
                None => self.push(name, built, &[], Some(spec)),
            };
        }
        self.complaints.extend(complaints);
        // It stands in, so that what refers to the faulty one is not a fault as well; the set is not used.
        if let Some(first) = self.strategies.first().filter(|_| self.known(name).is_none()) {
            self.push(name, Built::Router(Arc::clone(&first.strategy.router)), &[], None);
        }
    }

    fn known(&self, name: &str) -> Option<&Known> {
        self.strategies.get(*self.by_name.get(name)?)
    }
}

fn registration(name: &str) -> Option<&'static Registration> {
    STRATEGIES.iter().find(|known| known.name == name || known.aliases.iter().any(|(alias, _)| *alias == name))
}

/// A named strategy while it is being built.
struct Draft<'a> {
    builder: &'a Builder<'a>,
    name: &'a str,
    complaints: Vec<Complaint>,
}

impl Draft<'_> {
    fn complain(&mut self, path: &[&str], message: impl Into<String>) {
        let path = ["routing", "strategies", self.name].into_iter().chain(path.iter().copied());
        self.complaints.push(Complaint::at(path, message));
    }

    fn build(&mut self, spec: &StrategySpec) -> Option<Built> {
        self.check_name();
        let built = match (&spec.base, spec.scorers.is_empty()) {
            (Some(base), true) => self.with_parameters(spec, base),
            (None, false) => self.blended(spec),
            _ => {
                self.complain(&[], "needs either `use`, one strategy with parameters, or `scorers`, a list of several");
                None
            }
        };
        let rest = self.fallback(spec);
        let built = built?;
        Some(if rest.is_empty() { built } else { Built::Router(Arc::new(Chain { first: built.into_router(), rest })) })
    }

    fn check_name(&mut self) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.builder.known(self.name).is_some() || self.name == COMBINATION {
            self.complain(&[], "there is a strategy of that name already; take another");
        } else if is_exclusive(self.name) {
            self.complain(
                &[],
                "`pd`, `slo` and what begins with `slo-` stand for a whole combination; take another name",
            );
        } else if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(fits) {
            self.complain(&[], format!("a name is 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`"));
        }
    }

    fn with_parameters(&mut self, spec: &StrategySpec, base: &str) -> Option<Built> {
        if !spec.filters.is_empty() || spec.picker.is_some() {
            self.complain(&[], "`filters` and `picker` go with `scorers`; a strategy in `use` has its own");
        }
        self.instance(base, &spec.parameters, &[])
    }

    /// A registered strategy: the one that is there already, or one of its own where it has parameters.
    fn instance(
        &mut self,
        base: &str,
        parameters: &serde_json::Map<String, serde_json::Value>,
        path: &[&str],
    ) -> Option<Built> {
        let under = |key| path.iter().copied().chain([key]).collect::<Vec<_>>();
        let Some(registration) = registration(base) else {
            let message = format!("there is no strategy \"{base}\"; {}", hint(base, super::names()));
            self.complain(&under("use"), message);
            return None;
        };
        if parameters.is_empty() {
            let known = self.builder.known(registration.name)?;
            let shared = Arc::clone(&known.strategy.router);
            return Some(match known.scored.clone() {
                None => Built::Router(shared),
                Some(scored) => Built::Both(shared, scored),
            });
        }
        let parameters = Parameters::new(parameters.clone())
            .with_session_key_file(self.builder.session_key_file)
            .sharing(&self.builder.prefixes);
        match (registration.build)(&parameters) {
            Ok(built) => Some(built),
            Err(error) => {
                self.complain(&under("parameters"), error.to_string());
                None
            }
        }
    }

    fn blended(&mut self, spec: &StrategySpec) -> Option<Built> {
        if !spec.parameters.is_empty() {
            self.complain(&["parameters"], "parameters go with `use`, or with each of the `scorers`");
        }
        let mut parts = Vec::new();
        for (at, scorer) in spec.scorers.iter().enumerate() {
            parts.extend(self.scorer(&at.to_string(), scorer));
        }
        if parts.is_empty() {
            if self.complaints.is_empty() {
                self.complain(&["scorers"], "every weight is 0; at least one must be above");
            }
            return None;
        }
        let filters = self.filters(spec);
        let picker = match spec.picker {
            None | Some(PickerName::Best) => Picker::Best,
            Some(PickerName::BestOfTwo) => Picker::BestOfTwo,
            Some(PickerName::WeightedRandom) => Picker::WeightedRandom,
        };
        Some(Built::Scored(Scored::blended(parts, picker).filtered_by_all(filters)))
    }

    fn scorer(&mut self, at: &str, spec: &ScorerSpec) -> Vec<Part> {
        let path = ["scorers", at];
        if spec.weight > WEIGHT_MAX {
            self.complain(&[path.as_slice(), &["weight"]].concat(), format!("is not within 0 to {WEIGHT_MAX}"));
        }
        if spec.scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)) {
            self.complain(&[path.as_slice(), &["scale"]].concat(), "is not a number above 0");
        }
        let Some(built) = self.instance(&spec.base, &spec.parameters, &path) else { return Vec::new() };
        let Some(scored) = built.scored() else {
            let message = format!("\"{}\" does not score endpoints, so it cannot be added up with others", spec.base);
            self.complain(&[path.as_slice(), &["use"]].concat(), message);
            return Vec::new();
        };
        if spec.weight == 0 {
            return Vec::new();
        }
        let part = |part: Part| Part { scale: spec.scale.or(part.scale), ..part };
        scored.parts(f64::from(spec.weight)).map(part).collect()
    }

    fn filters(&mut self, spec: &StrategySpec) -> Vec<Arc<dyn Filter>> {
        let mut filters = Vec::new();
        for (at, name) in spec.filters.iter().enumerate() {
            let found = self.builder.known(name).and_then(|known| known.scored.as_ref()).map(Scored::filters);
            match found.filter(|found| !found.is_empty()) {
                Some(found) => filters.extend(found.iter().cloned()),
                None => self.complain(&["filters", &at.to_string()], format!("no strategy \"{name}\" has filters")),
            }
        }
        filters
    }

    /// Those that decide in turn. Only the strategies themselves: what falls back does not fall back further by theirs.
    fn fallback(&mut self, spec: &StrategySpec) -> Vec<Strategy> {
        let mut rest = Vec::new();
        for (at, name) in spec.fallback.iter().enumerate() {
            if let Some(known) = registration(name).and_then(|found| self.builder.known(found.name)) {
                rest.push(known.strategy.clone());
            } else {
                let message = format!("there is no registered strategy \"{name}\"; {}", hint(name, super::names()));
                self.complain(&["fallback", &at.to_string()], message);
            }
        }
        rest
    }
}
