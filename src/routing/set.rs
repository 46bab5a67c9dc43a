//! The strategies of a process: registered ones, named ones, and combinations as requests ask for them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::{Complaint, EndpointId, GaugeSet, ModelProfiles, StrategySpec, hint};

use crate::state::Demand;

use super::combined::Combined;
use super::grammar::{self, GrammarError, Named};
use super::named::Builder;
use super::prefix::INDEX_BYTES;
use super::{Needs, Prefixes, Router, STRATEGIES, Scored};

/// The name under which decisions of combinations are counted.
pub const COMBINATION: &str = "combination";

/// A strategy ready for use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// Its name; of a combination, its canonical text.
    pub name: Arc<str>,
    /// Its place in [`StrategySet::names`], for arrays of metrics.
    pub index: usize,
    /// The strategy.
    pub router: Arc<dyn Router>,
    /// What it needs.
    pub needs: Arc<Needs>,
}

impl Strategy {
    pub(super) fn new(name: Arc<str>, index: usize, router: Arc<dyn Router>) -> Self {
        let needs = Arc::new(router.needs());
        Self { name, index, router, needs }
    }
}

/// What the configuration says of strategies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Configured<'a> {
    /// Which serves requests that name none: a name, or a combination.
    pub algorithm: &'a str,
    /// Whether clients may name one.
    pub header: bool,
    /// The file of the secret that session ids are signed with.
    pub session_key_file: Option<&'a Path>,
    /// Named strategies.
    pub strategies: &'a BTreeMap<String, StrategySpec>,
    /// Config profiles by model.
    pub models: &'a BTreeMap<String, ModelProfiles>,
    /// Most bytes for what is known of prefixes.
    pub prefix_bytes: usize,
}

impl<'a> Configured<'a> {
    /// These, and nothing else that departs from the defaults.
    pub fn of(
        algorithm: &'a str,
        strategies: &'a BTreeMap<String, StrategySpec>,
        models: &'a BTreeMap<String, ModelProfiles>,
    ) -> Self {
        Self { algorithm, header: true, session_key_file: None, strategies, models, prefix_bytes: INDEX_BYTES }
    }
}

/// The strategies of this process, built once, and which of them is the default.
#[derive(Debug)]
pub struct StrategySet {
    /// Where the secret that session ids are signed with was read.
    session_key_file: Option<PathBuf>,
    /// The registered ones in their order, then the named ones in the order of their names.
    strategies: Vec<Known>,
    /// Positions in `strategies`, aliases included.
    by_name: HashMap<Box<str>, usize>,
    combined: Combined,
    default: Strategy,
    pub(super) header: bool,
    pub(super) models: BTreeMap<String, ModelProfiles>,
    always: Needs,
    demand: Arc<Demand>,
    prefixes: Arc<Prefixes>,
}

/// A strategy, and what there is of it to combine.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) strategy: Strategy,
    pub(super) scored: Option<Scored>,
    /// What it was built from, if the configuration names it.
    pub(super) spec: Option<StrategySpec>,
}

/// Why a text does not give a strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// There is no strategy of that name.
    #[error("there is no strategy \"{name}\"; {}", hint(name, known.iter().map(|name| &**name)))]
    Unknown {
        /// The name.
        name: String,
        /// All that there are.
        known: Vec<Arc<str>>,
    },
    /// The text is not of the form `name[:weight],...`.
    #[error("\"{text}\" is not a strategy nor a combination of some: {error}")]
    Grammar {
        /// The text, or its beginning.
        text: String,
        /// What is wrong with it.
        error: GrammarError,
    },
    /// A strategy that stands alone was combined.
    #[error("\"{name}\" cannot be combined with others: it does not score endpoints; those that do are {}", combinable.join(", "))]
    Alone {
        /// The strategy.
        name: String,
        /// Those that can.
        combinable: Vec<Arc<str>>,
    },
}

/// Why strategies cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|complaint| &*complaint.message).collect::<Vec<_>>().join("; "))]
pub struct InvalidStrategies(pub Vec<Complaint>);

/// Names of all registered strategies, in their order.
pub fn names() -> Vec<&'static str> {
    STRATEGIES.iter().map(|registration| registration.name).collect()
}

impl StrategySet {
    /// Builds every registered strategy; `default` serves requests that name none.
    ///
    /// # Errors
    /// If `default` is not known, or a strategy cannot be built from its defaults.
    pub fn build(default: &str) -> Result<Self, InvalidStrategies> {
        let (strategies, models) = (BTreeMap::new(), BTreeMap::new());
        Self::configured(Configured::of(default, &strategies, &models))
    }

    /// Builds what the configuration says.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the path to its place.
    pub fn configured(configured: Configured<'_>) -> Result<Self, InvalidStrategies> {
        Self::with(configured, None)
    }

