//! Medians and quartiles.

/// The middle of the values; None without any.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The median, and between which two of the values the true one is in 95 of 100 cases, whatever the values'
/// distribution. Of fewer than 6 values, that is none of them sure: then the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// None without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let outside = outside(sorted.len());
        Some(Self {
            low: *sorted.get(outside)?,
            median: median(values)?,
            high: *sorted.get(sorted.len().checked_sub(outside + 1)?)?,
        })
    }

    /// What it says of a goal, which is not to be exceeded.
    pub(crate) fn verdict(self, goal: f64) -> &'static str {
        if self.high <= goal {
            "holds"
        } else if self.low > goal {
            "missed"
        } else {
            "undecided"
        }
    }
}

/// How many of so many values lie outside of the interval at each end. Each value is above the true median
/// as often as below: that no more than k are on one side has the probability of a binomial distribution.
fn outside(values: usize) -> usize {
    /// At each end.
    const OUTSIDE: f64 = 0.025;
    let mut probability = 0.5_f64.powi(values as i32);
    let mut sum = 0.0;
    for k in 0..values {
        sum += probability;
        if sum > OUTSIDE {
            return k.saturating_sub(1);
        }
        probability *= (values - k) as f64 / (k + 1) as f64;
    }
    0
}

fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (
        sorted[position.floor() as usize],
        sorted[position.ceil() as usize],
    );
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_between_neighbours() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn an_interval_leaves_out_as_many_values_as_tables_say() {
        // Of the sign test: for 95 percent, the ranks from the first in are those after so many.
        let tables = [(5, 0), (6, 0), (9, 1), (12, 2), (24, 6), (40, 13), (60, 21)];
        for (values, expected) in tables {
            assert_eq!(outside(values), expected, "{values}");
        }
        let values: Vec<f64> = (0..12).rev().map(f64::from).collect();
        let interval = Interval::of(&values).unwrap();
        assert_eq!(
            [interval.low, interval.median, interval.high],
            [2.0, 5.5, 9.0]
        );
        assert_eq!(Interval::of(&[]), None);
    }

    #[test]
    fn a_goal_inside_of_the_interval_is_undecided() {
        let interval = Interval {
            low: 1.1,
            median: 1.2,
            high: 1.3,
        };
        let verdicts = [1.0, 1.1, 1.2, 1.3].map(|goal| interval.verdict(goal));
        assert_eq!(verdicts, ["missed", "undecided", "undecided", "holds"]);
    }
}
