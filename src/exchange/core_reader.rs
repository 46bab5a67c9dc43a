//! Which core new exchanges begin with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Core;

/// A handle on the newest core. Clones read the same. An exchange loads it once and keeps what it got to its end.
#[derive(Debug, Clone)]
pub struct CoreReader(Arc<ArcSwap<Core>>);

impl CoreReader {
    /// A handle on this core until another one is published.
    pub fn new(core: Core) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(core)))
    }

    /// The newest core.
    pub fn load(&self) -> Arc<Core> {
        self.0.load_full()
    }

    /// Makes this the newest; for whoever reads the configuration.
    pub fn publish(&self, core: Core) {
        self.0.store(Arc::new(core));
    }
}
