//! What counters and histograms gained lately: an engine tells them since its start, and that is no use to anybody.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::{Gauge, Gauges, Input, Moment, Total};

use super::lens::Lens;
use super::reading::{Cell, Reading};

/// A window's edge is sharp to this part of it.
const PARTS: u32 = 10;

/// Sliding windows over one engine's counters and histograms.
#[derive(Debug)]
pub struct Windows {
    length: Duration,
    rows: Vec<Row>,
    read_at: Option<Moment>,
}

/// One counter or histogram.
#[derive(Debug, Default)]
struct Row {
    bounds: Vec<f64>,
    /// As last read: the value, or observations, their sum and the buckets.
    last: Vec<f64>,
    /// Former readings, a part of the window apart, oldest first. The first one is what the window is counted from.
    marks: VecDeque<(Moment, Box<[f64]>)>,
}

impl Windows {
    /// Empty windows of this length.
    pub fn over(length: Duration) -> Self {
        Self { length, rows: Vec::new(), read_at: None }
    }

    /// Forgets everything, as for another engine or other needs.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.read_at = None;
    }

    /// Takes a reading in. True if a counter went back, which is an engine that began anew: all windows begin anew with
    /// it.
    pub fn take(&mut self, reading: &Reading, lens: &Lens, now: Moment) -> bool {
        self.rows.resize_with(lens.rows.len(), Row::default);
        // After a long silence a window would be about something else than its length.
        if self.read_at.is_some_and(|before| now - before > self.length) {
            self.rows.iter_mut().for_each(|row| row.marks.clear());
        }
        self.read_at = Some(now);
        let mut went_back = false;
        let mut values = Vec::new();
        for (row, (lens_row, cell)) in self.rows.iter_mut().zip(reading.rows(lens)) {
            let histogram = match lens_row.input {
                Input::Total(_) => false,
                Input::Spread(_) => true,
                Input::Level(_) | Input::Blocks => continue,
            };
            // Not on this page: as it was. It is back on the next, or the engine is another one.
            if cell.count > 0 && !cell.lies {
                collect(cell, histogram, lens_row.scale, &mut values);
                went_back |= row.take(&values, cell, now, self.length);
            }
        }
        if went_back {
            self.restart(now);
        }
        went_back
    }

    /// Counts from the last reading on.
    pub fn restart(&mut self, now: Moment) {
        for row in &mut self.rows {
            row.marks.clear();
            row.mark(now);
        }
    }

    /// The gauges that follow from the windows, for those needed. What had no observation in the window is left out, and
    /// a gauge that is set already stays.
    pub fn derive(&self, lens: &Lens, gauges: &mut Gauges) {
        let mut set = |gauge: Gauge, value: Option<f64>| {
            if lens.needed.has(gauge) && gauges.get(gauge).is_none() {
                gauges.set(gauge, value);
            }
        };
        let (mut hits, mut queries, mut misses) = (None, None, None);
        for (row, lens_row) in self.rows.iter().zip(&lens.rows) {
            match lens_row.input {
                Input::Total(total) => {
                    let rate = || self.rate(row);
                    match total {
                        Total::PromptTokens => set(Gauge::PromptTokensRate, rate()),
                        Total::GenerationTokens => set(Gauge::GenerationTokensRate, rate()),
                        Total::Finished => set(Gauge::FinishedRate, rate()),
                        Total::Preemptions => set(Gauge::PreemptionRate, rate()),
                        Total::PrefixHits => hits = row.gained(0),
                        Total::PrefixQueries => queries = row.gained(0),
                        Total::PrefixMisses => misses = row.gained(0),
                    }
                }
                Input::Spread(spread) => {
                    let (mean, quantiles) = spread.gauges();
                    set(mean, row.mean());
                    for (quantile, gauge) in quantiles {
                        set(*gauge, row.quantile(*quantile));
                    }
                }
                Input::Level(_) | Input::Blocks => {}
            }
        }
        let asked = queries.or_else(|| Some(hits? + misses?)).filter(|asked| *asked > 0.0);
        set(Gauge::PrefixHitRate, hits.zip(asked).map(|(hits, asked)| (hits / asked).min(1.0)));
    }

    /// Gain in a second; `None` before the window has some length.
    fn rate(&self, row: &Row) -> Option<f64> {
        let span = self.read_at? - row.marks.front()?.0;
        (span >= self.length / PARTS).then(|| Some(row.gained(0)? / span.as_secs_f64())).flatten()
    }
}

fn collect(cell: &Cell, histogram: bool, scale: f64, values: &mut Vec<f64>) {
    values.clear();
    if histogram {
        values.push(cell.events);
        values.push(cell.value * scale);
        values.extend(cell.buckets.iter().map(|(_, count)| count));
    } else {
        values.push(cell.value * scale);
    }
}

impl Row {
    /// Takes new values in; true if one is below what it was.
    fn take(&mut self, values: &[f64], cell: &Cell, now: Moment, length: Duration) -> bool {
        let same_bounds = self.bounds.iter().eq(cell.buckets.iter().map(|(bound, _)| bound));
        if !same_bounds || self.last.len() != values.len() {
            *self = Self { bounds: cell.buckets.iter().map(|(bound, _)| *bound).collect(), ..Self::default() };
        }
        let went_back = self.last.iter().zip(values).any(|(last, value)| value < last);
        self.last.clear();
        self.last.extend_from_slice(values);
        let part = length / PARTS;
        if self.marks.back().is_none_or(|(at, _)| now - *at >= part) {
            self.mark(now);
        }
        // The window counts from the newest mark that is a window's length back.
        while self.marks.get(1).is_some_and(|(at, _)| now - *at >= length) {
            self.marks.pop_front();
        }
        went_back
    }

    fn mark(&mut self, now: Moment) {
        if !self.last.is_empty() {
            self.marks.push_back((now, self.last.as_slice().into()));
        }
    }

    fn gained(&self, at: usize) -> Option<f64> {
        let (_, base) = self.marks.front()?;
        Some((self.last.get(at)? - base.get(at)?).max(0.0))
    }

    fn mean(&self) -> Option<f64> {
        let events = self.gained(0).filter(|events| *events > 0.0)?;
        Some(self.gained(1)? / events)
    }

    /// Interpolated in the bucket that the rank falls in; what lies above the last bound counts as that bound.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let all = self.gained(1 + self.bounds.len()).filter(|all| *all > 0.0)?;
        let rank = quantile * all;
        let (mut lower, mut below) = (0.0, 0.0);
        for (at, bound) in self.bounds.iter().enumerate() {
            let upto = self.gained(2 + at)?;
            if upto >= rank && upto > below {
                let share = ((rank - below) / (upto - below)).clamp(0.0, 1.0);
                return Some(if bound.is_finite() { lower + (bound - lower) * share } else { lower });
            }
            below = upto.max(below);
            lower = if bound.is_finite() { *bound } else { lower };
        }
        None
    }
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
