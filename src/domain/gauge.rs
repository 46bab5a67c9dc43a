//! The numbers that an engine tells about itself, and what follows from them.

macro_rules! gauges {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $unit:literal $origin:ident;)+) => {
        /// A signal of an endpoint, in the unit that its variant states.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Gauge {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Gauge {
            /// Every gauge, in the order of its index.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];

            /// How many there are.
            pub const COUNT: usize = [$($name),+].len();

            /// Name in the API and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Name of the metric that shows it, of one endpoint.
            pub const fn metric(self) -> &'static str {
                match self { $(Self::$variant => concat!("fairlead_endpoint_", $name),)+ }
            }

            /// What it is, in one phrase.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => phrase(concat!($($doc),+)),)+ }
            }

            /// Unit of the number.
            pub const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)+ }
            }

            /// How the number comes about.
            pub const fn origin(self) -> Origin {
                match self { $(Self::$variant => Origin::$origin,)+ }
            }
        }
    };
}

/// A doc comment without its first blank and its full stop.
const fn phrase(doc: &'static str) -> &'static str {
    let text = doc.trim_ascii();
    let end = if matches!(text.as_bytes(), [.., b'.']) { text.len() - 1 } else { text.len() };
    text.split_at(end).0
}

/// How a gauge comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The engine says so, as of the last reading.
    Engine,
    /// Made from what the engine's counters and histograms gained lately.
    Window,
}

impl Origin {
    /// Name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Window => "window",
        }
    }
}

gauges! {
    /// Requests in model execution batches now.
    Running "running" "requests" Engine;
    /// Requests waiting to be scheduled.
    Waiting "waiting" "requests" Engine;
    /// Share of KV-cache blocks in use, 0 to 1.
    KvUsage "kv_usage" "share" Engine;
    /// Tokens that the KV cache holds.
    KvCapacity "kv_capacity_tokens" "tokens" Engine;
    /// Tokens in a KV-cache block.
    BlockTokens "block_tokens" "tokens" Engine;
    /// Most requests in a batch.
    MaxRunning "max_running" "requests" Engine;
    /// Prompt tokens waiting that are not in the cache.
    WaitingTokens "waiting_tokens" "tokens" Engine;
    /// How busy the engine calls itself, 0 to 1.
    Utilization "utilization" "share" Engine;
    /// 1 when awake, 0 when asleep.
    Awake "awake" "boolean" Engine;
    /// LoRA adapters that fit in a batch; whoever needs it gets the lists of active adapters as well.
    MaxAdapters "max_adapters" "adapters" Engine;
    /// Time to first token: mean.
    TtftMean "ttft_mean" "seconds" Window;
    /// Time to first token: median.
    TtftP50 "ttft_p50" "seconds" Window;
    /// Time to first token: 95th percentile.
    TtftP95 "ttft_p95" "seconds" Window;
    /// Inter-token latency: mean.
    ItlMean "itl_mean" "seconds" Window;
    /// Inter-token latency: median.
    ItlP50 "itl_p50" "seconds" Window;
    /// Inter-token latency: 95th percentile.
    ItlP95 "itl_p95" "seconds" Window;
    /// Time in the engine's queue: mean.
    QueueTimeMean "queue_time_mean" "seconds" Window;
    /// Time in the engine's queue: median.
    QueueTimeP50 "queue_time_p50" "seconds" Window;
    /// Time in the engine's queue: 95th percentile.
    QueueTimeP95 "queue_time_p95" "seconds" Window;
    /// Time of prefill, of one request: mean.
    PrefillTimeMean "prefill_time_mean" "seconds" Window;
    /// Time of prefill, of one request: median.
    PrefillTimeP50 "prefill_time_p50" "seconds" Window;
    /// Time of prefill, of one request: 95th percentile.
    PrefillTimeP95 "prefill_time_p95" "seconds" Window;
    /// Time of decode, of one request: mean.
    DecodeTimeMean "decode_time_mean" "seconds" Window;
    /// Time of decode, of one request: median.
    DecodeTimeP50 "decode_time_p50" "seconds" Window;
    /// Time of decode, of one request: 95th percentile.
    DecodeTimeP95 "decode_time_p95" "seconds" Window;
    /// Prompt length: mean.
    PromptLengthMean "prompt_length_mean" "tokens" Window;
    /// Output length: mean.
    OutputLengthMean "output_length_mean" "tokens" Window;
    /// Prompt tokens taken in each second.
    PromptTokensRate "prompt_tokens_rate" "tokens per second" Window;
    /// Tokens generated each second.
    GenerationTokensRate "generation_tokens_rate" "tokens per second" Window;
    /// Requests finished each second.
    FinishedRate "finished_rate" "requests per second" Window;
    /// Requests preempted each second.
    PreemptionRate "preemption_rate" "requests per second" Window;
    /// Share of prompt tokens that the prefix cache held, 0 to 1.
    PrefixHitRate "prefix_hit_rate" "share" Window;
}

/// A set of gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GaugeSet(u64);

const _: () = assert!(Gauge::COUNT <= 64, "a set has a bit for each gauge");

impl GaugeSet {
    /// No gauge.
    pub const NONE: Self = Self(0);

    /// Every gauge.
    pub const ALL: Self = Self::of(&Gauge::ALL);

    /// These gauges.
    pub const fn of(gauges: &[Gauge]) -> Self {
        let mut bits = 0;
        let mut rest = gauges;
        while let [first, others @ ..] = rest {
            bits |= 1 << (*first as usize);
            rest = others;
        }
        Self(bits)
    }

    /// Those in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `gauge` is among them.
    pub const fn has(self, gauge: Gauge) -> bool {
        self.0 & (1 << (gauge as usize)) != 0
    }

    /// Whether some gauge is in both.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of these are in `other`.
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The gauges of the set, in the order of their index.
    pub fn iter(self) -> impl Iterator<Item = Gauge> {
        Gauge::ALL.into_iter().filter(move |gauge| self.has(*gauge))
    }
}

/// One value a gauge; `None` where the engine does not tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauges([Option<f64>; Gauge::COUNT]);

impl Default for Gauges {
    fn default() -> Self {
        Self([None; Gauge::COUNT])
    }
}

impl Gauges {
    /// Sets one value. What cannot be (negative, NaN, infinite) is no value.
    pub fn set(&mut self, gauge: Gauge, value: Option<f64>) {
        if let Some(cell) = self.0.get_mut(gauge as usize) {
            *cell = value.filter(|value| value.is_finite() && *value >= 0.0);
        }
    }

    /// The same with one value set.
    #[must_use]
    pub fn with(mut self, gauge: Gauge, value: f64) -> Self {
        self.set(gauge, Some(value));
        self
    }

    /// One value.
    pub fn get(&self, gauge: Gauge) -> Option<f64> {
        self.0.get(gauge as usize).copied().flatten()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set = GaugeSet::of(&[Gauge::Waiting]).with(GaugeSet::of(&[Gauge::PrefixHitRate]));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Gauge::Waiting, Gauge::PrefixHitRate]);
        assert!(GaugeSet::NONE.is_empty() && !set.is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_is_none() {
        for lie in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Gauges::default().with(Gauge::Running, lie).is_empty());
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Gauge::ALL.iter().map(|gauge| gauge.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Gauge::COUNT);
    }
}
