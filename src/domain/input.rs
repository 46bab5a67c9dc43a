//! What an engine's page holds before it is a gauge: levels, totals that only grow, and distributions.

use super::{Gauge, GaugeSet};

macro_rules! kinds {
    ($(#[doc = $doc:literal])+ $kind:ident; $($(#[doc = $each:literal])+ $variant:ident $name:literal [$($gauge:ident),+];)+) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[doc = $each])+ $variant,)+
        }

        impl $kind {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Name in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The gauges that are made from it.
            pub const fn feeds(self) -> GaugeSet {
                match self { $(Self::$variant => GaugeSet::of(&[$(Gauge::$gauge),+]),)+ }
            }
        }
    };
}

kinds! {
    /// A number that only grows while the engine runs.
    Total;
    /// Prompt tokens taken in.
    PromptTokens "prompt_tokens" [PromptTokensRate];
    /// Tokens generated.
    GenerationTokens "generation_tokens" [GenerationTokensRate];
    /// Requests finished.
    Finished "finished" [FinishedRate];
    /// Requests preempted.
    Preemptions "preemptions" [PreemptionRate];
    /// What the prefix cache held of what it was asked for, in tokens or blocks.
    PrefixHits "prefix_hits" [PrefixHitRate];
    /// What the prefix cache was asked for, in the unit of the hits.
    PrefixQueries "prefix_queries" [PrefixHitRate];
    /// What the prefix cache did not hold, in the unit of the hits, where an engine counts that instead of queries.
    PrefixMisses "prefix_misses" [PrefixHitRate];
}

kinds! {
    /// A histogram.
    Spread;
    /// Time to first token.
    Ttft "ttft" [TtftMean, TtftP50, TtftP95];
    /// Time between two tokens.
    Itl "itl" [ItlMean, ItlP50, ItlP95];
    /// Time in the engine's queue.
    QueueTime "queue_time" [QueueTimeMean, QueueTimeP50, QueueTimeP95];
    /// Time of prefill.
    PrefillTime "prefill_time" [PrefillTimeMean, PrefillTimeP50, PrefillTimeP95];
    /// Time of decode.
    DecodeTime "decode_time" [DecodeTimeMean, DecodeTimeP50, DecodeTimeP95];
    /// Prompt tokens of a request.
    PromptLength "prompt_length" [PromptLengthMean];
    /// Output tokens of a request.
    OutputLength "output_length" [OutputLengthMean];
}

impl Spread {
    /// The gauge of the mean, and those of the quantiles.
    pub const fn gauges(self) -> (Gauge, &'static [(f64, Gauge)]) {
        match self {
            Self::Ttft => (Gauge::TtftMean, &[(0.5, Gauge::TtftP50), (0.95, Gauge::TtftP95)]),
            Self::Itl => (Gauge::ItlMean, &[(0.5, Gauge::ItlP50), (0.95, Gauge::ItlP95)]),
            Self::QueueTime => (Gauge::QueueTimeMean, &[(0.5, Gauge::QueueTimeP50), (0.95, Gauge::QueueTimeP95)]),
            Self::PrefillTime => {
                (Gauge::PrefillTimeMean, &[(0.5, Gauge::PrefillTimeP50), (0.95, Gauge::PrefillTimeP95)])
            }
            Self::DecodeTime => (Gauge::DecodeTimeMean, &[(0.5, Gauge::DecodeTimeP50), (0.95, Gauge::DecodeTimeP95)]),
            Self::PromptLength => (Gauge::PromptLengthMean, &[]),
            Self::OutputLength => (Gauge::OutputLengthMean, &[]),
        }
    }
}

/// One thing that an engine may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// The gauge itself.
    Level(Gauge),
    /// A counter.
    Total(Total),
    /// A histogram.
    Spread(Spread),
    /// KV-cache blocks in all; with the tokens in a block they are the capacity.
    Blocks,
}

impl Input {
    /// The input of that name in the configuration: a gauge's own name, or one of a total, a spread, or `blocks`.
    pub fn named(name: &str) -> Option<Self> {
        let level = Gauge::ALL.into_iter().find(|gauge| gauge.name() == name).map(Self::Level);
        let total = || Total::ALL.iter().find(|total| total.name() == name).map(|total| Self::Total(*total));
        let spread = || Spread::ALL.iter().find(|spread| spread.name() == name).map(|spread| Self::Spread(*spread));
        level.or_else(total).or_else(spread).or((name == "blocks").then_some(Self::Blocks))
    }

    /// Every name that [`Input::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let levels = Gauge::ALL.into_iter().map(Gauge::name);
        let (totals, spreads) = (Total::ALL.iter().map(|it| it.name()), Spread::ALL.iter().map(|it| it.name()));
        levels.chain(totals).chain(spreads).chain(["blocks"])
    }

    /// The gauges that need it.
    pub const fn feeds(self) -> GaugeSet {
        match self {
            Self::Level(Gauge::BlockTokens) => GaugeSet::of(&[Gauge::BlockTokens, Gauge::KvCapacity]),
            Self::Level(gauge) => GaugeSet::of(&[gauge]),
            Self::Total(total) => total.feeds(),
            Self::Spread(spread) => spread.feeds(),
            Self::Blocks => GaugeSet::of(&[Gauge::KvCapacity]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_stands_for_one_input() {
        let mut names: Vec<_> = Input::names().collect();
        assert!(names.iter().all(|name| Input::named(name).is_some()));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_gauge_is_fed_by_something_other_than_itself_or_by_the_engine() {
        for gauge in Gauge::ALL {
            assert!(Input::named(gauge.name()).is_some_and(|input| input.feeds().has(gauge)), "{}", gauge.name());
        }
        for spread in Spread::ALL {
            let (mean, quantiles) = spread.gauges();
            let made = quantiles.iter().fold(GaugeSet::of(&[mean]), |set, (_, it)| set.with(GaugeSet::of(&[*it])));
            assert_eq!(made, spread.feeds());
        }
    }
}
