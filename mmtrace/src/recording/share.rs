//! Sharing a sum out.

/// Shares `total` out in proportion to `weights`, in whole numbers that add up to it exactly: each
/// gets its share rounded down, and those that lose most by that one more. `None` if there is
/// nothing to go by: no weight above 0.
#[must_use]
pub fn share_out(total: u64, weights: &[u64]) -> Option<Vec<u64>> {
    let all: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if all == 0 {
        return None;
    }
    let exact = |weight: u64| u128::from(total) * u128::from(weight);
    // Not above the total, hence a u64.
    let mut shares: Vec<u64> = weights
        .iter()
        .map(|&weight| (exact(weight) / all) as u64)
        .collect();
    let left = total - shares.iter().sum::<u64>();
    let mut by_loss: Vec<usize> = (0..weights.len()).collect();
    by_loss.sort_by_key(|&index| std::cmp::Reverse(exact(weights[index]) % all));
    for &index in by_loss.iter().take(left as usize) {
        shares[index] += 1;
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_off_by_less_than_one() {
        assert_eq!(share_out(10, &[1, 1, 1]), Some(vec![4, 3, 3]));
        assert_eq!(share_out(7, &[2, 5]), Some(vec![2, 5]));
        assert_eq!(share_out(5, &[0, 3, 0]), Some(vec![0, 5, 0]));
        assert_eq!(
            share_out(u64::MAX, &[u64::MAX, u64::MAX]),
            Some(vec![1 << 63, (1 << 63) - 1])
        );
        assert_eq!(share_out(0, &[4, 4]), Some(vec![0, 0]));
    }

    #[test]
    fn without_weights_there_is_nothing_to_go_by() {
        assert_eq!(share_out(9, &[]), None);
        assert_eq!(share_out(9, &[0, 0]), None);
    }
}
