//! What a strategy may know of a request, and what it has to ask for beforehand.

use std::time::Duration;

use smallvec::SmallVec;

use crate::domain::{GaugeSet, Moment, Work};
use crate::index::{Chain, Held};

/// What a request asks for. Made once when its body is read, kept to the end of the exchange: a client must not be able
/// to make any of it long.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The model or adapter; empty where the request could not name one.
    pub model: Box<str>,
    /// Its size.
    pub work: Work,
    /// Bytes of text that its prompt's tokens were estimated from; 0 where there are none.
    pub prompt_bytes: u32,
    /// Bytes of text that make a token for its model, as far as that was learned; 0 where it was not asked for.
    pub bytes_per_token: f64,
    /// Media files that are in its prompt.
    pub media: u32,
    /// Tokens to which it limits its answer.
    pub max_tokens: Option<u32>,
    /// The answer is wanted as a stream.
    pub streams: bool,
    /// How urgent it is: higher goes first, below 0 may be shed; 0 unless its objective says otherwise.
    pub priority: i32,
    /// `user` of the body; like the other texts absent where it is longer than [`KeptHeaders::VALUE_BYTES_MAX`].
    pub user: Option<Box<str>>,
    /// `session_id` of the body.
    pub session_id: Option<Box<str>>,
    /// `prompt_cache_key` of the body.
    pub prompt_cache_key: Option<Box<str>>,
    /// The headers that some strategy needs.
    pub headers: KeptHeaders,
    /// Its prompt as a chain of block hashes, if the strategy needs it.
    pub prefix: Chain,
    /// How much of it endpoints have cached, as far as that is told; empty where it is only guessed.
    pub held: Held,
}

/// Request headers that were kept, names in lower case. A client controls them: few, bounded, and never logged.
#[derive(Debug, Clone, Default)]
pub struct KeptHeaders(SmallVec<[(Box<str>, Box<str>); 2]>);

impl KeptHeaders {
    /// Most bytes of one value; a longer one is not kept.
    pub const VALUE_BYTES_MAX: usize = 4096;
    /// Most headers; further ones are not kept.
    pub const COUNT_MAX: usize = 32;

    /// Keeps a header unless it is too long, one of that name is kept already, or there are too many.
    pub fn keep(&mut self, name: &str, value: &str) {
        if value.len() <= Self::VALUE_BYTES_MAX && self.0.len() < Self::COUNT_MAX && self.get(name).is_none() {
            self.0.push((name.into(), value.into()));
        }
    }

    /// The value of a header, the first one if it came several times.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }
}

/// A request at the moment of its decision.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// What it asks for.
    pub asked: &'a Asked,
    /// The base model, where the request asks for an adapter.
    pub adapter_of: Option<&'a str>,
    /// When the decision is made.
    pub now: Moment,
    /// Source of this request's randomness: the same seed and state give the same decision.
    pub seed: u64,
    /// Age at which a scraped value counts as absent.
    pub stale_after: Duration,
}

impl RequestView<'_> {
    /// This request's random generator.
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// What a strategy reads. Whatever nobody needs is neither scraped nor kept nor looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Gauges of the engines.
    pub gauges: GaugeSet,
    /// Request headers, in lower case.
    pub headers: Vec<Box<str>>,
    /// What it measures of answers.
    pub answers: AnswerNeeds,
    /// The prompt's hashes.
    pub prefix: bool,
}

/// What has to be looked at in answers, which costs a message for every piece of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerNeeds {
    /// When the first token came.
    pub first_token: bool,
    /// How many tokens there were.
    pub usage: bool,
}

impl Needs {
    /// The gauges only.
    pub fn gauges(gauges: GaugeSet) -> Self {
        Self { gauges, ..Self::default() }
    }

    /// What either needs.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.gauges = self.gauges.with(other.gauges);
        for header in other.headers {
            if !self.headers.contains(&header) {
                self.headers.push(header);
            }
        }
        self.prefix |= other.prefix;
        self.answers.first_token |= other.answers.first_token;
        self.answers.usage |= other.answers.usage;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_make_us_keep_much() {
        let mut kept = KeptHeaders::default();
        kept.keep("x-long", &"x".repeat(KeptHeaders::VALUE_BYTES_MAX + 1));
        (0..100).for_each(|n| kept.keep("x-many", &n.to_string()));
        assert_eq!((kept.get("x-long"), kept.get("x-many"), kept.0.len()), (None, Some("0"), 1));
        (0..100).for_each(|n| kept.keep(&n.to_string(), "v"));
        assert_eq!((kept.get("30"), kept.get("31"), kept.0.len()), (Some("v"), None, KeptHeaders::COUNT_MAX));
    }

    #[test]
    fn needs_add_up() {
        let one = Needs { headers: vec!["a".into()], ..Needs::default() };
        let two = Needs { headers: vec!["a".into(), "b".into()], ..Needs::default() };
        assert_eq!(one.with(two).headers, ["a".into(), "b".into()]);
    }
}
