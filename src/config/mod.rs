//! Configuration: one struct tree, read once from file, environment and flags, validated whole, then handed down.

mod endpoints;
mod model;
mod values;

pub use endpoints::*;
pub use model::*;
pub use values::*;
