//! One file per strategy. Adding one is a new file plus a line in [`STRATEGIES`].

mod least_request;
mod power_of_two;
mod random;
mod round_robin;

use super::Registration;

/// Every strategy that Fairlead knows.
pub const STRATEGIES: &[Registration] =
    &[least_request::REGISTRATION, power_of_two::REGISTRATION, random::REGISTRATION, round_robin::REGISTRATION];
