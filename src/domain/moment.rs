//! Time as an argument: a moment is microseconds since the process (or a simulation) began.

use std::ops::{Add, Sub};
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

/// The monotonic clock of this process. Cheap to copy; all copies share the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock whose epoch lies one second back, so that no moment it gives is [`Moment::EPOCH`].
    pub fn start() -> Self {
        let now = Instant::now();
        Self { epoch: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// The present moment.
    pub fn now(self) -> Moment {
        Moment::EPOCH + self.epoch.elapsed()
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
}
