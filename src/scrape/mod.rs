//! Reading what engines say about themselves.

pub mod text;
