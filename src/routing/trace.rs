//! Why a decision came out as it did. Costs nothing when nobody asks.

use crate::domain::EndpointId;
use crate::state::Endpoint;

use super::{Pass, Score, Scorer};

/// A decision's record, if somebody wants one.
#[derive(Debug, Default)]
pub struct Trace {
    record: Option<Box<Record>>,
    is_degraded: bool,
}

/// What a decision went by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Who was left out, and by what.
    pub left_out: Vec<(EndpointId, &'static str)>,
    /// The numbers that were put on candidates.
    pub scores: Vec<ScoreRecord>,
    /// What else there is to say, in order.
    pub notes: Vec<String>,
}

/// One scorer's number on one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRecord {
    /// The candidate.
    pub endpoint: EndpointId,
    /// The scorer's name.
    pub scorer: &'static str,
    /// Unit of the number.
    pub unit: &'static str,
    /// The number.
    pub score: Score,
    /// What it contributed where several scorers are added up, 0 to 1 in all; `None` for a single one.
    pub share: Option<f64>,
}

impl Trace {
    /// Records nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Records everything.
    pub fn on() -> Self {
        Self { record: Some(Box::default()), is_degraded: false }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.record.is_some()
    }

    /// Notes that `endpoint` was left out.
    pub fn left_out(&mut self, endpoint: &Endpoint, by: &'static str) {
        if let Some(record) = &mut self.record {
            record.left_out.push((endpoint.id, by));
        }
    }

    /// Notes a number.
    pub fn scored(&mut self, endpoint: &Endpoint, scorer: &dyn Scorer, score: Score, share: Option<f64>) {
        if let Some(record) = &mut self.record {
            let (endpoint, scorer, unit) = (endpoint.id, scorer.name(), scorer.unit());
            record.scores.push(ScoreRecord { endpoint, scorer, unit, score, share });
        }
    }

    /// Notes something in words.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.notes.push(text());
        }
    }

    /// The record.
    pub fn into_record(self) -> Option<Box<Record>> {
        self.record
    }

    /// Notes that a strategy left it to another one, and who decides instead.
    pub fn passed(&mut self, pass: Pass, next: &str) {
        let (Pass::Missing(reason) | Pass::NoSay(reason)) = pass;
        self.is_degraded |= matches!(pass, Pass::Missing(_));
        self.note(|| format!("{reason}: {next} decides"));
    }

    /// Notes that the model's profiles name a strategy that there is not, and who decides instead.
    pub fn in_vain(&mut self, text: &str, instead: &str) {
        self.is_degraded = true;
        self.note(|| format!("the model's profiles say \"{text}\", which is no strategy: {instead} decides"));
    }

    /// Whether another one decided than should have. Counted also when nothing is recorded.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded
    }
}
