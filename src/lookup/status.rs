//! What lookups come to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a lookup came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The prompt consists of token ids.
    Given,
    /// The answer was kept from before.
    Kept,
    /// Somebody was asked and answered.
    Asked,
    /// The answer did not come in time.
    Late,
    /// It failed.
    Failed,
    /// Who would be asked failed lately, or there is nobody.
    Nobody,
    /// Too many questions are under way.
    Busy,
    /// The request is of a kind, or of a size, for which nobody is asked.
    Unsuited,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Given, Self::Kept, Self::Asked, Self::Late, Self::Failed, Self::Nobody, Self::Busy, Self::Unsuited];

    /// Label in metrics.
    pub const fn labels(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Given => &[("result", "given")],
            Self::Kept => &[("result", "kept")],
            Self::Asked => &[("result", "asked")],
            Self::Late => &[("result", "late")],
            Self::Failed => &[("result", "failed")],
            Self::Nobody => &[("result", "nobody")],
            Self::Busy => &[("result", "busy")],
            Self::Unsuited => &[("result", "unsuited")],
        }
    }

    /// What it means, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Given => "the prompt is token ids",
            Self::Kept => "token ids known from before",
            Self::Asked => "token ids asked for",
            Self::Late => "token ids did not come in time",
            Self::Failed => "token ids could not be had",
            Self::Nobody => "nobody to ask for token ids",
            Self::Busy => "too many questions for token ids under way",
            Self::Unsuited => "no token ids are made of such a request",
        }
    }
}

/// Counts of lookups.
#[derive(Debug, Default)]
pub struct LookupStatus {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Questions to `LMCache` that were answered.
    pub lmcache_ok: AtomicU64,
    /// Questions to `LMCache` that were not, or not in time.
    pub lmcache_failed: AtomicU64,
}

impl LookupStatus {
    /// Counts one.
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How often it came to that.
    pub fn times(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |count| count.load(Relaxed))
    }
}