    /// Builds what a changed configuration says. A strategy that did not change is the same one, with what it has
    /// learned; what is known of prefixes, and what engines are read for, stays as well.
    ///
    /// # Errors
    /// As [`Self::configured`].
    pub fn renewed(&self, configured: Configured<'_>) -> Result<Self, InvalidStrategies> {
        Self::with(configured, Some(self))
    }

    fn with(configured: Configured<'_>, former: Option<&Self>) -> Result<Self, InvalidStrategies> {
        // Every strategy may sign by it.
        let unchanged = former.filter(|former| former.session_key_file.as_deref() == configured.session_key_file);
        let prefixes = former
            .map_or_else(|| Arc::new(Prefixes::new(configured.prefix_bytes)), |former| Arc::clone(&former.prefixes));
        let mut builder = Builder::registered(configured.session_key_file, prefixes, unchanged);
        configured.strategies.iter().for_each(|(name, spec)| builder.add(name, spec));
        let Builder { strategies, by_name, mut complaints, prefixes, .. } = builder;
        let Some(first) = strategies.first().map(|known| known.strategy.clone()) else {
            return Err(InvalidStrategies(complaints));
        };
        let (header, models) = (configured.header, configured.models.clone());
        let combined = former.map_or_else(Combined::default, |former| former.combined.successor());
        let (always, demand) = (Needs::default(), Arc::new(Demand::new(GaugeSet::NONE, [])));
        let session_key_file = configured.session_key_file.map(Path::to_owned);
        let default = first;
        let mut set =
            Self { session_key_file, strategies, by_name, combined, default, header, models, always, demand, prefixes };
        match set.resolve(configured.algorithm) {
            Ok(default) => set.default = default,
            Err(error) => complaints.push(Complaint::at(["routing", "algorithm"], error.to_string())),
        }
        let by_models = set.check_models(&mut complaints);
        if !complaints.is_empty() {
            return Err(InvalidStrategies(complaints));
        }
        let named = set.strategies.iter().skip(STRATEGIES.len()).map(|known| &known.strategy);
        let always = [&set.default, set.last_resort()].into_iter().chain(named).chain(&by_models);
        set.always = needs_of(always);
        set.demand = set.demand_of(&by_models);
        if let Some(former) = former {
            set.demand.take_over(&former.demand, |at| set.index_in(former, at));
        }
        Ok(set)
    }

    /// The index that the strategy with the index `at` has in another set.
    fn index_in(&self, other: &Self, at: usize) -> Option<usize> {
        match self.strategies.get(at) {
            Some(known) => other.by_name.get(&*known.strategy.name).copied(),
            None => Some(other.strategies.len()),
        }
    }

    /// The strategy of that name, if it was built from the same.
    pub(super) fn unchanged(&self, name: &str, spec: Option<&StrategySpec>) -> Option<&Known> {
        let known = self.strategies.get(*self.by_name.get(name)?)?;
        (*known.strategy.name == *name && known.spec.as_ref() == spec).then_some(known)
    }

    /// What engines are read for: always what the default, the named ones and those of profiles need; what another one
    /// needs while requests name it. A combination counts as all that can be combined.
    fn demand_of(&self, by_models: &[Strategy]) -> Arc<Demand> {
        let named = self.strategies.iter().skip(STRATEGIES.len()).map(|known| &known.strategy);
        let always = needs_of([&self.default].into_iter().chain(named).chain(by_models)).gauges;
        let combinable = self.strategies.iter().filter(|known| known.scored.is_some()).map(|known| &known.strategy);
        let combination = needs_of(combinable).gauges;
        let each = self.strategies.iter().map(|known| known.strategy.needs.gauges);
        Arc::new(Demand::new(always, each.chain([combination])))
    }

    /// What engines are to be read for now.
    pub fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// What its strategies know of prefixes.
    pub fn prefixes(&self) -> &Arc<Prefixes> {
        &self.prefixes
    }

    /// A set of one strategy, which need not be registered.
    #[cfg(test)]
    pub(crate) fn only(router: Arc<dyn Router>) -> Self {
        let strategy = Strategy::new("only".into(), 0, router);
        let strategies = vec![Known { strategy: strategy.clone(), scored: None, spec: None }];
        let (combined, always) = (Combined::default(), (*strategy.needs).clone());
        let by_name = HashMap::from([("only".into(), 0)]);
        let demand = Arc::new(Demand::new(always.gauges, []));
        let (header, models, prefixes) = (true, BTreeMap::new(), Arc::new(Prefixes::new(0)));
        let (session_key_file, default) = (None, strategy);
        Self { session_key_file, strategies, by_name, combined, default, header, models, always, demand, prefixes }
    }

