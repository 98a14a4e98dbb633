//! What several samples say together, and when one set of them is faster than another.

use serde::{Deserialize, Serialize};

/// Fewer samples tell nothing of their spread.
pub(super) const FEWEST_SAMPLES: usize = 3;
/// By less than this factor, what differs may be where the linker or the kernel put something.
pub(super) const LEAST_FACTOR: f64 = 1.03;
/// The medians must be further apart than so many times both sides' deviations together. With normal
/// noise, no difference and five repetitions, a winner is then named by chance in one of 100 cells.
pub(super) const DEVIATIONS: f64 = 3.0;
/// Of so many repetitions, the faster one may have been the slower one once: when something else on
/// the machine came between.
pub(super) const REPETITIONS_PER_UPSET: usize = 5;

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
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

/// By which factor `ours` is faster than `theirs`, if that exceeds the spread. Both are times, by
/// repetition.
pub(super) fn faster(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Option<f64> {
    if ours.len().min(theirs.len()) < FEWEST_SAMPLES {
        return None;
    }
    let spread = |times: &[(usize, f64)]| {
        Spread::of(&times.iter().map(|(_, time)| *time).collect::<Vec<_>>())
    };
    let (a, b) = (spread(ours)?, spread(theirs)?);
    let pairs = ours.iter().filter_map(|(repetition, time)| {
        let (_, other) = theirs.iter().find(|(other, _)| other == repetition)?;
        Some(other > time)
    });
    let (wins, upsets): (Vec<_>, Vec<_>) = pairs.partition(|won| *won);
    let factor = b.median / a.median;
    (factor >= LEAST_FACTOR
        && b.median - a.median > DEVIATIONS * (a.deviation + b.deviation)
        && upsets.len() <= (wins.len() + upsets.len()) / REPETITIONS_PER_UPSET)
        .then_some(factor)
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
    fn what_lies_within_the_spread_is_not_faster() {
        let ours = times(&[1.0, 1.1, 0.9, 1.0, 1.2]);
        assert_eq!(faster(&ours, &times(&[1.2, 1.3, 1.1, 1.2, 1.4])), None);
        assert_eq!(faster(&ours, &times(&[2.0, 2.1, 1.9, 2.0, 2.2])), Some(2.0));
    }

    #[test]
    fn a_small_factor_is_not_faster_however_steady() {
        let ours = times(&[1.0; 5]);
        assert_eq!(faster(&ours, &times(&[1.02; 5])), None);
        assert_eq!(faster(&ours, &times(&[1.05; 5])), Some(1.05));
    }

    #[test]
    fn one_repetition_in_five_may_be_upset() {
        let theirs = times(&[2.0; 5]);
        assert!(faster(&times(&[1.0, 9.0, 1.0, 1.0, 1.0]), &theirs).is_some());
        assert!(faster(&times(&[1.0, 9.0, 1.0, 9.0, 1.0]), &theirs).is_none());
        assert!(faster(&times(&[1.0, 9.0, 1.0]), &theirs[..3]).is_none());
    }

    #[test]
    fn two_samples_decide_nothing() {
        assert_eq!(faster(&times(&[1.0; 2]), &times(&[9.0; 5])), None);
    }
}
