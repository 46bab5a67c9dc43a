//! Plain data that every other module speaks: no runtime, no wire format, no cluster.

mod endpoint;
mod gauge;
mod moment;
mod outcome;

pub use endpoint::{EndpointId, EndpointSpec, EngineKind, ModelSpec, Role};
pub use gauge::Gauge;
pub use moment::{Clock, Moment};
pub use outcome::{Failure, Outcome};
