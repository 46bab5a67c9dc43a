//! Configuration: one struct tree, read once from file, environment and flags, validated whole, then handed down.

pub mod docs;
mod endpoint_file;
mod endpoints;
mod fault;
mod kubernetes;
mod limits;
mod load;
mod model;
mod precise;
mod reload;
mod scrape;
mod settings;
mod tree;
mod validate;
mod values;
mod warnings;

pub use endpoint_file::read_endpoints;
pub use endpoints::*;
pub use fault::{Fault, Origin};
pub use kubernetes::*;
pub use limits::*;
pub use load::{CONFIG_BYTES_MAX, Loaded, Sources, load, load_text, process_env};
pub use model::*;
pub use precise::*;
pub use reload::Reload;
#[cfg(test)]
pub(crate) use reload::with_another;
pub use scrape::*;
pub use settings::{Effect, Form, SETTINGS, Setting, setting};
pub use values::*;
pub use warnings::{process_variables, warnings};

#[cfg(test)]
mod tests;
