//! One page of metrics, taken in through a lens.

use crate::domain::{Gauge, Gauges, Input};
use crate::state::Adapters;

use super::engines::{Fold, Special};
use super::lens::{Lens, LensRow, Part, Target};
use super::text::{self, Labels, Sample, ScanReport};

/// What a page said. Kept from page to page for its memory.
#[derive(Debug, Default)]
pub struct Reading {
    cells: Vec<Cell>,
    capacity: Option<f64>,
    block_tokens: Option<f64>,
    adapters: Option<NewestAdapters>,
    /// When the process began, in seconds since 1970.
    pub(super) started: Option<f64>,
}

/// What was found of one row, under the newest name so far.
#[derive(Debug, Default)]
pub(super) struct Cell {
    rank: u8,
    /// Lines seen; 0 is none.
    pub(super) count: u32,
    /// Some line held nonsense.
    pub(super) lies: bool,
    /// The folded value; of a histogram the sum of what was observed.
    pub(super) value: f64,
    /// Observations of a histogram.
    pub(super) events: f64,
    /// Upper bounds and cumulative counts of a histogram, in the order of bounds.
    pub(super) buckets: Vec<(f64, f64)>,
}

#[derive(Debug)]
struct NewestAdapters {
    at: f64,
    max: Option<f64>,
    lists: Adapters,
}

impl Reading {
    /// Reads a whole page; what was read before is forgotten.
    pub fn read(&mut self, page: &[u8], lens: &Lens) -> ScanReport {
        self.clear(lens.rows.len());
        text::scan_known(
            page,
            |name| lens.find(name),
            |at, sample| {
                for target in lens.targets(at) {
                    self.add(lens, target, &sample);
                }
            },
        )
    }

    fn clear(&mut self, rows: usize) {
        self.cells.resize_with(rows, Cell::default);
        for cell in &mut self.cells {
            let mut buckets = std::mem::take(&mut cell.buckets);
            buckets.clear();
            *cell = Cell { rank: u8::MAX, buckets, ..Cell::default() };
        }
        (self.capacity, self.block_tokens, self.adapters, self.started) = (None, None, None, None);
    }

    fn add(&mut self, lens: &Lens, target: Target, sample: &Sample<'_>) {
        match target {
            Target::Row { row, rank, part } => {
                let (Some(row), Some(cell)) = (lens.rows.get(row), self.cells.get_mut(row)) else { return };
                let counts =
                    row.only.iter().all(|(label, value)| sample.labels.get(label).is_none_or(|it| *it == **value));
                if counts && rank <= cell.rank {
                    cell.add(row, rank, part, sample);
                }
            }
            Target::Special(Special::CacheConfig) => self.cache_config(&sample.labels),
            Target::Special(Special::Adapters) => self.adapters(sample),
            Target::Started => self.started = Some(sample.value).filter(|at| at.is_finite()),
        }
    }

    /// vLLM's cache: blocks of so many tokens, one of which holds nothing.
    fn cache_config(&mut self, labels: &Labels<'_>) {
        let number = |name| labels.get(name).and_then(|text| text.parse::<f64>().ok()).filter(|it| *it > 0.0);
        let Some(block) = number("block_size") else { return };
        let tokens = number("kv_cache_size_tokens").or_else(|| number("num_gpu_blocks").map(|blocks| blocks * block));
        self.block_tokens = Some(block);
        if let Some(tokens) = tokens {
            self.capacity = Some(self.capacity.unwrap_or(0.0) + (tokens - block).max(0.0));
        }
    }

    fn adapters(&mut self, sample: &Sample<'_>) {
        if !sample.value.is_finite() || self.adapters.as_ref().is_some_and(|newest| newest.at >= sample.value) {
            return;
        }
        let list = |label| {
            let names = sample.labels.get(label).unwrap_or_default();
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let lists = Adapters { running: list("running_lora_adapters"), waiting: list("waiting_lora_adapters") };
        let max = sample.labels.get("max_lora").and_then(|text| text.parse().ok());
        self.adapters = Some(NewestAdapters { at: sample.value, max, lists });
    }

    /// The rows in the order of the lens, each with what was found.
    pub(super) fn rows<'a>(&'a self, lens: &'a Lens) -> impl Iterator<Item = (&'a LensRow, &'a Cell)> {
        lens.rows.iter().zip(&self.cells)
    }

    /// The levels that the page told. Windows are not among them.
    pub fn levels(&self, lens: &Lens) -> Gauges {
        let mut gauges = Gauges::default();
        let mut blocks = None;
        for (row, cell) in self.rows(lens) {
            let Some(value) = cell.folded(row.fold).map(|value| value * row.scale) else { continue };
            match row.input {
                Input::Level(gauge) if gauge.unit() == "share" => {
                    // A hair above 1 is rounding; more is nonsense.
                    gauges.set(gauge, (value <= 1.001).then_some(value.min(1.0)));
                }
                Input::Level(gauge) => gauges.set(gauge, Some(value)),
                Input::Blocks => blocks = Some(value),
                Input::Total(_) | Input::Spread(_) => {}
            }
        }
        let block = self.block_tokens.or(gauges.get(Gauge::BlockTokens));
        let capacity = self.capacity.or_else(|| Some(blocks? * block?));
        gauges.set(Gauge::BlockTokens, block);
        gauges.set(Gauge::KvCapacity, gauges.get(Gauge::KvCapacity).or(capacity));
        if let Some(adapters) = &self.adapters {
            gauges.set(Gauge::MaxAdapters, adapters.max);
        }
        gauges
    }

    /// The adapters that the page told of.
    pub fn take_adapters(&mut self) -> Option<Adapters> {
        self.adapters.take().map(|newest| newest.lists)
    }
}

impl Cell {
    fn add(&mut self, row: &LensRow, rank: u8, part: Part, sample: &Sample<'_>) {
        if rank < self.rank {
            let mut buckets = std::mem::take(&mut self.buckets);
            buckets.clear();
            *self = Self { rank, buckets, ..Self::default() };
        }
        let value = sample.value;
        // One rank that lies makes the whole unknown; a sum that leaves it out would be a lie as well.
        self.lies |= !(value.is_finite() && value >= 0.0);
        match part {
            Part::Bucket => self.bucket(row.scale, sample),
            Part::Count => self.events += value,
            Part::Sum | Part::Value => {
                let first = self.count == 0;
                self.value = match row.fold {
                    Fold::Sum | Fold::Mean => self.value + value,
                    Fold::Max if !first => self.value.max(value),
                    Fold::Min if !first => self.value.min(value),
                    Fold::Max | Fold::Min => value,
                };
                self.count += 1;
            }
        }
    }

    fn bucket(&mut self, scale: f64, sample: &Sample<'_>) {
        let bound = sample.labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|bound| !bound.is_nan());
        let Some(bound) = bound.map(|bound| bound * scale) else {
            self.lies = true;
            return;
        };
        // Buckets come in order, so the last one is usually the one before.
        let after = self.buckets.last().is_none_or(|(last, _)| *last < bound);
        let at = if after { self.buckets.len() } else { self.buckets.partition_point(|(other, _)| *other < bound) };
        match self.buckets.get_mut(at) {
            Some((known, count)) if known.total_cmp(&bound).is_eq() => *count += sample.value,
            _ => self.buckets.insert(at, (bound, sample.value)),
        }
    }

    fn folded(&self, fold: Fold) -> Option<f64> {
        let divisor = if fold == Fold::Mean { f64::from(self.count) } else { 1.0 };
        (self.count > 0 && !self.lies).then(|| self.value / divisor)
    }
}
