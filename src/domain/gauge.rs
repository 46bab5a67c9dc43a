//! The numbers that an engine tells about itself.

/// A signal scraped from an engine, in the unit that its variant states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Gauge {
    /// Requests in model execution batches now (vLLM `vllm:num_requests_running`).
    Running,
    /// Requests waiting to be scheduled (vLLM `vllm:num_requests_waiting`).
    Waiting,
    /// Share of KV-cache blocks in use, 0 to 1 (vLLM `vllm:kv_cache_usage_perc`).
    KvUsage,
}

impl Gauge {
    /// Every gauge, in the order of its index.
    pub const ALL: [Self; 3] = [Self::Running, Self::Waiting, Self::KvUsage];

    /// Name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::KvUsage => "kv_usage",
        }
    }
}
