//! One HTTP exchange, from request headers to the end of the answer, knowing neither gRPC nor async.
//!
//! A front end (ext_proc today) tells an [`Exchange`] what it sees and does what the returned [`Step`] says. All of
//! it is synchronous; what must wait is a [`Wait`](crate::routing::Wait) that the front end watches. Dropping the
//! exchange, at any point, settles it.

mod body;
mod choosing;
mod core;
mod head;
mod machine;
mod step;
mod upstream;

pub use body::Completeness;
pub use core::{Core, Policy};
pub use head::{RequestHead, STEERING_HEADERS};
pub use machine::Exchange;
pub use step::{BodyOutlook, Dispatch, LocalReply, Step};
pub use upstream::UpstreamReport;
