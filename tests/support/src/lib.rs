//! Black-box companions of Fairlead.
//!
//! Everything here speaks protocols (HTTP, SSE, Prometheus text, `ext_proc` gRPC) and never links the `fairlead` crate, so
//! that it cannot share its bugs.
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | a simulated vLLM server with faults on command |
//! | [`load`] | an open-loop and closed-loop load generator |
//! | [`noop`] | an `ext_proc` service that lets everything pass: the floor of benchmarks |
//! | [`harness`] | engines, `ext_proc` service and Envoy as one stack for integration tests |
//! | [`mod@bench`] | what Fairlead costs beside the no-op service |
//! | [`fleet`], [`scrape_cost`] | many endpoints with nothing but metrics, and what reading them costs |
//! | [`compare`] | every strategy in turn against the same engines |
//! | [`demo`] | the same stack for people, with a first burst of requests |

pub mod bench;
pub mod compare;
pub mod demo;
pub mod engine;
pub mod fleet;
pub mod harness;
pub mod kube;
pub mod load;
pub mod noop;
pub mod scrape_cost;
