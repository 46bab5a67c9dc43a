//! How evenly requests lie over endpoints.

use serde::Serialize;

/// Two measures of evenness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Requests of the busiest endpoint by the mean; 1 is even.
    pub max_over_mean: f64,
    /// Coefficient of variation: standard deviation by the mean; 0 is even.
    pub variation: f64,
}

impl Spread {
    /// Over so many endpoints, of which these counts are known; the others got nothing.
    pub fn over(endpoints: usize, counts: impl Iterator<Item = u64>) -> Self {
        let counts: Vec<u64> = counts.collect();
        let silent = endpoints.saturating_sub(counts.len());
        Self::of(counts.into_iter().chain(std::iter::repeat_n(0, silent)))
    }

    /// Over the counts of all endpoints.
    pub fn of(counts: impl Iterator<Item = u64>) -> Self {
        let counts: Vec<f64> = counts.map(|count| count as f64).collect();
        let mean = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
        if mean <= 0.0 {
            return Self::default();
        }
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        let max = counts.iter().copied().fold(0.0, f64::max);
        Self { max_over_mean: max / mean, variation: variance.sqrt() / mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_counts_have_no_variation() {
        assert_eq!(Spread::of([5, 5, 5].into_iter()), Spread { max_over_mean: 1.0, variation: 0.0 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
        assert_eq!(Spread::over(2, std::iter::once(4)), Spread::of([4, 0].into_iter()));
    }

    #[test]
    fn uneven_counts_show_in_both_measures() {
        let spread = Spread::of([1, 3].into_iter());
        assert!((spread.max_over_mean - 1.5).abs() < 1e-9 && (spread.variation - 0.5).abs() < 1e-9);
    }
}
