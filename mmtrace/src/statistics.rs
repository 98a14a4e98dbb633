//! What several samples say together, and when one set of them is faster than another.
//!
//! Samples of both sides are taken in rounds, one soon after the other, so that whatever else the
//! machine does meets both. What is compared is the ratio within a round; what is known of it is an
//! interval. One disturbed round widens it: then nobody is faster, rather than the wrong one.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Fewer rounds tell nothing of their spread.
pub const FEWEST_ROUNDS: usize = 3;
/// By less than this factor, what differs may be where the linker or the kernel put something.
pub const LEAST_FACTOR: f64 = 1.05;
/// How sure the interval of a ratio is. Some hundred ratios are looked at in a run: with normal noise
/// and no difference, one in ten runs would have one that is found by chance, did it not have to
/// exceed [`LEAST_FACTOR`] too.
pub const CONFIDENCE: f64 = 0.999;

/// A figure over the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
    /// How far from the median a sample typically is: the median of these distances.
    pub deviation: f64,
}

impl Spread {
    /// Of these values; None without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let middle = median(values)?;
        let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
        Some(Self {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            median: middle,
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            deviation: median(&distances)?,
        })
    }
}

/// The value in the middle, or between the two there; None without any.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

/// How many times another's figure is ours, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The geometric mean over the rounds.
    pub value: f64,
    /// The interval's lower end.
    pub least: f64,
    /// The interval's upper end.
    pub most: f64,
}

impl Ratio {
    /// Of `theirs` to `ours`, both by round, over the rounds that both have; None if these are too
    /// few, or a figure is not above zero.
    #[must_use]
    pub fn of(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Option<Self> {
        let pairs = pairs(ours, theirs);
        if pairs.len() < FEWEST_ROUNDS || pairs.iter().any(|(a, b)| *a <= 0.0 || *b <= 0.0) {
            return None;
        }
        let logarithms: Vec<f64> = pairs
            .iter()
            .map(|(our, their)| (their / our).ln())
            .collect();
        let (mean, error) = interval(&logarithms)?;
        Some(Self {
            value: mean.exp(),
            least: (mean - error).exp(),
            most: (mean + error).exp(),
        })
    }

    /// Of ours to theirs.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self {
            value: self.value.recip(),
            least: self.most.recip(),
            most: self.least.recip(),
        }
    }

    /// Half of the interval.
    #[must_use]
    pub fn half_width(self) -> f64 {
        (self.most - self.least) / 2.0
    }

    /// Whether what is ours is smaller, beyond the spread and [`LEAST_FACTOR`].
    #[must_use]
    pub fn is_above_one(self) -> bool {
        self.least >= LEAST_FACTOR
    }
}

/// The figures of the rounds that both have.
fn pairs(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Vec<(f64, f64)> {
    let pairs = ours.iter().filter_map(|(round, our)| {
        let (_, their) = theirs.iter().find(|(other, _)| other == round)?;
        Some((*our, *their))
    });
    pairs.collect()
}

/// The mean of these values, and by how much it may be off; None if they are too few.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < FEWEST_ROUNDS {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|it| (it - mean).powi(2)).sum();
    let students = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
    let standard_errors = students.inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
    let error = standard_errors * (squares / (count - 1.0) / count).sqrt();
    Some((mean, error))
}

/// Whether two figures, which may be 0, differ beyond the spread and by more than [`LEAST_FACTOR`]
/// leaves of the largest; None if the rounds are too few to tell.
#[must_use]
pub fn differs(one: &[(usize, f64)], other: &[(usize, f64)]) -> Option<bool> {
    let pairs = pairs(one, other);
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let (mean, error) = interval(&differences)?;
    let largest = pairs
        .iter()
        .fold(0.0_f64, |most, (a, b)| most.max(*a).max(*b));
    Some(mean.abs() - error > largest * (1.0 - LEAST_FACTOR.recip()))
}

/// Between which values the middle half of these lies; None without any.
#[must_use]
pub fn middle_half(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    // Between two values in proportion, as most programs do it.
    let at = |share: f64| {
        let position = share * last as f64;
        let below = position.floor() as usize;
        let above = (below + 1).min(last);
        sorted[below] + (sorted[above] - sorted[below]) * position.fract()
    };
    Some([at(0.25), at(0.75)])
}

