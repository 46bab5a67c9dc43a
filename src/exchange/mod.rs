//! One HTTP exchange, from request headers to the end of the answer, knowing neither gRPC nor async.
//!
//! A front end (ext_proc today) tells an [`Exchange`] what it sees and does what the returned [`Step`] says. All of
//! it is synchronous; what must wait is a [`Wait`](crate::routing::Wait) that the front end watches. Dropping the
//! exchange, at any point, settles it.

mod answer;
mod asking;
mod body;
mod choosing;
mod core;
mod core_reader;
mod decision;
mod dry_run;
mod explanation;
mod head;
mod machine;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod prefix_tests;
mod rewrite;
mod ring;
mod step;
#[cfg(test)]
mod strategy_tests;
mod subset;
mod token_sizes;
mod told;
#[cfg(test)]
mod told_tests;
mod upstream;
mod watch;

pub use body::Completeness;
pub use core::{Core, Policy};
pub use core_reader::CoreReader;
pub use dry_run::explain;
pub use explanation::{Answer, Candidate, Explanation, HEADER_BYTES_MAX, MeasuredLine, Outcome, ScoreLine};
pub use head::{RequestHead, STEERING_HEADERS};
pub use machine::Exchange;
pub use ring::DecisionRing;
pub use step::{BodyOutlook, Dispatch, LocalReply, Step};
pub use subset::Subset;
pub use upstream::{Content, UpstreamReport};
