//! Which endpoint holds which prefix: the prompt as a chain of block hashes, and who has seen how much of it.
//!
//! A prompt is cut into blocks of equal size; the hash of each block covers all blocks before it too ([`Chainer`]). So
//! one 64-bit number stands for a whole prefix, and the prefixes that an endpoint holds are *closed*: whoever holds
//! block 7 of a chain holds blocks 1 to 6. Everything here keeps that true, and lives by it:
//!
//! - **finding** compares how many hold block 1, block n and blocks between, and looks closer only where the counts
//!   differ: a few lookups for a chain of any length (`matches`);
//! - **evicting** takes the least recently used end first. A use renews a path from its end to its root, so the root
//!   is always newer than what hangs on it (`ledger`).
//!
//! | file | what it holds |
//! |---|---|
//! | `chain` | bytes of a prompt → hashes |
//! | `blocks` | hash → endpoints; sharded, a lock for the time of one lookup |
//! | `endpoint_set` | a few endpoints in place, many as bits |
//! | `ledger` | one endpoint's prefixes in the order of their use, as runs of blocks |
//! | `matches` | how much of a chain each endpoint holds |
//! | `account` | the bytes held, against a bound that is kept |
//! | `tokens` | token ids → hashes, in an engine's blocks |
//! | `held` | what engines hold by their own account |
//! | `expected` | what engines will hold in a moment |
//! | `row` | the blocks of one engine cache, event by event |
//!
//! A prefix is *pending* from the decision on, so that the next equal prompt follows the first instead of being spread
//! over everybody; it is *committed* when the engine has answered, and withdrawn if the engine failed. Who dies between
//! the two leaves something pending that goes away after [`Settings::pending_life`].

mod account;
mod blocks;
mod chain;
mod endpoint_set;
mod expected;
#[cfg(test)]
mod expected_tests;
mod held;
#[cfg(test)]
mod held_tests;
mod ledger;
mod matches;
mod prefix_index;
mod row;
mod runs;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod tokens;

pub use chain::{BLOCK_BYTES, Chain, Chainer, Root};
pub use expected::Awaited;
pub use held::{Held, HeldIndex};
pub use matches::Matches;
pub use prefix_index::{Claim, Fill, PrefixIndex, Settings, Stats};
pub use row::{Row, StoreError, StoredBlock, Tier};
pub use tokens::{TokenPrompt, extra_digest, salt_digest, token_block, token_root};
