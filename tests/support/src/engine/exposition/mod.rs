//! The metrics page, in the words of the engine that is imitated.

mod tables;
mod vllm;

use std::fmt::Write;

use super::dialect::Dialect;
use super::options::EngineOptions;
use super::stats::{Histogram, Stats};

/// How gauges are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Honesty {
    Truth,
    NotANumber,
    /// Every gauge has this value.
    Lie(f64),
}

impl Honesty {
    /// Writes a gauge as a client library of Python does: shortest form, always with a point or an exponent.
    fn write(self, page: &mut String, truth: f64) {
        let written = match self {
            Self::Truth => write!(page, " {truth:?}"),
            Self::NotANumber => page.write_str(" NaN"),
            Self::Lie(value) => write!(page, " {value:?}"),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
}

/// Reads a number of the engine.
type Number = fn(&Stats) -> f64;
/// Reads a histogram of the engine.
type Samples = fn(&Stats) -> &Histogram;

/// A page with holes for the numbers.
#[derive(Debug)]
pub(super) enum Exposition {
    Vllm(vllm::Page),
    Table(tables::Page),
}

impl Exposition {
    pub(super) fn new(options: &EngineOptions) -> Self {
        match options.dialect {
            Dialect::Vllm | Dialect::VllmOld => Self::Vllm(vllm::Page::new(options)),
            _ => Self::Table(tables::Page::new(options)),
        }
    }

    /// The text for these ranks.
    pub(super) fn render(&self, ranks: &[Stats], honesty: Honesty) -> String {
        match self {
            Self::Vllm(page) => page.render(ranks, honesty),
            Self::Table(page) => page.render(ranks, honesty),
        }
    }
}
