//! The `fairlead` program.

fn main() {}
