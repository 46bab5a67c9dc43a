//! One file per strategy. Adding one is a new file plus a line in [`STRATEGIES`].

mod active_request;
mod cost;
mod fastest_response;
mod least_busy_time;
mod least_kv_cache;
mod least_latency;
mod least_request;
mod least_tokens;
mod least_utilization;
mod lora_affinity;
mod power_of_two;
mod prefix_cache;
mod prefix_cache_preble;
#[cfg(test)]
mod prefix_tests;
mod priority;
mod random;
mod round_robin;
mod session_affinity;
mod settings;
mod simple_shuffle;
mod throughput;
mod token_load;
mod usage_based;

use super::Registration;

/// Every strategy that Fairlead knows.
pub const STRATEGIES: &[Registration] = &[
    active_request::REGISTRATION,
    cost::REGISTRATION,
    fastest_response::REGISTRATION,
    least_busy_time::REGISTRATION,
    least_kv_cache::REGISTRATION,
    least_latency::REGISTRATION,
    least_request::REGISTRATION,
    least_tokens::REGISTRATION,
    least_utilization::REGISTRATION,
    lora_affinity::REGISTRATION,
    power_of_two::REGISTRATION,
    prefix_cache::REGISTRATION,
    prefix_cache_preble::REGISTRATION,
    priority::REGISTRATION,
    random::REGISTRATION,
    round_robin::REGISTRATION,
    session_affinity::REGISTRATION,
    simple_shuffle::REGISTRATION,
    throughput::REGISTRATION,
    token_load::REGISTRATION,
    usage_based::REGISTRATION,
];
