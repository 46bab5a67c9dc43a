//! Arrays indexed by endpoint slot that grow without moving.

use std::sync::OnceLock;

use crate::domain::EndpointId;

/// Most endpoints at once; the registry refuses more.
pub const ENDPOINTS_MAX: usize = CHUNKS * CHUNK;

const CHUNK: usize = 256;
const CHUNKS: usize = 64;

/// One `T` for each endpoint slot, made on first use. Reading takes no lock, so a strategy keeps its per-endpoint
/// atomics in one. A reused slot still holds what the former endpoint left: reset it on removal.
#[derive(Debug)]
pub struct SlotTable<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Default for SlotTable<T> {
    fn default() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }
}

impl<T: Default> SlotTable<T> {
    /// The entry of an endpoint; `None` only for a slot at or above [`ENDPOINTS_MAX`].
    pub fn get(&self, id: EndpointId) -> Option<&T> {
        let slot = id.slot as usize;
        let chunk = self.chunks.get(slot / CHUNK)?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| T::default()).collect()).get(slot % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[test]
    fn entries_keep_their_place_as_the_table_grows() {
        let table = SlotTable::<AtomicU64>::default();
        let id = |slot| EndpointId { slot, generation: 0 };
        let last = ENDPOINTS_MAX as u32 - 1;
        table.get(id(3)).unwrap().store(7, Relaxed);
        table.get(id(last)).unwrap().store(9, Relaxed);
        assert_eq!(table.get(id(3)).unwrap().load(Relaxed), 7);
        assert_eq!(table.get(id(last)).unwrap().load(Relaxed), 9);
        assert!(table.get(id(last + 1)).is_none());
    }
}
