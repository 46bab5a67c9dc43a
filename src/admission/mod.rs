//! Deciding whether a request may come in at all.

mod body_budget;

pub use body_budget::{BodyBudget, BodyPermit};
