//! When scripts begin in an open loop.

use fastrand::Rng;

use super::super::engine::whole;
use super::draw::exponential;

/// How the rate of arrivals moves around its mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// It stays.
    Poisson,
    /// It is `factor` times that of the rest for `length_s` of each `every_s` seconds.
    Bursts {
        /// From the beginning of a burst to that of the next.
        every_s: f64,
        /// How long a burst lasts.
        length_s: f64,
        /// How many times the rate of the time between bursts.
        factor: f64,
    },
    /// It swings as a sawtooth of straight lines: lowest at the beginning, highest half a period later.
    Diurnal {
        /// From low to low.
        period_s: f64,
        /// How far it goes either way, as a share of the mean.
        swing: f64,
    },
}

impl Pattern {
    /// The rate at a time, as a multiple of the mean.
    fn at(self, seconds: f64) -> f64 {
        match self {
            Self::Poisson => 1.0,
            Self::Bursts { every_s, length_s, factor } => {
                let calm = every_s / (every_s - length_s + length_s * factor);
                // A burst ends its period, so that a run begins calmly.
                if seconds % every_s >= every_s - length_s { calm * factor } else { calm }
            }
            Self::Diurnal { period_s, swing } => {
                let phase = (seconds % period_s) / period_s;
                1.0 - swing + 4.0 * swing * phase.min(1.0 - phase)
            }
        }
    }

    /// The highest multiple.
    fn peak(self) -> f64 {
        match self {
            Self::Poisson => 1.0,
            Self::Bursts { every_s, .. } => self.at(every_s * (1.0 - 1e-9)),
            Self::Diurnal { swing, .. } => 1.0 + swing,
        }
    }
}

/// Draws the times of arrivals: independent of one another, at a rate that may move.
#[derive(Debug)]
pub struct Arrivals {
    pattern: Pattern,
    /// Mean microseconds between two at the highest rate.
    gap_us: f64,
    at_us: f64,
}

impl Arrivals {
    /// Arrivals at `rate` a second on average.
    pub fn new(pattern: Pattern, rate: f64) -> Self {
        Self { pattern, gap_us: 1e6 / (rate * pattern.peak()), at_us: 0.0 }
    }

    /// The next time, in microseconds.
    pub fn next(&mut self, rng: &mut Rng) -> u64 {
        loop {
            self.at_us += exponential(rng, self.gap_us);
            // Thinning: of the arrivals at the peak rate, keep the share that the present rate is of it.
            if self.pattern == Pattern::Poisson || rng.f64() * self.pattern.peak() < self.pattern.at(self.at_us / 1e6) {
                return whole(self.at_us);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_keeps_its_mean_rate() {
        let bursts = Pattern::Bursts { every_s: 40.0, length_s: 5.0, factor: 5.0 };
        for pattern in [Pattern::Poisson, bursts, Pattern::Diurnal { period_s: 100.0, swing: 0.8 }] {
            let (mut arrivals, mut rng) = (Arrivals::new(pattern, 50.0), Rng::with_seed(1));
            let count = std::iter::from_fn(|| Some(arrivals.next(&mut rng))).take_while(|at| *at < 2_000_000_000);
            let rate = count.count() as f64 / 2000.0;
            assert!((rate / 50.0 - 1.0).abs() < 0.02, "{pattern:?} gives {rate}");
        }
    }
}
