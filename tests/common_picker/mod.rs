//! Cases of the endpoint-picker protocol, put to any picker by its address.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests too")]

pub(crate) mod answers;
pub(crate) mod cases;
pub(crate) mod client;
pub(crate) mod run;
