//! Where endpoints come from, and where a plain Envoy gets them from us.
//!
//! A source turns what it watches into [`Change`](crate::state::Change)s for the registry. Its channel is bounded: a
//! source waits, it never drops.

mod atomic_file;
mod eds;
mod endpoint_list;
mod file;
pub mod kube;
mod status;
#[cfg(test)]
mod test_support;
mod watch;
mod watched_file;

pub use eds::run_eds;
pub use endpoint_list::{Fault, parse_endpoints};
pub use file::run_file;
pub use status::SourceStatus;
pub use watched_file::{Reading, WatchedFile};
