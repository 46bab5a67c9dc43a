//! Plain data that every other module speaks: no runtime, no wire format, no cluster.

mod endpoint;
mod failure;
mod gauge;
mod input;
mod moment;
mod selector;
mod work;

pub use endpoint::{EndpointId, EndpointSpec, EngineKind, ModelSpec, Role};
pub use failure::Failure;
pub use gauge::{Gauge, GaugeSet, Gauges, Origin};
pub use input::{Input, Spread, Total};
pub use moment::{Clock, ClockHand, Moment};
pub use selector::{Selector, SelectorError};
pub use work::Work;