/// By which factor `ours` is faster than `theirs`, if that exceeds the spread. Both are times, by
/// round.
#[must_use]
pub fn faster(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Option<f64> {
    let ratio = Ratio::of(ours, theirs)?;
    ratio.is_above_one().then_some(ratio.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[f64]) -> Vec<(usize, f64)> {
        values.iter().copied().enumerate().collect()
    }

    #[test]
    fn a_spread_is_not_moved_by_one_outlier() {
        let spread = Spread::of(&[3.0, 100.0, 1.0, 2.0, 4.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 100.0));
        assert_eq!(spread.deviation, 1.0);
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn the_interval_is_students() {
        // ln of the ratios: 0.1, 0.2, 0.3: the mean 0.2, the standard error 0.1 / sqrt(3), and
        // 31.599 of these by the table for two degrees of freedom.
        let theirs: Vec<f64> = [0.1_f64, 0.2, 0.3].map(f64::exp).into();
        let ratio = Ratio::of(&times(&[1.0; 3]), &times(&theirs)).unwrap();
        assert!((ratio.value.ln() - 0.2).abs() < 1e-9, "{ratio:?}");
        let error = 31.599 * 0.1 / 3.0_f64.sqrt();
        assert!((ratio.least.ln() - (0.2 - error)).abs() < 1e-3, "{ratio:?}");
        assert!((ratio.most.ln() - (0.2 + error)).abs() < 1e-3, "{ratio:?}");
    }

    #[test]
    fn what_lies_within_the_spread_is_not_faster() {
        let ours = times(&[1.0, 1.1, 0.9, 1.0, 1.2]);
        assert_eq!(faster(&ours, &times(&[1.3, 1.1, 1.2, 1.4, 1.2])), None);
        let factor = faster(&ours, &times(&[2.0, 2.2, 1.8, 2.1, 2.5])).unwrap();
        assert!((factor - 2.036).abs() < 1e-3, "{factor}");
    }

    #[test]
    fn what_meets_both_sides_of_a_round_does_not_count() {
        let slowed = [1.0, 3.0, 2.0, 1.0, 9.0];
        let ours = times(&slowed);
        let theirs = times(&slowed.map(|time| 1.2 * time));
        let factor = faster(&ours, &theirs).unwrap();
        assert!((factor - 1.2).abs() < 1e-9, "{factor}");
    }

    #[test]
    fn a_small_factor_is_not_faster_however_steady() {
        let ours = times(&[1.0; 5]);
        assert_eq!(faster(&ours, &times(&[1.04; 5])), None);
        assert!(faster(&ours, &times(&[1.06; 5])).is_some());
    }

    #[test]
    fn one_upset_leaves_nobody_faster() {
        let theirs = times(&[2.0; 7]);
        assert!(faster(&times(&[1.0; 7]), &theirs).is_some());
        assert_eq!(
            faster(&times(&[1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0]), &theirs),
            None
        );
    }

    #[test]
    fn figures_that_may_be_zero_differ_or_not() {
        let zero = times(&[0.0; 4]);
        let hundred = times(&[100.0; 4]);
        assert_eq!(differs(&zero, &times(&[5.0; 4])), Some(true));
        assert_eq!(differs(&zero, &zero), Some(false));
        assert_eq!(differs(&hundred, &times(&[104.0; 4])), Some(false));
        assert_eq!(differs(&hundred, &times(&[106.0; 4])), Some(true));
        let scattered = times(&[1.0, 9.0, 5.0]);
        assert_eq!(differs(&scattered, &times(&[2.0, 20.0, 3.0])), Some(false));
        assert_eq!(differs(&zero[..2], &times(&[5.0; 4])), None);
    }

    #[test]
    fn the_middle_half_is_between_the_quartiles() {
        assert_eq!(middle_half(&[5.0, 1.0, 2.0, 4.0, 3.0]), Some([2.0, 4.0]));
        assert_eq!(middle_half(&[1.0, 2.0]), Some([1.25, 1.75]));
        assert_eq!(middle_half(&[7.0]), Some([7.0, 7.0]));
        assert_eq!(middle_half(&[]), None);
    }

    #[test]
    fn only_rounds_that_both_have_are_compared() {
        let ours = [(0, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)];
        let theirs = [(0, 2.0), (1, 0.1), (2, 2.0), (4, 2.0)];
        assert_eq!(Ratio::of(&ours, &theirs).unwrap().value, 2.0);
        assert_eq!(Ratio::of(&ours[..2], &theirs), None);
        assert_eq!(Ratio::of(&times(&[0.0; 5]), &times(&[1.0; 5])), None);
    }
}
