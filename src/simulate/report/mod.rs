//! Showing results: a table, plots, JSON.

mod table;

pub use table::table;
