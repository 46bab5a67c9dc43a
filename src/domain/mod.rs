//! Plain data that every other module speaks: no runtime, no wire format, no cluster.

mod annotation;
mod endpoint;
mod failure;
mod gauge;
mod hint;
mod input;
mod moment;
mod profiles;
mod selector;
mod strategy;
mod work;

#[cfg(test)]
pub(crate) use annotation::SAMPLE as ANNOTATION_SAMPLE;
pub use annotation::{AnnotationError, parse_annotation};
pub use endpoint::{EndpointId, EndpointSpec, EngineKind, ModelSpec, Role};
pub use failure::Failure;
pub use gauge::{Gauge, GaugeSet, Gauges, Origin};
pub use hint::hint;
pub use input::{Input, Spread, Total};
pub use moment::{Clock, ClockHand, Moment};
pub use profiles::{ModelProfiles, Profile, When};
pub use selector::{Selector, SelectorError};
pub use strategy::{Complaint, PickerName, ScorerSpec, StrategySpec, TYPED_VALUES};
pub use work::Work;