    /// The strategies that profiles name; complains of those that do not exist.
    fn check_models(&self, complaints: &mut Vec<Complaint>) -> Vec<Strategy> {
        let mut found = Vec::new();
        let mut check = |text: &str, path: &[&str]| match self.resolve(text) {
            Ok(strategy) => found.push(strategy),
            Err(error) => complaints.push(Complaint::at(path.iter().copied(), error.to_string())),
        };
        for (model, profiles) in &self.models {
            if let Some(locked) = &profiles.locked {
                check(locked, &["routing", "models", model, "locked"]);
            }
            for (name, profile) in &profiles.profiles {
                if let Some(strategy) = &profile.strategy {
                    check(strategy, &["routing", "models", model, "profiles", name, "strategy"]);
                }
            }
        }
        for (model, profiles) in &self.models {
            if let Some(default) = profiles.default.as_deref().filter(|name| !profiles.profiles.contains_key(*name)) {
                let known = hint(default, profiles.profiles.keys().map(|name| &**name));
                let message = format!("there is no profile \"{default}\"; {known}");
                complaints.push(Complaint::at(["routing", "models", model, "default"], message));
            }
        }
        found
    }

    /// The strategy that a text names: a name, an alias, or a combination.
    ///
    /// # Errors
    /// [`ChoiceError`]: what is wrong with the text.
    pub fn resolve(&self, text: &str) -> Result<Strategy, ChoiceError> {
        if let Some(strategy) = self.named(text) {
            return Ok(strategy.clone());
        }
        match grammar::parse(text) {
            Ok(Named::One(name)) => Ok(self.known(name)?.strategy.clone()),
            Ok(Named::Several(items)) => {
                let mut parts = Vec::with_capacity(items.len());
                for (name, weight) in items {
                    let known = self.known(name)?;
                    let Some(scored) = &known.scored else { return Err(self.alone(name)) };
                    parts.push((known, scored, weight));
                }
                Ok(self.combined.get(&parts, self.strategies.len()))
            }
            Err(error) => Err(ChoiceError::Grammar { text: text.chars().take(80).collect(), error }),
        }
    }

    fn known(&self, name: &str) -> Result<&Known, ChoiceError> {
        let found = self.by_name.get(name).and_then(|at| self.strategies.get(*at));
        found.ok_or_else(|| ChoiceError::Unknown { name: name.to_owned(), known: self.names_where(|_| true) })
    }

    fn alone(&self, name: &str) -> ChoiceError {
        let combinable = self.names_where(|known| known.scored.is_some());
        ChoiceError::Alone { name: name.to_owned(), combinable }
    }

    fn names_where(&self, wanted: impl Fn(&Known) -> bool) -> Vec<Arc<str>> {
        self.strategies.iter().filter(|known| wanted(known)).map(|known| Arc::clone(&known.strategy.name)).collect()
    }

    /// The strategy of that name or alias.
    pub fn named(&self, name: &str) -> Option<&Strategy> {
        Some(&self.strategies.get(*self.by_name.get(name)?)?.strategy)
    }

    /// Names by [`Strategy::index`]: registered, named, and one for all combinations.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.names_where(|_| true).into_iter().chain([COMBINATION.into()]).collect()
    }

    /// Whether it can be a part of a combination.
    pub fn is_combinable(&self, name: &str) -> bool {
        self.known(name).is_ok_and(|known| known.scored.is_some())
    }

    /// The default strategy.
    pub fn default_strategy(&self) -> &Strategy {
        &self.default
    }

    /// What serves when a strategy could not decide in time: the least loaded endpoint.
    pub fn last_resort(&self) -> &Strategy {
        self.named("least-request").unwrap_or(&self.default)
    }

    /// What all strategies need together, those included that nobody may ever ask for.
    pub fn needs(&self) -> Needs {
        needs_of(self.strategies.iter().map(|known| &known.strategy))
    }

    /// What the default, the named ones and those of profiles need: always there. What another needs is asked of the
    /// strategy itself when a request first names it.
    pub fn needs_always(&self) -> &Needs {
        &self.always
    }

    /// Combinations that were put together for requests, since the start.
    pub fn combinations_built(&self) -> u64 {
        self.combined.built()
    }

    #[cfg(test)]
    pub(super) fn combined(&self) -> &Combined {
        &self.combined
    }

    /// Tells every strategy that an endpoint left.
    pub fn on_endpoint_removed(&self, id: EndpointId) {
        for known in &self.strategies {
            known.strategy.router.on_endpoint_removed(id);
        }
        self.prefixes.forget(id);
    }
}

fn needs_of<'a>(strategies: impl IntoIterator<Item = &'a Strategy>) -> Needs {
    strategies.into_iter().fold(Needs::default(), |needs, strategy| needs.with((*strategy.needs).clone()))
}
