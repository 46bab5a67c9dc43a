//! The names to look for on an engine's page, for what is needed of it: made once, used for every page.

use crate::config::GenericEngine;
use crate::domain::{EngineKind, Gauge, GaugeSet, Input, Spread};

use super::engines::{Engine, Fold, Row, Special};

/// Names longer than this are not looked for.
const NAME_MAX: usize = 96;

/// Told by nearly every exporter: when the engine's process began.
const STARTED: &str = "process_start_time_seconds";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A part of a row, under the name of this rank (0 is the newest).
    Row { row: usize, rank: u8, part: Part },
    /// Labels that say something.
    Special(Special),
    /// When the process began.
    Started,
}

/// Which line of a row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Value,
    Bucket,
    Sum,
    Count,
}

/// A row that is wanted.
#[derive(Debug)]
pub(super) struct LensRow {
    pub(super) input: Input,
    pub(super) fold: Fold,
    pub(super) scale: f64,
    pub(super) only: Vec<(Box<str>, Box<str>)>,
}

/// Names to look for. Lines that begin with another are passed over as they are met.
#[derive(Debug)]
pub struct Lens {
    pub(super) needed: GaugeSet,
    pub(super) rows: Vec<LensRow>,
    /// By length, then by name.
    lines: Vec<(Box<[u8]>, Target)>,
    /// Where the names of each length begin in `lines`.
    by_length: [u16; NAME_MAX + 2],
}

impl Lens {
    /// For an engine with fixed names.
    pub fn of(engine: &Engine, needed: GaugeSet) -> Self {
        let mut lens = Self::empty(needed);
        for row in engine.rows {
            let only = row.only.iter().flatten().map(|(label, value)| ((*label).into(), (*value).into())).collect();
            lens.row(Row { only: [None; 2], ..*row }, row.names.iter().copied(), only);
        }
        for (name, special) in engine.specials {
            let feeds = match special {
                Special::CacheConfig => GaugeSet::of(&[Gauge::KvCapacity, Gauge::BlockTokens]),
                Special::Adapters => GaugeSet::of(&[Gauge::MaxAdapters]),
            };
            if feeds.meets(needed) {
                lens.lines.push((name.as_bytes().into(), Target::Special(*special)));
            }
        }
        lens.finish()
    }

    /// For an engine whose metrics the configuration names.
    pub fn generic(config: &GenericEngine, needed: GaugeSet) -> Self {
        let mut lens = Self::empty(needed);
        for (name, metric) in &config.metrics {
            let Some(input) = Input::named(name) else { continue };
            let fold = match metric.fold {
                crate::config::GenericFold::Sum => Fold::Sum,
                crate::config::GenericFold::Mean => Fold::Mean,
                crate::config::GenericFold::Max => Fold::Max,
                crate::config::GenericFold::Min => Fold::Min,
            };
            let only =
                metric.only.iter().map(|(label, value)| (label.as_str().into(), value.as_str().into())).collect();
            let row = Row { input, names: &[], fold, scale: metric.scale, only: [None; 2] };
            lens.row(row, metric.names.iter().map(String::as_str), only);
        }
        lens.finish()
    }

    fn empty(needed: GaugeSet) -> Self {
        Self { needed, rows: Vec::new(), lines: Vec::new(), by_length: [0; NAME_MAX + 2] }
    }

    fn row<'a>(&mut self, row: Row, names: impl Iterator<Item = &'a str>, only: Vec<(Box<str>, Box<str>)>) {
        if !row.input.feeds().meets(self.needed) {
            return;
        }
        let parts: &[(&str, Part)] = match row.input {
            // A mean needs no buckets, and they are most of a page.
            Input::Spread(spread) if !needs_buckets(spread, self.needed) => {
                &[("_sum", Part::Sum), ("_count", Part::Count)]
            }
            Input::Spread(_) => &[("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)],
            _ => &[("", Part::Value)],
        };
        for (rank, name) in (0_u8..).zip(names) {
            for (suffix, part) in parts {
                let target = Target::Row { row: self.rows.len(), rank, part: *part };
                self.lines.push((format!("{name}{suffix}").into_bytes().into(), target));
            }
        }
        self.rows.push(LensRow { input: row.input, fold: row.fold, scale: row.scale, only });
    }

    fn finish(mut self) -> Self {
        self.lines.push((STARTED.as_bytes().into(), Target::Started));
        self.lines.retain(|(name, _)| name.len() <= NAME_MAX);
        self.lines.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        for (length, start) in self.by_length.iter_mut().enumerate() {
            *start = self.lines.partition_point(|(name, _)| name.len() < length) as u16;
        }
        self
    }

    /// Where this name is in the lens; `None` if nobody wants it.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let (start, end) = (*self.by_length.get(name.len())?, *self.by_length.get(name.len() + 1)?);
        (usize::from(start)..usize::from(end)).find(|at| self.lines.get(*at).is_some_and(|(known, _)| **known == *name))
    }

    /// All that a name stands for, from where [`Lens::find`] found it.
    pub(super) fn targets(&self, at: usize) -> impl Iterator<Item = Target> + '_ {
        let lines = self.lines.get(at..).unwrap_or_default();
        let name = lines.first().map(|(name, _)| name);
        lines.iter().take_while(move |(other, _)| Some(other) == name).map(|(_, target)| *target)
    }
}

fn needs_buckets(spread: Spread, needed: GaugeSet) -> bool {
    let (_, quantiles) = spread.gauges();
    quantiles.iter().any(|(_, gauge)| needed.has(*gauge))
}

/// The lenses of all engines for what is needed now.
#[derive(Debug)]
pub(super) struct Lenses {
    needed: GaugeSet,
    generic: GenericEngine,
    made: std::sync::Mutex<Vec<(EngineKind, std::sync::Arc<Lens>)>>,
}

impl Lenses {
    pub(super) fn new(needed: GaugeSet, generic: GenericEngine) -> Self {
        Self { needed, generic, made: std::sync::Mutex::default() }
    }

    /// What is needed.
    pub(super) fn needed(&self) -> GaugeSet {
        self.needed
    }

    /// Where a generic engine's metrics are.
    pub(super) fn generic_path(&self) -> &str {
        &self.generic.path
    }

    /// The lens for an engine; `None` for one that is not known yet or has no metrics.
    pub(super) fn get(&self, kind: EngineKind) -> Option<std::sync::Arc<Lens>> {
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, lens)) = made.iter().find(|(known, _)| *known == kind) {
            return Some(std::sync::Arc::clone(lens));
        }
        let lens = match kind {
            EngineKind::Generic => Lens::generic(&self.generic, self.needed),
            kind => Lens::of(super::engines::engine(kind)?, self.needed),
        };
        let lens = std::sync::Arc::new(lens);
        made.push((kind, std::sync::Arc::clone(&lens)));
        Some(lens)
    }
}
