//! Numbers per endpoint that may be a second old.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::Moment;
use crate::state::{Endpoint, SlotTable};

/// A number per endpoint that is worked out anew once a second, each endpoint's at its own moment of the second: what
/// takes a walk over a window then costs a decision one walk, not one per candidate.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Second and generation in 16 bits each, then the number as `f32` bits, NaN for none; 0 is never.
    cells: SlotTable<AtomicU64>,
}

const SECOND_MICROS: u64 = 1_000_000;
/// Spreads consecutive slots over the second.
const PHASE_MICROS: u64 = 618_034;

impl Recent {
    /// The endpoint's number, from `make` if the last is over a second old.
    pub(super) fn get(&self, endpoint: &Endpoint, now: Moment, make: impl FnOnce() -> Option<f64>) -> Option<f64> {
        let Some(cell) = self.cells.get(endpoint.id) else { return make() };
        let second = (now.as_micros() + u64::from(endpoint.id.slot) * PHASE_MICROS) / SECOND_MICROS + 1;
        let tag = (second & 0xffff) << 16 | u64::from(endpoint.id.generation & 0xffff);
        let held = cell.load(Relaxed);
        if held != 0 && held >> 32 == tag {
            let value = f32::from_bits(held as u32);
            return (!value.is_nan()).then_some(f64::from(value));
        }
        let number = make();
        let bits = u64::from((number.unwrap_or(f64::NAN) as f32).to_bits());
        cell.store(tag << 32 | bits, Relaxed);
        number
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::routing::conformance::fleet;

    use super::*;

    #[test]
    fn a_number_is_made_once_a_second_and_none_is_a_number_too() {
        let (recent, fleet) = (Recent::default(), fleet(2));
        let at = |millis| Moment::EPOCH + Duration::from_millis(millis);
        assert_eq!(recent.get(&fleet[0], at(5000), || Some(2.0)), Some(2.0));
        assert_eq!(recent.get(&fleet[0], at(5999), || panic!("made twice")), Some(2.0));
        assert_eq!(recent.get(&fleet[0], at(6000), || None), None);
        assert_eq!(recent.get(&fleet[0], at(6001), || panic!("made twice")), None);
        assert_eq!(recent.get(&fleet[1], at(6001), || Some(4.0)), Some(4.0));
    }
}
