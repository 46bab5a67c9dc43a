//! Configuration: one struct tree, read once from file, environment and flags, validated whole, then handed down.

mod model;
mod values;

pub use model::*;
pub use values::*;
