//! What the index locks and counts with: the standard library's, or in tests with `--cfg shuttle` that crate's,
//! which plays through the orders in which threads can run.

#[cfg(all(test, shuttle))]
pub(super) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, atomic};
