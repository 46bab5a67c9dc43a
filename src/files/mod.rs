//! Files of ours and of others, without surprises: reading that a pipe or a device cannot hold up, and locks.
//!
//! All of it blocks, a mount that hangs for ever. Whoever must go on meanwhile calls it on a thread that nobody waits for.

mod lock;
mod regular;

pub use lock::{Locked, PathLock};
pub use regular::read_regular;
