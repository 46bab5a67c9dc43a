//! Which metrics of which engine mean what. Adding an engine is a file with a table, and a line in [`ENGINES`].

mod llamacpp;
mod sglang;
mod tgi;
mod triton;
mod trtllm;
mod vllm;
mod xllm;

#[cfg(test)]
mod tests;

use memchr::memmem;

use crate::domain::{EngineKind, Gauge, Input, Spread, Total};

/// Every engine that is known by its metrics.
pub const ENGINES: &[&Engine] =
    &[&vllm::ENGINE, &sglang::ENGINE, &trtllm::ENGINE, &triton::ENGINE, &llamacpp::ENGINE, &tgi::ENGINE, &xllm::ENGINE];

/// What is to be known of an engine to read it.
#[derive(Debug)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// Where its metrics page is.
    pub path: &'static str,
    /// Beginnings of metric names, each of which only this engine has.
    pub marks: &'static [&'static str],
    /// What its metrics mean.
    pub rows: &'static [Row],
    /// Metrics whose labels say something.
    pub specials: &'static [(&'static str, Special)],
}

/// Where an engine tells something.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What is told.
    pub input: Input,
    /// Names of the metric by version, newest first; the first that a page has is taken. Of a histogram, without suffix.
    pub names: &'static [&'static str],
    /// Over all series of that name.
    pub fold: Fold,
    /// What a value is multiplied by to be in our unit.
    pub scale: f64,
    /// A series that has this label with another value does not count.
    pub only: [Option<(&'static str, &'static str)>; 2],
}

/// How the values of several series, such as the ranks behind one address, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Counts add up.
    Sum,
    /// Shares are averaged.
    Mean,
    /// The greatest counts.
    Max,
    /// The least counts.
    Min,
}

/// What labels may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// vLLM's `cache_config_info`: block size and size of the cache.
    CacheConfig,
    /// vLLM's `lora_requests_info`: adapters at work. The value is a time; the series with the greatest is true.
    Adapters,
}

impl Row {
    const fn of(input: Input, fold: Fold, names: &'static [&'static str]) -> Self {
        Self { input, names, fold, scale: 1.0, only: [None; 2] }
    }

    const fn level(gauge: Gauge, fold: Fold, names: &'static [&'static str]) -> Self {
        Self::of(Input::Level(gauge), fold, names)
    }

    const fn total(total: Total, names: &'static [&'static str]) -> Self {
        Self::of(Input::Total(total), Fold::Sum, names)
    }

    const fn spread(spread: Spread, names: &'static [&'static str]) -> Self {
        Self::of(Input::Spread(spread), Fold::Sum, names)
    }

    const fn only(self, label: &'static str, value: &'static str) -> Self {
        Self { only: [Some((label, value)), None], ..self }
    }

    const fn also_only(self, label: &'static str, value: &'static str) -> Self {
        let [first, _] = self.only;
        Self { only: [first, Some((label, value))], ..self }
    }

    const fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

/// What is known of an engine; `None` for those without metrics of fixed names.
pub fn engine(kind: EngineKind) -> Option<&'static Engine> {
    ENGINES.iter().copied().find(|engine| engine.kind == kind)
}

/// The engine whose page this is, by the names in it.
pub fn recognise(page: &[u8]) -> Option<EngineKind> {
    let begins_a_line = |at: usize| at == 0 || page.get(at - 1) == Some(&b'\n');
    let has = |mark: &&str| memmem::find_iter(page, mark.as_bytes()).any(begins_a_line);
    ENGINES.iter().find(|engine| engine.marks.iter().any(has)).map(|engine| engine.kind)
}
