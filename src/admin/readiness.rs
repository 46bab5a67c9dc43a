//! Whether we should get traffic, as named conditions that their owners set.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use serde::Serialize;

/// What is known of one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its name, such as `discovery`.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// For people: why, or how well.
    pub detail: String,
}

/// All conditions at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every condition is met.
    pub ready: bool,
    /// In the order of names.
    pub conditions: Vec<Condition>,
}

type Ask = Box<dyn Fn() -> (bool, String) + Send + Sync>;

enum Source {
    Set(bool, String),
    Asked(Ask),
}

/// Named conditions, all of which must be met. Without any we are not ready.
#[derive(Default)]
pub struct Readiness(RwLock<BTreeMap<&'static str, Source>>);

impl Readiness {
    /// Says how a condition stands; the first call makes it exist, so owners call it once before they start.
    pub fn set(&self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.insert(name, Source::Set(ok, detail.into()));
    }

    /// Makes a condition that is asked for at each report. `ask` must not block, nor come back here.
    pub fn watch(&self, name: &'static str, ask: impl Fn() -> (bool, String) + Send + Sync + 'static) {
        self.insert(name, Source::Asked(Box::new(ask)));
    }

    /// Whether every condition is met now.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// How all conditions stand now.
    pub fn report(&self) -> Report {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let condition = |(name, source): (&&'static str, &Source)| {
            let (ok, detail) = match source {
                Source::Set(ok, detail) => (*ok, detail.clone()),
                Source::Asked(ask) => ask(),
            };
            Condition { name, ok, detail }
        };
        let conditions: Vec<_> = sources.iter().map(condition).collect();
        let ready = !conditions.is_empty() && conditions.iter().all(|condition| condition.ok);
        Report { ready, conditions }
    }

    fn insert(&self, name: &'static str, source: Source) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, source);
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_condition_is_met() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.set("discovery", false, "nothing read yet");
        readiness.watch("ext_proc", || (true, "listening".to_owned()));
        assert!(!readiness.is_ready());
        readiness.set("discovery", true, "2 endpoints");
        assert!(readiness.is_ready());
        let names: Vec<_> = readiness.report().conditions.iter().map(|condition| condition.name).collect();
        assert_eq!(names, ["discovery", "ext_proc"]);
    }
}
