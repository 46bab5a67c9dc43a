//! Time as an argument: a moment is microseconds since the process (or a simulation) began.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A point in time, in microseconds since its [`Clock`]'s epoch.
///
/// It fits an atomic, and a simulation can make its own, which an `Instant` allows neither of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The epoch itself; used for "never" where a later moment is always meant.
    pub const EPOCH: Self = Self(0);

    /// A moment so many microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long before `later` this moment was; zero when it was not before.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        rhs.until(self)
    }
}

/// A monotonic clock. Cheap to clone; all clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// Real time since then.
    Real(Instant),
    /// Whatever time somebody set.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock of real time, whose epoch lies one second back, so that no moment it gives is [`Moment::EPOCH`].
    pub fn start() -> Self {
        let now = Instant::now();
        Self(Source::Real(now.checked_sub(Duration::from_secs(1)).unwrap_or(now)))
    }

    /// A clock that stands still until it is set, and the hand to set it. For simulations and tests.
    pub fn manual(at: Moment) -> (Self, ClockHand) {
        let time = Arc::new(AtomicU64::new(at.0));
        (Self(Source::Manual(Arc::clone(&time))), ClockHand(time))
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::Real(epoch) => Moment::EPOCH + epoch.elapsed(),
            Source::Manual(time) => Moment(time.load(Relaxed)),
        }
    }
}

/// Sets the time of a manual [`Clock`].
#[derive(Debug, Clone)]
pub struct ClockHand(Arc<AtomicU64>);

impl ClockHand {
    /// Sets the clock, forward only.
    pub fn set(&self, to: Moment) {
        self.0.fetch_max(to.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_never_goes_below_zero() {
        let (early, late) = (Moment::from_micros(5), Moment::from_micros(9));
        assert_eq!(late - early, Duration::from_micros(4));
        assert_eq!(early - late, Duration::ZERO);
    }

    #[test]
    fn the_clock_never_gives_the_epoch() {
        assert!(Clock::start().now() > Moment::EPOCH);
    }
    #[test]
    fn a_manual_clock_shows_what_it_was_set_to_and_never_goes_back() {
        let (clock, hand) = Clock::manual(Moment(5));
        hand.set(Moment(9));
        hand.set(Moment(7));
        assert_eq!(clock.clone().now(), Moment(9));
    }
}
