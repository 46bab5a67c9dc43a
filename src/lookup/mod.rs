//! What is asked of others before a decision: the token ids of a prompt, and who has its beginning in `LMCache`.
//!
//! A request does not do it itself. It hands over a question and waits, as it waits for a strategy, until the answer is
//! there or the time for it is over; then it is routed, with what came. Everything is bounded: the questions under way,
//! their time, what is kept of answers. Whoever fails again and again is left alone for a while.
//!
//! | file | what it holds |
//! |---|---|
//! | `hot` | the side of the request: what is known at once, and the question |
//! | `worker` | the cold side: takes questions, answers each in time |
//! | `remote` | token ids from an engine or a service |
//! | `local` | token ids from a model's files (feature `tokenizers`) |
//! | `lmcache` | who has a prompt, by `LMCache`'s controller or coordinator |
//! | `cache` | answers kept within a bound |
//! | `breaker` | who is left alone |

mod breaker;
mod cache;
mod hot;
mod lmcache;
#[cfg(feature = "tokenizers")]
mod local;
mod remote;
mod status;
#[cfg(test)]
mod tests;
mod worker;

pub use hot::{Begun, Found, Key, Lookup, Pending, Request};
pub use status::{LookupStatus, Outcome};
pub use worker::{Worker, run};
