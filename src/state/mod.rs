//! The endpoint cache: one writer folds discovery into immutable snapshots, readers take one and keep it.
//!
//! Numbers live as atomics in each [`Endpoint`], so a scrape or a request never rebuilds a snapshot.

mod demand;
mod endpoint;
mod fleet;
mod live;
mod policies;
mod registry;
mod slots;
mod snapshot;
mod task;
mod ticket;

pub use demand::Demand;
pub use endpoint::Endpoint;
pub use fleet::{Fleet, ModelView};
pub use live::{
    Adapters, Cooldown, Fresh, Health, Live, Mark, Measured, Outcomes, Outstanding, PASSED_OVER_MAX, Presence,
    Question, Signals, Window,
};
pub use policies::{Policies, PolicyBook, PolicyReader, Rewrite};
pub use registry::{Applied, Change, Registry, RegistryError, SourceId};
pub use slots::{ENDPOINTS_MAX, SlotTable};
pub use snapshot::{Reader, Snapshot};
pub use task::{Observer, run_registry};
pub use ticket::Ticket;
